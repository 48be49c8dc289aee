"""Tasks that say what they were given, in the app of the others."""

from typing import Any

from history_lines import FILE, append, now
from jobs import app, note
from qworker import INJECTED, Backoff, Context

__all__ = ["app"]

ODD_NAME = 'odd {"event": "job.succeeded"} [info] name=\\n "x" 😀'  # as odd as a name may be


@app.task
async def take(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    note("end", n, ctx)


@app.task
async def keep(n: int, value: Any, *, ctx: Context = INJECTED, **named: Any) -> None:
    """Write down the arguments as they came."""
    assert FILE is not None
    append(FILE, {"what": "kept", "n": n, "value": value, "named": named} | now())


class OddError(Exception):
    """Its name is one that no line of code could have."""


OddError.__qualname__ = "Odd\nError\x1b[31m"


@app.task(max_attempts=2, backoff=Backoff(base=0))
async def shout(n: int, secret: str, text: str, times: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    raise ValueError(text * times)


@app.task(name=ODD_NAME, max_attempts=1)
async def oddly_named(n: int, secret: str, text: str, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    ctx.log.warning(text, text=text * 100, tree={"a": [text * 100]})
    raise OddError(text)
