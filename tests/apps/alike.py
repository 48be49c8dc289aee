"""Tasks that say how the process is that they run in; LIMIT is set here, as programs set such things."""

import json
import locale
import os
import re
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from jobs import app

__all__ = ["app"]
LIMIT = 4321
sys.setrecursionlimit(LIMIT)
locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
os.environ["SET_BY_THE_PROGRAM"] = "yes"
warnings.filterwarnings("error", message="a warning of the program's")


def facts() -> dict[str, Any]:
    flags = {name: getattr(sys.flags, name) for name in dir(sys.flags) if not name.startswith(("_", "n_", "count"))}
    own = {"QWORKER_SUPERVISED", "QWORKER_STARTED_AS"}
    return {
        "flags": {name: value for name, value in flags.items() if isinstance(value, int | bool)},
        "xoptions": sys._xoptions,
        "warnoptions": sys.warnoptions,
        "filters": sorted(map(str, warnings.filters)),
        "path": sys.path,
        "argv": sys.argv,
        "cwd": str(Path.cwd()),
        "umask": [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask")],
        "limits": [resource.getrlimit(limit) for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": sorted(os.sched_getaffinity(0)),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "ignored": [str(number) for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN],
        "locale": [locale.setlocale(locale.LC_ALL), sys.getfilesystemencoding(), locale.getencoding()],
        "zone": time.tzname,
        "recursion": sys.getrecursionlimit(),
        "streams": [getattr(stream, "write_through", None) for stream in (sys.__stdout__, sys.__stderr__)],
        "environment": {name: value for name, value in os.environ.items() if name not in own},
        "digits": sys.get_int_max_str_digits(),
    }


def _write(file: str, value: object) -> None:
    Path(file).write_text(json.dumps(value) + "\n")


@app.task
async def on_loop(file: str) -> None:
    _write(file, facts())


@app.task(executor="process")
def in_child(file: str) -> None:
    _write(file, facts())


@app.task
async def wander(file: str) -> None:
    _write(file, str(Path.cwd()))
    os.chdir("/")


@app.task(executor="process")
def whereabouts(file: str) -> None:
    _write(file, str(Path.cwd()))


@app.task(executor="process", max_attempts=1)
def number(file: str) -> None:
    _write(file, os.getpid())


@app.task(executor="process")
def compute_in_c(file: str) -> None:
    _write(file, os.getpid())
    re.match(r"(a+)+$", "a" * 40 + "b")  # which keeps the interpreter's lock for longer than anybody waits


@app.task
async def block(file: str) -> None:
    _write(file, os.getpid())
    while True:
        time.sleep(0.01)  # noqa: ASYNC251 — the point
