"""The thread that runs the SQLite broker's operations: all that wait, in one transaction."""

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from qworker.brokers.sqlite import forks as sqlite_forks
from qworker.brokers.sqlite.file import (
    escape_odd_texts,
    is_corruption,
    is_full,
    is_odd_text,
    open_file,
    open_memory,
    primary_code,
    translate,
)
from qworker.brokers.sqlite.lookout import Lookout, Watch
from qworker.brokers.sqlite.operation import Answer, Mode, Operation, Reply, answer, deliver
from qworker.brokers.sqlite.session import Session, read_clock
from qworker.clock import Clock
from qworker.errors import AnswerLost, BrokerBusy, BrokerError, BrokerRefused, BrokerUnusable, QworkerError
from qworker.system.inheritance import never_free

T = TypeVar("T")

PATIENCE: Final = 60.0
"""Seconds to wait for another process to let go of the file, unless an operation is worth less."""
_PAUSE: Final = 0.005
_PURGE_EVERY: Final = 1000
"""Milliseconds between two deletions of what has expired."""
_GROUP: Final = 512
"""Operations in one transaction, at most: the first should not wait long for the last."""
_EXIT_PATIENCE: Final = 5.0
_NO_FILE: Final = (0, 0)
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


@dataclass(slots=True, eq=False)
class _Stop:
    future: asyncio.Future[None] | None = None


class _Failed(Exception):
    """What SQLite raised, and whether it was at the end of a transaction, which may be done then."""

    def __init__(self, error: sqlite3.Error, *, committing: bool) -> None:
        super().__init__(error)
        self.error, self.committing = error, committing


