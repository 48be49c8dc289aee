"""Running out of file descriptors: how to tell, and how to have more of them."""

import errno
import os
import sys
from contextlib import ExitStack, suppress
from typing import Final

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})
"""Errors that pass when others let go of what they hold: descriptors, memory, processes."""
_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
_ENOUGH: Final = 65_536
"""Files that a worker may need: far more than its connections, its children and its handlers' files."""


def are_out(needed: int = 1) -> bool:
    """Return whether so many files can't be opened now, by this process or on this machine."""
    with ExitStack() as opened:
        try:
            for _ in range(needed):
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            return error.errno in _OUT_OF_FILES
    return False


def allow_many() -> None:
    """Raise this process's limit of open files to what it may have; the usual one, 1,024, is for programs of old."""
    if sys.platform != "win32":  # which has no such limit
        import resource  # noqa: PLC0415 — nor this

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
