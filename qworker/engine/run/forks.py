"""A handler may fork. In the child, what comes back from it is no worker: it must not run on, nor touch a queue.

The child has the worker's sockets, its epoll and the receipts of its leases, which all belong to the parent.
"""

import asyncio
import logging
import os
import threading
import weakref
from typing import Final

from qworker.system.platform import at_fork

_log = logging.getLogger("qworker")
no_fork: Final = threading.Lock()
"""Held where no thread may fork: its child would keep a pipe open for whose end somebody waits."""
_loops: Final = weakref.WeakSet[asyncio.AbstractEventLoop]()


def end_forks_of(loop: asyncio.AbstractEventLoop) -> None:
    """Have each process that is forked from this one end before that loop takes another step in it."""
    _loops.add(loop)


def end_if_forked_from(pid: int) -> None:
    """End this process unless it is the one of that id: a handler has forked, and this child came back from it."""
    if os.getpid() != pid:
        _end()


def _end() -> None:
    _log.error("a process that a handler forked came back from it, and was ended: it is no worker")
    os._exit(1)


def _forbid_loops() -> None:
    for loop in _loops:
        # A step that waits already may write to a socket that is the parent's, so this one has to be first.
        ready = getattr(loop, "_ready", None)
        if ready is None:
            loop.call_soon(_end)
        else:
            ready.appendleft(asyncio.Handle(_end, (), loop))


at_fork(after_in_child=_forbid_loops)
at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release)
