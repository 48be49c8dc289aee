"""Tasks for the process executor; a child process imports this module anew."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from qworker import INJECTED, App, Context, Reject, Retry, Snooze

app = App(broker="sqlite://")


@app.task(executor="process")
def add(left: int, right: int) -> None:
    assert 3 == left + right


@app.task(executor="process")
def count_on(to: int, *, ctx: Context = INJECTED) -> None:
    for number in range((ctx.state or 0) + 1, to + 1):
        ctx.checkpoint(number)
        assert number == ctx.state


@app.task(executor="process", state=int)
def save(state: Any, *, ctx: Context = INJECTED) -> None:
    ctx.checkpoint(state)


@app.task(executor="process")
def ask(what: str) -> None:
    raise {
        "retry": Retry("again", after=7),
        "reject": Reject("never"),
        "snooze": Snooze("soon", after=3),
        "exit": SystemExit(3),
    }[what]


class Hopeless(LookupError):
    """What only this module knows."""


@app.task(executor="process", give_up_on=(Hopeless, OSError), retry_on=(LookupError, ConnectionError))
def judge(what: str) -> None:
    errors: dict[str, BaseException] = {
        "hopeless": Hopeless("gone"),
        "hopeless group": ExceptionGroup("one", [Hopeless("gone")]),
        "retried": KeyError("later"),
        "nearer": ConnectionResetError("later"),
        "farther": FileNotFoundError("gone"),
        "another": ValueError("gone"),
    }
    raise errors[what]


@app.task(executor="process")
def die(number: int) -> None:
    if number:
        os.kill(os.getpid(), number)
    os._exit(7)


@app.task(executor="process")
def hang(file: str) -> None:
    with Path(file).open("w") as pid:
        pid.write(f"{os.getpid()}\n")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


@app.task(executor="process")
def shout(size: int) -> None:
    sys.stderr.write("x" * size)
    print(os.getpid(), flush=True)  # noqa: T201 — the point


async def _never_awaited() -> None: ...


@app.task(executor="process")
def hidden_coroutine() -> Any:
    return _never_awaited()


@app.task(executor="process")
def hidden_generator() -> Any:
    return (number for number in range(3))


not_a_task = 1
