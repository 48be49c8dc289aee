"""A long job that was interrupted goes on where it was: its progress is saved in its own message.

    python -m examples.checkpoint_resume 100
    qworker run examples.checkpoint_resume --lease 5     # kill -9 it half-way, and start it again

A worker that is killed says nothing: the message comes back when its lease ends, here after 5 seconds.
"""

import sys
import time

from pydantic import BaseModel

from qworker import INJECTED, Context, task


class Progress(BaseModel):
    """What a checkpoint saves: any JSON value would do; a model is checked on the way in and out."""

    done: int = 0
    total: int = 0


@task(state=Progress)
def add_up(numbers: int, *, seconds_each: float = 0.1, ctx: Context = INJECTED) -> None:
    """Add 1 to *numbers*, slowly. In an async def, it is ``await ctx.acheckpoint(…)``."""
    progress = ctx.state or Progress()
    print(f"attempt {ctx.attempt} begins after {progress.done}", flush=True)
    for number in range(progress.done + 1, numbers + 1):
        time.sleep(seconds_each)
        progress = Progress(done=number, total=progress.total + number)
        ctx.checkpoint(progress)  # one request, which renews the lease as well: not needed at each step
        print(f"added {number}", flush=True)
    print(f"the sum is {progress.total}", flush=True)


if __name__ == "__main__":
    add_up.enqueue(int(sys.argv[1]))
