"""The terminal that `qworker top` has to itself: its keys, its signals, its size."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from qworker.system.platform import STOPPING

if sys.platform == "win32":
    ENDING_KEY: Final = "Ctrl-C"
    """The key that ends it. On Windows no event loop learns of a key, but of signals."""
    _GONE: Final[tuple[signal.Signals, ...]] = ()
    _RESIZED: Final[tuple[signal.Signals, ...]] = ()
else:
    import termios
    import tty

    ENDING_KEY = "q"
    _GONE = (signal.SIGHUP,)
    _RESIZED = (signal.SIGWINCH,)
_QUIT: Final = frozenset(b"qQ\x03\x04")
"""q, and the characters of Ctrl-C and Ctrl-D."""


@contextmanager
def watching_keys(quit_asked: asyncio.Event, resized: asyncio.Event) -> Iterator[None]:
    """Set an event once somebody wants to end it, by q or by a signal, and another when the terminal's size changes.

    What is typed is not shown meanwhile; the terminal is left as it was. On Windows only signals end it.
    """
    ending = dict.fromkeys((*STOPPING, *_GONE), quit_asked.set)
    with _hearing(ending | dict.fromkeys(_RESIZED, resized.set)), _listening(quit_asked):
        yield


@contextmanager
def _hearing(calls: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Have those called on the event loop for signals; not by its own way with them, which Windows' loop has not."""
    loop = asyncio.get_running_loop()
    before = {
        number: signal.signal(number, lambda *_, call=call: loop.call_soon_threadsafe(call))
        for number, call in calls.items()
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listening(quit_asked: asyncio.Event) -> AbstractContextManager[None]:
    if sys.platform != "win32" and sys.stdin.isatty():
        return _reading_keys(sys.stdin.fileno(), quit_asked)
    return nullcontext()


if sys.platform != "win32":

    @contextmanager
    def _reading_keys(keys: int, quit_asked: asyncio.Event) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        before = termios.tcgetattr(keys)
        tty.setcbreak(keys)
        try:
            loop.add_reader(keys, _hear, keys, quit_asked)
            try:
                yield
            finally:
                loop.remove_reader(keys)
        finally:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)


def _hear(keys: int, quit_asked: asyncio.Event) -> None:
    try:
        typed = os.read(keys, 64)
    except OSError:
        typed = b""
    if not typed or not _QUIT.isdisjoint(typed):  # nothing: the terminal is gone
        quit_asked.set()
