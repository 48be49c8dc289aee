"""Tasks for a soak: they write nothing down, so that what grows is the worker's own."""

import time

from qworker import INJECTED, App, Backoff, Context

app = App()
_AT_ONCE = Backoff(base=0)


def fail_now_and_then(n: int, attempt: int) -> None:
    """Fail for each tenth job; most succeed when they are tried again, each hundredth job never does."""
    if n % 100 == 0 or (n % 10 == 0 and attempt == 1):
        raise ValueError(f"no {n}")


@app.task
def occupy_a_thread() -> None:
    """Take long enough for a worker to start all the threads that it ever will."""
    time.sleep(0.1)


@app.task(max_attempts=2, backoff=_AT_ONCE)
async def soak(n: int, text: str, *, ctx: Context = INJECTED) -> None:
    fail_now_and_then(n, ctx.attempt)


@app.task(max_attempts=2, backoff=_AT_ONCE)
def soak_in_thread(n: int, text: str, *, ctx: Context = INJECTED) -> None:
    fail_now_and_then(n, ctx.attempt)
