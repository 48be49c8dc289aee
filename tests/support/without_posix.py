"""Runs the qworker command, or a program, as if on Windows: without the names, devices and loops that it has not.

Its first argument is a file of JSON with the names to remove, module by module; the rest is a command line, or
several that "and" stands between, each of which runs in a fork of its own if those before went well. What the standard
library and installed packages need of this system, they have got before.
"""

import asyncio
import importlib
import itertools
import json
import logging
import multiprocessing.connection  # noqa: F401
import os
import platform
import runpy
import select
import shutil
import signal
import socket
import stat
import subprocess  # noqa: F401
import sys
import tomllib  # noqa: F401
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

PACKAGES = [
    "aiohttp.web",
    "azure.core.pipeline.transport",
    "azure.storage.queue.aio",
    "prometheus_client",
    "pydantic_settings",
    "rich.live",
    "rich.progress",
    "rich.table",
    "structlog.dev",
    "typer.main",
]
MODULES = ("crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")
AFTER_EACH = "the next command"
DEVICES = ("/proc/", "/sys/", "/dev/")
CTRL_BREAK = signal.SIGTTIN
"""Has the number that SIGBREAK has on Windows."""
KNOWN_SIGNALS = {
    signal.SIGABRT,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGINT,
    signal.SIGSEGV,
    signal.SIGTERM,
    CTRL_BREAK,
}


def become_windows(missing: dict[str, list[str]]) -> None:
    for package in PACKAGES:
        importlib.import_module(package)
    platform.platform()  # is asked once
    free = os.statvfs
    shutil.disk_usage = lambda path: _usage(free(path))
    _change_sockets()
    _change_signals()
    _change_loops()
    for module, names in missing.items():
        for name in names:
            delattr(importlib.import_module(module), name)
    for module in (*MODULES, "uvloop"):
        sys.modules[module] = None  # type: ignore[assignment] # to import it then fails
    sys.addaudithook(_refuse_devices)
    sys.platform = "win32"
    assert not any(name.partition(".")[0] == "qworker" for name in sys.modules)


def _usage(disk: os.statvfs_result) -> Any:
    total, left = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    return shutil._ntuple_diskusage(total, total - left, left)


def _change_sockets() -> None:
    pair, unix, ask = socket.socketpair, socket.AF_UNIX, select.select
    socket.socketpair = lambda: pair(unix)  # type: ignore[assignment,misc] # what asyncio wakes its loop by

    def of_sockets(*files: Any) -> Any:
        for file in itertools.chain(*files[:3]):
            if not stat.S_ISSOCK(os.fstat(file if isinstance(file, int) else file.fileno()).st_mode):
                raise OSError(10038, "an operation was attempted on something that is not a socket")
        return ask(*files)

    select.select = of_sockets
    del select.poll, select.epoll  # the loops' selector has its own


def _change_signals() -> None:
    install = signal.signal

    def known(number: Any, handler: Any) -> Any:
        if number not in KNOWN_SIGNALS:
            raise ValueError("invalid signal value")
        return install(number, handler)

    signal.signal = known  # type: ignore[assignment] # its annotations are looser
    signal.SIGBREAK = CTRL_BREAK  # type: ignore[attr-defined]


def _change_loops() -> None:
    def refuse(*_: object) -> NoReturn:
        raise NotImplementedError

    for name in ("reader", "writer", "signal_handler"):
        for verb in ("add", "remove"):
            setattr(asyncio.SelectorEventLoop, f"{verb}_{name}", refuse)


def is_device(name: str) -> bool:
    return name.startswith(DEVICES) and name != os.devnull


def _refuse_devices(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and is_device(arguments[0]):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


def run_all(lines: list[list[str]], fork: Callable[[], int]) -> int:
    """Run one command line after the other; return the exit code of the first that fails, or 0."""
    for line in lines:
        if (pid := fork()) == 0:
            run(line)
            return 0
        if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            return code
        print(AFTER_EACH, flush=True)  # noqa: T201 — its reader tells them apart by that
    return 0


def run(line: list[str]) -> None:
    sys.argv = line
    if line[0] == "qworker":
        from qworker.__main__ import main

        main()
    else:
        sys.path.insert(0, str(Path(line[0]).parent))
        runpy.run_path(line[0], run_name="__main__")


if __name__ == "__main__":
    names, *rest = sys.argv[1:]
    fork = os.fork
    become_windows(json.loads(Path(names).read_text()))
    logging.captureWarnings(capture=True)
    lines = [[*line] for is_and, line in itertools.groupby(rest, "and".__eq__) if not is_and]
    if len(lines) == 1:
        run(lines[0])
    else:
        sys.exit(run_all(lines, fork))
