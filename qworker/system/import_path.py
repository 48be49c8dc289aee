"""Puts a project's folder into Python's import path: after the standard library, before installed packages."""

import os
import sys

_STANDARD_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120 — pathlib may be the project's own at this time


def admit(folder: str) -> None:
    """Have modules of *folder* found, but none in place of the standard library's: an email.py is the project's own.

    A folder that comes earlier already, by PYTHONPATH or as the program's own, stays there.
    """
    place = _behind_the_standard_library()
    if folder not in sys.path[: place + 1]:
        sys.path.insert(place, folder)


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
