"""Puts a project's folder into Python's import path: after the standard library, before installed packages."""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

LATE = frozenset(
    {"aiohttp", "azure", "opentelemetry", "prometheus_client", "rich", "typer", "uvloop", "watchfiles"},
)
"""Libraries that the command and its workers import only when they need them, which may be after the project."""
_STANDARD_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120 — pathlib may be the project's own at this time


def admit(folder: str) -> None:
    """Have modules of *folder* found, but none in place of the standard library's: an email.py is the project's own.

    A folder that comes earlier already, by PYTHONPATH or as the program's own, stays there.
    """
    spare_libraries()
    place = _behind_the_standard_library()
    if folder not in sys.path[: place + 1]:
        sys.path.insert(place, folder)


def spare_libraries() -> None:
    """Have libraries that qworker imports late found where they are installed, whatever the project's are called."""
    if not any(isinstance(finder, _InstalledFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, _InstalledFirst())


class _InstalledFirst:
    """Finds a library of qworker's among installed packages first, and in the project after."""

    def find_spec(self, name: str, path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return where the module is; None if it is no such library, for others to find."""
        if path is not None or name not in LATE:
            return None
        place = _behind_the_standard_library()
        before, behind = sys.path[:place], sys.path[place:]  # PYTHONPATH comes before, and is somebody's will
        installed = [entry for entry in behind if _is_place_of_packages(entry)]
        return PathFinder.find_spec(name, before + installed) or PathFinder.find_spec(name, behind)


def _is_place_of_packages(entry: str) -> bool:
    return os.path.basename(entry) in {"site-packages", "dist-packages"}  # noqa: PTH119 — as above


def _behind_the_standard_library() -> int:
    own = [number for number, entry in enumerate(sys.path) if _is_standard(entry)]
    return own[-1] + 1 if own else len(sys.path)


def _is_standard(entry: str) -> bool:
    return entry in {_STANDARD_LIBRARY, os.path.join(_STANDARD_LIBRARY, "lib-dynload")}  # noqa: PTH118 — as above


def _put_own_folder_last() -> None:
    """Undo what Python does for ``python -m qworker``: it looks in the current folder before anywhere else."""
    if not sys.flags.safe_path and _is_run_by_name():
        sys.path.append(sys.path.pop(0))


def _is_run_by_name() -> bool:
    """Say whether Python imports this package in order to run it: a program is called "-m" until it is found."""
    if sys.argv[:1] != ["-m"]:
        return False
    named = sys.orig_argv[-len(sys.argv)]
    return named == "qworker" or (named.startswith("-") and named.endswith("mqworker"))


_put_own_folder_last()
