"""Deletes, put together: those of one turn of an event loop are one operation of the writer, and one answer."""

import asyncio
import copy
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from qworker.brokers.sqlite.operation import Mode, settle
from qworker.brokers.sqlite.session import Held, Session
from qworker.brokers.sqlite.writer import Writer
from qworker.errors import QworkerError


class _Delete(NamedTuple):
    message: Held
    future: asyncio.Future[None]


class Deletes:
    """Hands in what is to be deleted when the running event loop has gone round.

    Where many messages are settled at once, a future and a turn of the thread for each would take most of the time.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: dict[tuple[asyncio.AbstractEventLoop, str], list[_Delete]] = {}
        """By event loop and queue; each loop's own are touched by its own thread only."""

    def add(self, queue: str, message: Held) -> asyncio.Future[None]:
        """Return what ends when the message is deleted, with LeaseLost if that could not be."""
        loop = asyncio.get_running_loop()
        delete = _Delete(message, loop.create_future())
        if (waiting := self._waiting.get((loop, queue))) is not None:
            waiting.append(delete)
        else:
            self._waiting[loop, queue] = [delete]
            loop.call_soon(self._hand_in, loop, queue)
        return delete.future

    def hand_in(self) -> None:
        """Hand in what waits on the running loop."""
        running = asyncio.get_running_loop()
        for loop, queue in [key for key in self._waiting if key[0] is running]:
            self._hand_in(loop, queue)

    def _hand_in(self, loop: asyncio.AbstractEventLoop, queue: str) -> None:
        deletes = [each for each in self._waiting.pop((loop, queue), ()) if not each.future.done()]
        if not deletes:
            return
        try:
            answer = self._writer.submit(Mode.CHANGE, partial(_delete, queue, deletes))
        except QworkerError as error:
            _answer(deletes, _copies(error, len(deletes)))
        else:
            answer.add_done_callback(partial(_answered, deletes))


def _delete(queue: str, deletes: Sequence[_Delete], session: Session) -> list[Exception | None]:
    """Delete what is still wanted; return what is wrong with each, or None."""
    return session.delete_many(queue, [None if each.future.done() else each.message for each in deletes])


def _answered(deletes: Sequence[_Delete], answer: asyncio.Future[list[Exception | None]]) -> None:
    error = answer.exception()
    _answer(deletes, answer.result() if error is None else _copies(error, len(deletes)))


def _copies(error: BaseException, count: int) -> list[BaseException]:
    """Return an exception for each caller: a traceback can't be shared."""
    copies = [copy.copy(error) for _ in range(count)]
    for each in copies:
        each.__cause__ = error.__cause__
    return copies


def _answer(deletes: Sequence[_Delete], errors: Sequence[BaseException | None]) -> None:
    for (_, future), error in zip(deletes, errors, strict=True):
        settle(future, None, error)
