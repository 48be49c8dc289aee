"""Runs `qworker` commands, each in a fork of this process, so that it costs little: a JSON line each way.

It is asked with a list of arguments and answers with [exit code, what was printed].
"""

import json
import os
import signal
import sys
from typing import Final, NoReturn

import jobs
import qworker.cli.shared.load
import qworker.engine.worker
import qworker.observe.logs  # noqa: F401 — what a command loads late is loaded here, once
from qworker.cli import main

_PATIENCE: Final = 60
"""Seconds after which a command that doesn't end is killed."""


def run(arguments: list[str]) -> tuple[int, str]:
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        be_command(arguments, writing)
    os.close(writing)
    with os.fdopen(reading) as output:
        printed = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), printed


def be_command(arguments: list[str], writing: int) -> NoReturn:
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    sys.argv = ["qworker", *arguments]
    signal.alarm(_PATIENCE)
    code: object = 70
    try:
        main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    jobs.app.use_broker("sqlite://")
    jobs.quick.enqueue(0)  # which loads the rest
    jobs.app.close()
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)  # noqa: T201 — it is what it is asked for