class Writer:
    """Owner of the connection to one database, and of the thread that uses it.

    The thread begins with the first operation and ends with `aclose` or `abandon`. Only the connection to a file is
    closed with it: what is in memory stays until `abandon`.
    """

    def __init__(self, path: Path | None, clock: Clock, label: str) -> None:
        self._path, self._clock, self._label = path, clock, label
        self._connection: sqlite3.Connection | None = None
        self._durable: bool | None = None
        self._inode = _NO_FILE
        self._corrupt: tuple[tuple[int, int], str] | None = None
        """Which file was found to be damaged, and what was said of it."""
        self._committing = False
        self._running = threading.RLock()  # held while SQLite works, so that no fork happens then
        self._inbox: SimpleQueue[Operation[Any] | Watch | _Stop] = SimpleQueue()
        self._lookout = Lookout(path)
        self._purged_at = 0
        """Milliseconds: when all that had expired was deleted for the last time."""
        self._gate = threading.RLock()  # guards what follows; a finalizer may run inside of it
        self._thread: threading.Thread | None = None
        self._calls: deque[Operation[Any]] = deque()
        """Of threads that run them themselves."""
        self._turn = threading.RLock()  # held by the one that does
        self._abandoned = self._forked = self._at_work = False
        sqlite_forks.register(self)

    def submit(
        self,
        mode: Mode,
        run: Callable[[Session], T],
        *,
        is_due: Callable[[Session], bool] | None = None,
        otherwise: T | None = None,
        patience: float | None = None,
    ) -> asyncio.Future[T]:
        """Hand in an operation; the future belongs to the running loop.

        An operation whose future is cancelled is dropped if its turn has not come, and may be applied if it has.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._hand_in(Operation(mode, run, future, patience or PATIENCE, is_due, otherwise))
        return future

    def run(self, mode: Mode, run: Callable[[Session], T]) -> T:
        """Run an operation in the calling thread and return its result.

        Of several threads that call, one runs what all of them wait for: no other thread has to wake up for a single
        one, and many share a transaction. Raises QworkerError within another operation of this thread.
        """
        self.check_thread()
        self._check_not_forked()
        reply = Reply[T]()
        self._calls.append(Operation(mode, run, reply, PATIENCE))
        with self._turn:
            while not reply.done():
                self._execute_calls()
        return reply.result()

    def check_thread(self) -> None:
        """Raise QworkerError if the calling thread is at work here already, and would wait for itself."""
        at_work = self._turn._is_owned() or self._running._is_owned()  # type: ignore[attr-defined] # noqa: SLF001
        if at_work or threading.current_thread() is self._thread:
            raise QworkerError(
                f"{self._label}: this thread is in the middle of another call here, and would wait for itself: "
                "a signal's handler or a finalizer that enqueues has to have another thread do it"
            )

    def _execute_calls(self) -> None:
        calls: list[Operation[Any]] = []
        try:
            while self._calls and len(calls) < _GROUP:
                calls.append(self._calls[0])  # first: a signal may come in between
                self._calls.popleft()
            self._execute(calls)
        finally:
            for call in calls:  # of other threads, if a signal has ended this one's work
                if not call.future.done():
                    call.future.set_exception(AnswerLost(f"{self._label}: interrupted: it may have been done"))

    def watch(self, is_there: Callable[[Session], bool], seconds: float) -> asyncio.Future[None]:
        """Look for something again and again; the future ends when it is there, or after so many seconds.

        It also ends, without an error, if that can't be told: whoever asks for the thing itself will be told why.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hand_in(Watch(is_there, time.monotonic() + seconds, future))
        return future

    def _hand_in(self, item: Operation[Any] | Watch) -> None:
        self._check_not_forked()
        with self._gate:
            self._inbox.put(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=f"qworker {self._label}", daemon=True)
                self._thread.start()

    def _check_not_forked(self) -> None:
        if self._forked:
            msg = f"{self._label}: belongs to the parent process: what is in memory can't be used after a fork"
            raise BrokerUnusable(msg)

    async def aclose(self) -> None:
        """Finish what was handed in, close the file and end the thread; a later operation begins anew."""
        with self._gate:
            if self._thread is None:
                with self._running:
                    if self._path is not None:
                        self._disconnect()
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._inbox.put(_Stop(future))
        await future

    def abandon(self) -> None:
        """Do the same without waiting, and forget what is in memory: nobody will call any more."""
        self._abandoned = True
        with self._gate:
            if self._thread is not None:
                self._inbox.put(_Stop())
                return
        self._disconnect()

    def _serve(self) -> None:
        while not self._serve_once():
            pass

    def _serve_once(self) -> bool:
        """Serve a group; return whether it was the last.

        Nothing of it stays in a variable while the next is waited for: an operation refers to its broker, and a
        broker that nobody else refers to has to go.
        """
        operations, stops = self._take()
        if operations:
            self._execute(operations)
        if self._lookout.watches:
            self._look_out(all_of_them=bool(stops))
        return bool(stops) and self._retire(stops)

    def _take(self) -> tuple[list[Operation[Any]], list[_Stop]]:
        taken: list[Operation[Any] | Watch | _Stop] = []
        with suppress(Empty):
            taken.append(self._lookout.wait(self._inbox) if self._lookout.watches else self._inbox.get())
            while len(taken) < _GROUP:
                taken.append(self._inbox.get_nowait())
        operations = [each for each in taken if isinstance(each, Operation) and not each.future.done()]
        if watches := [each for each in taken if isinstance(each, Watch)]:
            self._lookout.add(watches)
        return operations, [each for each in taken if isinstance(each, _Stop)]

    def _look_out(self, *, all_of_them: bool) -> None:
        """End the watches whose time is up, or whose thing is there."""
        now = time.monotonic()
        ended = self._lookout.end(lambda each: all_of_them or each.until <= now or each.future.done())
        if self._lookout.watches and self._lookout.is_worth_a_look(now):
            with self._running:
                try:
                    session = Session(self._connected(), read_clock(self._clock))
                    ended += self._lookout.end(lambda each: each.is_there(session))
                except (sqlite3.Error, BrokerError):
                    ended += self._lookout.end(lambda _: True)
        deliver([Answer(each.future, None, None) for each in ended if not each.future.done()])

    def _retire(self, stops: Sequence[_Stop]) -> bool:
        with self._running:
            if self._path is not None or self._abandoned:
                self._disconnect()
        with self._gate:
            ends = self._inbox.empty()
            if ends:
                self._thread = None
        if ends and self._abandoned:
            self._disconnect()
        deliver([Answer(stop.future, None, None) for stop in stops if stop.future is not None])
        return ends

    def _execute(self, operations: Sequence[Operation[Any]]) -> None:
        try:
            answers = self._run_patiently(operations)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers get it, and the thread lives
            answers = [Answer(each.future, None, self._failure(error)) for each in operations]
        deliver(answers)

    def _failure(self, error: Exception) -> BrokerError:
        """Return a new exception for each caller: a traceback can't be shared."""
        failure: BrokerError
        if isinstance(error, _Failed):
            failure = translate(error.error, self._label, committing=error.committing)
        elif isinstance(error, BrokerError):
            failure = type(error)(*error.args)
        else:
            failure = BrokerRefused(f"{self._label}: {error!r}")
        failure.__cause__ = error.error if isinstance(error, _Failed) else error
        return failure

    def _run_patiently(self, operations: Sequence[Operation[Any]]) -> list[Answer]:
        abandoned = False
        while operations := self._still_wanted(operations, abandoned=abandoned):
            with self._running:
                try:
                    return self._attempt(operations)
                except sqlite3.Error as error:
                    if is_odd_text(error) and self._escapes_odd_texts():
                        continue
                    if primary_code(error) not in _BUSY:
                        committing = self._committing  # read here: another thread may be next
                        self._distrust(error)
                        raise _Failed(error, committing=committing) from error
            abandoned = self._abandoned
            time.sleep(_PAUSE)  # lets a fork happen
        return []

    def _still_wanted(self, operations: Sequence[Operation[Any]], *, abandoned: bool = False) -> list[Operation[Any]]:
        """Leave out what was cancelled while it waited for the file, and what has waited for as long as it is worth."""
        now = time.monotonic()
        given_up = [each for each in operations if abandoned or now > each.asked_at + each.patience]
        if given_up:
            deliver([Answer(each.future, None, self._locked(each)) for each in given_up])
            operations = [each for each in operations if each not in given_up]
        return [each for each in operations if not each.future.done()]

    def _locked(self, operation: Operation[Any]) -> BrokerBusy:
        return BrokerBusy(f"{self._label}: another process has held the write lock for {operation.patience:g} s")

    def _escapes_odd_texts(self) -> bool:
        """Make one message with an odd text no hindrance to the others; return whether that is new."""
        if self._connection is None or self._connection.text_factory is not str:
            return False
        escape_odd_texts(self._connection)
        return True

    def _distrust(self, error: sqlite3.Error) -> None:
        """Have the file opened and checked again, unless it was only full; once corrupt, it is not touched again."""
        if self._path is None or is_full(error):
            return
        self._disconnect()
        if is_corruption(error):
            self._corrupt = self._inode, str(translate(error, self._label))

    def _attempt(self, operations: Sequence[Operation[Any]]) -> list[Answer]:
        self._committing = False
        connection = self._connected()
        answers: list[Answer] = []
        if all(each.mode <= Mode.CLAIM for each in operations):
            session = Session(connection, read_clock(self._clock))
            if not session.is_clock_set():
                answers, operations = self._look(session, operations)
        if operations:
            answers += self._change(connection, operations)
        return answers

    def _look(
        self, session: Session, operations: Sequence[Operation[Any]]
    ) -> tuple[list[Answer], list[Operation[Any]]]:
        """Answer what needs no transaction: an idle queue is polled without a write."""
        answers: list[Answer] = []
        claims: list[Operation[Any]] = []
        for each in operations:
            found = answer(each.future, each.run if each.is_due is None else each.is_due, session)
            if each.is_due is None or found.error is not None:
                answers.append(found)
            elif found.result:
                claims.append(each)
            else:
                answers.append(Answer(each.future, each.otherwise, None))
        return answers, claims

    def _change(self, connection: sqlite3.Connection, operations: Sequence[Operation[Any]]) -> list[Answer]:
        self._set_durable(connection, durable=any(each.mode is Mode.KEEP for each in operations))
        connection.execute("BEGIN IMMEDIATE")
        try:
            session = Session(connection, read_clock(self._clock))
            session.follow_clock()
            self._purge(session)
            wanted = self._still_wanted(operations)  # once more: it may have taken long to get the lock
            answers = [answer(each.future, each.run, session) for each in wanted]
            self._committing = True
            connection.execute("COMMIT")
            self._lookout.changes += 1
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                connection.execute("ROLLBACK")
            raise
        return answers

    def _purge(self, session: Session) -> None:
        """Delete what has expired, which nobody sees any more: not in each transaction, as it takes its time."""
        if not 0 <= session.now - self._purged_at < _PURGE_EVERY and session.purge():
            self._purged_at = session.now

    def _set_durable(self, connection: sqlite3.Connection, *, durable: bool) -> None:
        if durable is not self._durable:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._path is not None and self._inode != _inode(self._path):
            self._disconnect()
        if self._connection is None:
            self._durable = None
            self._connection = open_memory() if self._path is None else self._open(self._path)
        return self._connection

    def _open(self, path: Path) -> sqlite3.Connection:
        self._inode = _inode(path)
        if self._corrupt is not None and self._inode == self._corrupt[0]:
            raise BrokerUnusable(self._corrupt[1])
        connection = open_file(path)
        self._inode = _inode(path)
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def before_fork(self) -> None:
        """Wait until no SQL runs, and close the file.

        A connection that is open at a fork is dangerous even if the child never touches it: SQLite in the child takes
        the parent's locks for its own. See https://www.sqlite.org/howtocorrupt.html, "carrying an open database
        connection across a fork".
        """
        self._at_work = self._running._is_owned()  # type: ignore[attr-defined] # noqa: SLF001
        self._running.acquire()
        if self._path is not None and not self._at_work:
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; the file is opened again by the next operation."""
        self._running.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: the thread, and what was handed in, are the parent's."""
        self._forked = self._forked or (self._path is None and self._connection is not None)
        if self._at_work:  # a signal's handler has forked in the middle of an operation
            never_free(self._connection)
            self._connection = None
        self._inbox, self._lookout = SimpleQueue(), Lookout(self._path)
        self._gate, self._thread = threading.RLock(), None
        self._calls, self._turn = deque(), threading.RLock()
        self._running.release()

    def end(self) -> None:
        """Stop, and wait a little: for the end of the process."""
        thread = self._thread
        self.abandon()
        if thread is not None:
            thread.join(_EXIT_PATIENCE)


def _inode(path: Path) -> tuple[int, int]:
    """Return what tells a file from another that was put in its place."""
    try:
        status = os.stat(path)  # noqa: PTH116 — each operation asks, and path.stat() takes longer
    except OSError:
        return _NO_FILE
    return status.st_dev, status.st_ino
