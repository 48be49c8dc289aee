"""Leaves to the parent, in a forked child, what is the parent's: its event loops and its connections.

A child begins with a copy of every object and of every file descriptor of its parent, and frees them when it ends.
Freeing a connection would end the parent's: TLS says good-bye on the wire that both have, and an event loop strikes it
off the epoll that both have. So a child's copies lead nowhere, and are never freed.
"""

import asyncio
import ctypes
import os
import sys
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Protocol


class Opened(Protocol):
    """An owner of open file descriptors."""

    def descriptors(self) -> Iterable[int]:
        """Return those that are open; a negative one is none."""


_opened: Final[dict[int, "weakref.ref[Opened]"]] = {}
"""By id. No lock guards it, which a fork could leave locked: each change is one step of a dict."""


def leave_to_parent(opened: Opened) -> None:
    """Have a child that is forked from now on neither use, close nor free this, nor anything that it refers to."""
    key = id(opened)
    _opened[key] = weakref.ref(opened, lambda _: _opened.pop(key, None))


def never_free(thing: object) -> None:
    """Keep an object and all that it refers to, even when the interpreter ends and empties its modules."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def wakers_of(loop: asyncio.AbstractEventLoop) -> Iterable[int]:
    """Return the descriptors by which other threads wake an event loop.

    A child that ends within a coroutine closes the loop, and would strike these off the parent's epoll.
    """
    wakers = (getattr(loop, "_ssock", None), getattr(loop, "_csock", None))  # uvloop keeps its own to itself
    return [waker.fileno() for waker in wakers if waker is not None]


def _leave_all() -> None:
    inherited = [one for reference in tuple(_opened.values()) if (one := reference()) is not None]
    _opened.clear()
    for one in inherited:
        never_free(one)
    descriptors = [number for one in inherited for number in one.descriptors() if number >= 0]
    if not descriptors:
        return
    with suppress(OSError):  # too many files are open, or there is no such device
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in descriptors:
            os.dup2(nowhere, number, inheritable=False)
        os.close(nowhere)


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_leave_all)
