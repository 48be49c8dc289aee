"""Tasks that are given up, and the same app as that of the others."""

import os
from pathlib import Path

from jobs import app, note
from qworker import INJECTED, Context, Reject

__all__ = ["app"]


@app.task(max_attempts=1)
async def fail_once(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    raise ValueError(f"no {n}")


@app.task(max_attempts=5)
async def reject(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    raise Reject(f"never {n}")


@app.task(max_attempts=1)
def need_repair(n: int, *, ctx: Context = INJECTED) -> None:
    """Fail for as long as a file says that all is broken."""
    note("start", n, ctx)
    if Path(os.environ["BROKEN"]).exists():
        raise ValueError("it is broken")
    note("end", n, ctx)
