"""How a worker's child processes begin: as the worker's own program did."""

import importlib
import json
import multiprocessing.spawn
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Final, Self

from qworker.errors import ConfigurationError
from qworker.system.import_path import spare_libraries
from qworker.system.interpreter import import_path

CHILD: Final = "qworker-child"
"""Such a process by the name that multiprocessing.current_process() has."""

_importing_main = False
"""Whether this process is a child that imports its program's main module."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What child processes share with the program that starts them."""

    path: Sequence[str]
    """The program's import path when it began; the parts of a child itself are found as those of the program were."""
    folder: str | None
    """The working directory at that time, which may be gone since; None if it was gone then."""
    app: str | None = None
    """The module that `qworker run` was given: a child imports it first. None in other programs: their main module."""
    setup: "partial[None] | None" = None
    """A function of a module, with arguments that are JSON; a child calls it before that import."""
    completion: "partial[Any] | None" = None
    """Another that it calls after that import."""

    @classmethod
    def here(
        cls, app: str | None = None, setup: "partial[None] | None" = None, completion: "partial[Any] | None" = None
    ) -> Self:
        """Return the beginning of a program that has come to this point."""
        return cls(import_path(), _current_folder(), app, setup, completion)

    def place(self) -> str | None:
        """Return the folder to start a child in; None, the parent's present one, if that is out of reach."""
        if self.folder is None or not os.path.isdir(self.folder):  # noqa: PTH112 — it is a text
            return None
        return self.folder if os.access(self.folder, os.X_OK) else None

    def told(self) -> bytes:
        """Return what a child has to know beyond its command line, folder and environment."""
        return json.dumps(
            {
                "path": import_path(),
                "prepare": {"name": CHILD, "sys_argv": sys.argv, **({} if self.app else _main())},
                "setup": None if self.setup is None else _named(self.setup),
                "completion": None if self.completion is None else _named(self.completion),
                "app": None if self.app is None else self.app.partition(":")[0],
            },
        ).encode()


class Start:
    """The beginning as a child goes through it; a step that fails is tried again by the next call."""

    def __init__(self, told: bytes) -> None:
        values: dict[str, Any] = json.loads(told)
        self._steps: list[Callable[[], object]] = []
        if values["setup"] is not None:  # what that imports is qworker's, which the project's path might hide
            self._steps.append(partial(_call, values["setup"]))
        if values["app"] is not None:
            self._steps.append(spare_libraries)
        self._steps += [partial(_use_path, values["path"]), partial(_prepare, values["prepare"])]
        if values["app"] is not None:
            self._steps.append(partial(importlib.import_module, values["app"]))
        if values["completion"] is not None:
            self._steps.append(partial(_call, values["completion"]))

    def go(self) -> None:
        """Do what is left to do. Raises whatever the program's own modules raise."""
        while self._steps:
            self._steps[0]()
            del self._steps[0]


def refuse_worker_while_beginning() -> None:
    """Raise ConfigurationError if a worker starts because its program's main module is imported into a child."""
    if _importing_main:
        raise ConfigurationError(
            "a worker with child processes starts where its module is imported, and each child imports that module: "
            "start it below 'if __name__ == \"__main__\":'"
        )


def _current_folder() -> str | None:
    with suppress(FileNotFoundError):
        return os.getcwd()  # noqa: PTH109 — Popen takes a text
    return None


def _main() -> Mapping[str, Any]:
    """Return how the program's main module is found, by what multiprocessing would tell its own children."""
    told = multiprocessing.spawn.get_preparation_data(CHILD)
    return {key: value for key, value in told.items() if key in {"init_main_from_name", "init_main_from_path"}}


def _use_path(path: list[str]) -> None:
    sys.path[:] = path


def _prepare(told: dict[str, Any]) -> None:
    global _importing_main  # noqa: PLW0603 — what the main module starts has no other way to know
    _importing_main = True
    try:
        multiprocessing.spawn.prepare(told)
    finally:
        _importing_main = False


def _named(setup: "partial[Any]") -> dict[str, Any]:
    function: Any = setup.func
    return {"function": [function.__module__, function.__qualname__], "args": setup.args, "kwargs": setup.keywords}


def _call(named: dict[str, Any]) -> None:
    module, name = named["function"]
    function: Any = reduce(getattr, name.split("."), importlib.import_module(module))
    function(*named["args"], **named["kwargs"])
