"""Forks, and the end of the process: neither may come while SQLite is at work."""

import atexit
import threading
import weakref
from typing import Protocol

from qworker.system.platform import at_fork


class Forkable(Protocol):
    """What holds a connection to a database."""

    def before_fork(self) -> None:
        """Wait until no SQL runs, and let none begin."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew."""

    def end(self) -> None:
        """Stop, and wait a little: for the end of the process."""


_registry = threading.RLock()  # a signal may come in the middle, and its handler fork
_all: weakref.WeakSet[Forkable] = weakref.WeakSet()
_frozen: list[Forkable] = []


def register(one: Forkable) -> None:
    """Have it told, for as long as anybody else refers to it."""
    with _registry:
        _all.add(one)


def _before_fork() -> None:
    _registry.acquire()
    _frozen.extend(_all)
    for each in _frozen:
        each.before_fork()


def _after_fork_in_parent() -> None:
    for each in _frozen:
        each.after_fork_in_parent()
    _frozen.clear()
    _registry.release()


def _after_fork_in_child() -> None:
    for each in _frozen:
        each.after_fork_in_child()
    _frozen.clear()
    _registry.release()


@atexit.register
def _end_all() -> None:
    for each in list(_all):
        each.end()


at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
