"""The next version of the app in jobs.py: it has all of its tasks, and one more."""

from jobs import app, note
from qworker import INJECTED, Context

__all__ = ["app"]


@app.task
async def added(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    note("end", n, ctx)
