"""Tasks that say what they were given, in the app of the others."""

import json
from typing import Any

from history_lines import FILE, append, now
from jobs import app, note
from qworker import INJECTED, Backoff, Context

__all__ = ["app"]

ODD_NAME = 'odd\n{"event": "job.succeeded"}\x1b[31m\x85name'


@app.task
async def take(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    note("end", n, ctx)


@app.task
async def keep(n: int, value: Any, *, ctx: Context = INJECTED, **named: Any) -> None:
    """Write down the arguments as they came."""
    assert FILE is not None
    append(FILE, {"what": "kept", "n": n, "value": value, "named": named} | now())


@app.task(max_attempts=2, backoff=Backoff(base=0))
async def shout(n: int, text: str, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    raise ValueError(text)


@app.task(name=ODD_NAME, max_attempts=1)
async def oddly_named(n: int, text: str, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    ctx.log.info(text, text=text, tree={"a": [text]})
    raise json.JSONDecodeError(text, text, 0)
