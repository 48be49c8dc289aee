"""An operation of the SQLite broker: what a caller hands to the writer, and the answer's way back."""

import asyncio
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

from qworker.brokers.sqlite.session import Session
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


class Reply(Generic[T]):
    """What has come of an operation that a thread runs by itself, or another for it while it waits for its turn.

    A Future without the locks: nobody waits for it.
    """

    __slots__ = ("_error", "_is_done", "_result")

    def __init__(self) -> None:
        self._is_done = False
        self._result: T | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Say whether there is a result, or an error."""
        return self._is_done

    def set_result(self, result: T) -> None:
        """Note what it has returned."""
        self._result, self._is_done = result, True

    def set_exception(self, error: BaseException) -> None:
        """Note what it has raised."""
        self._error, self._is_done = error, True

    def result(self) -> T:
        """Return what it has returned, or raise what it has raised; it is done."""
        if self._error is not None:
            raise self._error
        return cast(T, self._result)


@dataclass(slots=True, eq=False)
class Operation(Generic[T]):
    """One call that waits for its turn."""

    mode: Mode
    run: Callable[[Session], T]
    future: asyncio.Future[T] | Reply[T]
    patience: float
    """Seconds to wait for another process to let go of the file."""
    is_due: Callable[[Session], bool] | None = None
    """For a claim: whether there is anything to write."""
    otherwise: T | None = None
    """For a claim: its answer if there is not."""
    asked_at: float = field(default_factory=time.monotonic)


class Answer(NamedTuple):
    """What has come of a call, and whom to tell."""

    future: asyncio.Future[Any] | Reply[Any]
    result: Any
    error: BaseException | None


def answer(future: asyncio.Future[Any] | Reply[Any], call: Callable[[Session], Any], session: Session) -> Answer:
    """Return what a call comes to; what harms its neighbours too, it raises."""
    try:
        return Answer(future, call(session), None)
    except _OWN_FAULT as error:
        return Answer(future, None, error)


def deliver(answers: Sequence[Answer]) -> None:
    """Tell whoever waits; each loop is woken once for all of its answers."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Answer]] = defaultdict(list)
    for each in answers:
        if isinstance(each.future, Reply):
            _settle([each])  # its thread looks when it has its turn
        else:
            by_loop[each.future.get_loop()].append(each)
    for loop, batch in by_loop.items():
        with suppress(RuntimeError):  # that loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, batch)


def _settle(answers: Sequence[Answer]) -> None:
    for each in answers:
        settle(*each)


def settle(future: asyncio.Future[Any] | Reply[Any], result: Any, error: BaseException | None) -> None:
    """Give a future its error, or else its result, unless it has one or was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
