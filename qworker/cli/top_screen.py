"""The terminal that `qworker top` has to itself: its keys, its signals, its size."""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_QUIT: Final = frozenset(b"qQ\x03\x04")
"""q; and what Ctrl-C and Ctrl-D are where they come as characters."""


@contextmanager
def watching_keys(quit_asked: asyncio.Event, resized: asyncio.Event) -> Iterator[None]:
    """Set an event once somebody wants to end it, by q or by a signal, and another when the terminal's size changes.

    What is typed is not shown meanwhile; the terminal is left as it was.
    """
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, quit_asked.set)
    loop.add_signal_handler(signal.SIGWINCH, resized.set)
    try:
        if sys.stdin.isatty():
            with _unechoed(sys.stdin.fileno()) as keys:
                loop.add_reader(keys, _hear, keys, quit_asked)
                try:
                    yield
                finally:
                    loop.remove_reader(keys)
        else:
            yield
    finally:
        for number in (*_ENDING, signal.SIGWINCH):
            loop.remove_signal_handler(number)


def _hear(keys: int, quit_asked: asyncio.Event) -> None:
    try:
        typed = os.read(keys, 64)
    except OSError:
        typed = b""
    if not typed or not _QUIT.isdisjoint(typed):  # nothing: the terminal is gone
        quit_asked.set()


@contextmanager
def _unechoed(keys: int) -> Iterator[int]:
    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)
    try:
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
