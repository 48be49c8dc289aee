"""Runs `python` and `qworker` commands, each in a fork of this process, so that it costs little: a JSON line each way.

It is asked with a command, its folder, its environment and the places of its streams, and answers with
[exit code, what came to the place "output", what came to the place "errors"].
"""

import json
import os
import runpy
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, Any, Final, NoReturn

import pytest  # noqa: F401 — what a command loads late is loaded here, once

import qworker.app
import qworker.brokers.choose
import qworker.brokers.sqlite.broker
import qworker.cli.shared.load
import qworker.engine.worker
import qworker.observe.log_setup
import qworker.observe.logs
import qworker.testing
from qworker.__main__ import main

_PATIENCE: Final = 60
"""Seconds after which a command that doesn't end is killed."""


def run(asked: dict[str, Any]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        if (pid := os.fork()) == 0:
            be_command(asked, {"output": output.fileno(), "errors": errors.fileno()})
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code, read(output), read(errors)


def read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def redirect(places: list[str], known: dict[str, int]) -> None:
    """Have standard input, output and error be what a shell would make of them."""
    for number, (place, name) in enumerate(zip(places, ("stdin", "stdout", "stderr"), strict=True)):
        match place:
            case "closed":  # Python then begins without the stream
                os.close(number)
                setattr(sys, name, None)
                setattr(sys, f"__{name}__", None)
            case "unread":
                reading, writing = os.pipe()
                os.dup2(writing, number)
                os.close(reading)
                os.close(writing)
            case _:
                opened = known[place] if place in known else os.open(place, os.O_RDWR)
                os.dup2(opened, number)
                if place not in known:
                    os.close(opened)


def be_command(asked: dict[str, Any], known: dict[str, int]) -> NoReturn:
    os.chdir(asked["folder"])
    qworker.app.default_app._here = Path.cwd()  # as if it were imported here
    os.environ.clear()
    os.environ.update(asked["environment"])
    program, *arguments = asked["command"]
    sys.path.insert(0, asked["folder"])
    sys.argv = [program, *arguments]
    signal.alarm(_PATIENCE)
    redirect(asked["streams"], known)
    for number in known.values():
        os.close(number)
    code: object = 0
    try:
        if program == "qworker":
            main()
        elif arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 — as Python itself would tell of it
        traceback.print_exc()
        code = 1
    finally:
        os._exit(flushed(code if isinstance(code, int) else 0 if code is None else 1))


def flushed(code: int) -> int:
    """Flush what was printed, and return the exit code: Python's own is 120 if that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            code = 120
    return code


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)  # noqa: T201 — it is what it is asked for
