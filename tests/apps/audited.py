"""A worker that writes down what Python tells its auditors: code that is run, modules, processes, pickles."""

import sys
from typing import Any

from history_lines import FILE, append, now
from jobs import app
from qworker import INJECTED, Context

__all__ = ["app"]

# Not "compile": tracebacks parse the lines of code that they show, and what is parsed is not yet run.
_DANGEROUS = {"exec", "import", "code.__new__", "marshal.loads", "pickle.find_class", "ctypes.dlopen"}
_PROCESSES = ("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "subprocess.", "pty.")
_seen: list[str] = []
_armed = False


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _armed and (event in _DANGEROUS or event.startswith(_PROCESSES)):
        _seen.append(f"{event} {args!r}"[:200])


sys.addaudithook(_audit)


@app.task
async def watch(*, ctx: Context = INJECTED) -> None:
    """Begin to write down."""
    global _armed  # noqa: PLW0603 — Python's own auditors can't be taken back
    _armed = True
    append(str(FILE), {"what": "watching"} | now())


@app.task
async def report(*, ctx: Context = INJECTED) -> None:
    """Tell what was seen, with one example that must be among it."""
    exec("1")
    append(str(FILE), {"what": "audited", "seen": _seen} | now())
