"""An operation of the SQLite broker: what a caller hands to the writer, and the answer's way back."""

import asyncio
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Generic, NamedTuple, TypeVar

from qworker.brokers.sqlite_session import Session
from qworker.errors import BrokerError

T = TypeVar("T")

_OWN_FAULT: Final = (
    BrokerError,
    ValueError,
    TypeError,
    OverflowError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
)
"""What one operation can raise without harm to its neighbours: SQLite has not begun to change anything."""


class Mode(IntEnum):
    """How much an operation needs; a group is run as its neediest member asks."""

    READ = 0
    CLAIM = 1
    """Writes only if it finds something."""
    CHANGE = 2
    """May be forgotten in a power failure."""
    KEEP = 3
    """Is on the disk before it is acknowledged."""


@dataclass(slots=True, eq=False)
class Operation(Generic[T]):
    """One call that waits for its turn."""

    mode: Mode
    run: Callable[[Session], T]
    future: asyncio.Future[T] | Future[T]
    patience: float
    """Seconds to wait for another process to let go of the file."""
    is_due: Callable[[Session], bool] | None = None
    """For a claim: whether there is anything to write."""
    otherwise: T | None = None
    """For a claim: its answer if there is not."""
    asked_at: float = field(default_factory=time.monotonic)


class Answer(NamedTuple):
    """What has come of a call, and whom to tell."""

    future: asyncio.Future[Any] | Future[Any]
    result: Any
    error: BaseException | None


def answer(future: asyncio.Future[Any] | Future[Any], call: Callable[[Session], Any], session: Session) -> Answer:
    """Return what a call comes to; what harms its neighbours too, it raises."""
    try:
        return Answer(future, call(session), None)
    except _OWN_FAULT as error:
        return Answer(future, None, error)


def deliver(answers: Sequence[Answer]) -> None:
    """Tell whoever waits; each loop is woken once for all of its answers."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Answer]] = defaultdict(list)
    for each in answers:
        if isinstance(each.future, Future):
            _settle([each])  # it wakes its thread by itself
        else:
            by_loop[each.future.get_loop()].append(each)
    for loop, batch in by_loop.items():
        with suppress(RuntimeError):  # that loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, batch)


def _settle(answers: Sequence[Answer]) -> None:
    for future, result, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
