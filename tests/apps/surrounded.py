"""Apps with a setup of their child processes, and something around each call."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from qworker import App, Backoff

_done = {"set_up": 0, "again": 0}
_within: list[str] = []


def _set_up() -> None:
    _done["set_up"] += 1


app = App(child_setup=_set_up)


@app.around_thread
def _hook() -> Iterator[None]:
    _within.append("hook")
    yield
    _within.remove("hook")


@app.task(executor="process", max_attempts=1)
def note(file: str, n: int) -> None:
    with Path(file).open("a") as lines:
        lines.write(json.dumps({"n": n, "within": _within} | _done) + "\n")
    _done["again"] += 1


def _fail_once() -> None:
    tries = Path(os.environ["TRIES"])
    count = int(tries.read_text()) if tries.exists() else 0
    tries.write_text(str(count + 1))
    if not count:
        raise OSError("not yet")


stubborn = App(child_setup=_fail_once)


@stubborn.task(executor="process", max_attempts=2, backoff=Backoff(base=0))
def late() -> None: ...
