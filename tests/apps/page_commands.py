"""Runs `python` and `qworker` commands, each in a fork of this process, so that it costs little: a JSON line each way.

It is asked with a command, its folder and its environment, and answers with [exit code, what was printed].
"""

import json
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest  # noqa: F401 — what a command loads late is loaded here, once

import qworker.app
import qworker.brokers.choose
import qworker.brokers.sqlite
import qworker.cli.load
import qworker.engine.worker
import qworker.log_setup
import qworker.logs
import qworker.testing
from qworker.cli import main

_PATIENCE: Final = 60
"""Seconds after which a command that doesn't end is killed."""


def run(asked: dict[str, Any]) -> tuple[int, str]:
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        be_command(asked, writing)
    os.close(writing)
    with os.fdopen(reading) as output:
        printed = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), printed


def be_command(asked: dict[str, Any], writing: int) -> NoReturn:
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.chdir(asked["folder"])
    qworker.app.default_app._here = Path.cwd()  # as if it were imported here
    os.environ.clear()
    os.environ.update(asked["environment"])
    program, *arguments = asked["command"]
    sys.path.insert(0, asked["folder"])
    sys.argv = [program, *arguments]
    signal.alarm(_PATIENCE)
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
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)  # noqa: T201 — it is what it is asked for
