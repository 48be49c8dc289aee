"""Starts Python once more as this process was started: same interpreter, same options, same import path."""

import json
import multiprocessing.spawn
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from qworker.errors import QworkerError

_STARTED_AS: Final = "QWORKER_STARTED_AS"
_BEGIN: Final = (
    f"import json, os, sys; sys.argv[0], sys.path[:] = json.loads(os.environ.pop({_STARTED_AS!r})); "
    "from {module} import {function}; {function}()"
)
"""What the new Python does: with -P, and until it has the path, it finds the standard library and nothing else."""


def command(function: str, *arguments: str) -> list[str]:
    """Return the command line that calls a function, named as "module:function", in a new Python.

    It has to get the variables of `environment` too. Raises QworkerError if this program can't be started again.
    """
    module, _, name = function.partition(":")
    return [_executable(), *_options(), "-P", "-c", _BEGIN.format(module=module, function=name), *arguments]


def environment(path: Iterable[str]) -> Mapping[str, str]:
    """Return what tells the new Python its import path, and how this program is called."""
    return {_STARTED_AS: json.dumps([sys.argv[0] if sys.argv else "", list(path)])}


def import_path() -> tuple[str, ...]:
    """Return this process's import path; it may be given anything, but only texts can be passed on."""
    entries: Iterable[object] = sys.path
    return tuple(entry for entry in entries if isinstance(entry, str))


def _executable() -> str:
    found = multiprocessing.spawn.get_executable()  # which programs that embed Python set
    if getattr(sys, "frozen", False) or not found:
        raise QworkerError("a program that is frozen into one file, or embeds Python, can't start child processes")
    return os.fsdecode(found)


def _options() -> Iterator[str]:
    """Yield the options that this Python was given; nothing public has them all."""
    yield from subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    known = {"dev", "faulthandler", "tracemalloc", "importtime", "frozen_modules", "showrefcount", "utf8"}
    for name, value in sys._xoptions.items():  # noqa: SLF001 — the documented name
        if name not in known:
            yield from ("-X", name if value is True else f"{name}={value}")
    if getattr(sys.__stdout__, "write_through", False) and "PYTHONUNBUFFERED" not in os.environ:
        yield "-u"
