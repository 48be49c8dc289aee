"""The way from plain functions to the event loop: a thread that runs one for them."""

import asyncio
import atexit
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from qworker.errors import QworkerError
from qworker.system.inheritance import leave_to_parent, wakers_of

T = TypeVar("T")
_LAST_CALLS: Final = 5.0
"""Seconds that calls under way get to end when the portal is closed."""
_LOOK_EVERY: Final = 0.1
"""Seconds between looks whether the thread that is waited for waits, too."""
_own_threads: Final = threading.local()
_REMEDY: Final = "a logging handler that enqueues has to leave out what azure, aiohttp, asyncio and qworker log"


class Entangled(QworkerError):
    """A call that would wait for its own thread, or for one that waits for it."""


class Portal:
    """Runs coroutines for callers that have no event loop, or must not wait on theirs.

    The thread starts at the first call, and again in a forked child, where only the forking thread lives on.
    """

    def __init__(self, on_close: Callable[[], Awaitable[None]]) -> None:
        self._on_close = on_close
        self._lock = threading.RLock()  # a signal's handler may call in the middle of a call
        self._room: _Room | None = None
        self._pid = os.getpid()

    def open(self) -> None:
        """Start the thread, so that `close` and the end of the process close what its callers open."""
        with suppress(_TooLate), self._own_lock():
            self._opened()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* in the portal's loop and return its result, or raise what it raised.

        Raises Entangled where that would never end: on the portal's own thread, and in a logging handler that this
        thread waits for. Raises QworkerError when Python is about to end, and if the thread ends meanwhile; the next
        call starts another.
        """
        try:
            self._refuse_own_thread()
            with self._own_lock():
                room = self._opened()
                answer = asyncio.run_coroutine_threadsafe(coroutine, room.loop)
        except QworkerError:
            coroutine.close()
            raise
        return room.wait_for(answer)

    def close(self) -> None:
        """Stop the thread; a later call starts it again. Raises Entangled on that thread."""
        self._refuse_own_thread()
        with self._own_lock():
            room, self._room = self._room, None
        # Not under the lock: what is closed may log, and a log handler may call.
        if room is not None:
            atexit.unregister(self.close)
            if room.is_open():
                room.close(self._closed())
            else:
                room.give_up()

    async def _closed(self) -> None:
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        if calls:  # threads wait for these
            _, late = await asyncio.wait(calls, timeout=_LAST_CALLS)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._on_close()

    def _refuse_own_thread(self) -> None:
        if getattr(_own_threads, "portal", None) is self:
            raise Entangled(f"a call on qworker's own thread would wait for itself: {_REMEDY}")

    def _own_lock(self) -> "threading.RLock":
        if self._pid != os.getpid():
            # A lock that another thread of the parent held at the fork would stay locked here for ever.
            self._lock = threading.RLock()
            self._room = None
            self._pid = os.getpid()
        return self._lock

    def _opened(self) -> "_Room":
        if self._room is not None and not self._room.is_open():
            self._room.give_up()  # its connections are closed when the next one opens some
            self._room = None
        if self._room is None:
            atexit.unregister(self.close)
            self._room = _Room(self)
            atexit.register(self.close)
        return self._room


class _TooLate(QworkerError):
    """No thread can be started any more."""


class _Ended(QworkerError):
    """The thread has ended by itself."""


class _Room:
    """An event loop, and the thread that it runs on."""

    def __init__(self, portal: Portal) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(portal,), name="qworker-portal", daemon=True)
        leave_to_parent(self)
        try:
            self._thread.start()
        except RuntimeError:
            self.loop.close()
            raise _TooLate("Python is about to end and starts no thread any more: enqueue earlier") from None

    def descriptors(self) -> Iterable[int]:
        """Return what wakes its loop; see Opened."""
        return () if self.loop.is_closed() else wakers_of(self.loop)

    def is_open(self) -> bool:
        """Say whether the thread lives: it ends if the loop fails, as when its descriptors are closed."""
        return self._thread.is_alive()

    def wait_for(self, answer: Future[T]) -> T:
        """Return what comes of a call.

        Raises Entangled if the thread waits for the caller, and QworkerError if it has ended.
        """
        while True:
            try:
                return answer.result(_LOOK_EVERY)
            except TimeoutError:
                if answer.done():  # it may have raised one itself
                    return answer.result()
            if not (self.is_open() or answer.done()):
                answer.cancel()
                raise _Ended(
                    "qworker's own thread has ended in the middle of the call, and the next call starts another"
                )
            if _waits_to_log_to_us(self._thread):
                answer.cancel()
                raise Entangled(f"qworker's own thread waits for the logging handler that calls it: {_REMEDY}")

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run something for the last time, and end. Raises Entangled, and ends later then."""
        entangled = False
        try:
            self.wait_for(asyncio.run_coroutine_threadsafe(last, self.loop))
        except Entangled:
            entangled = True
            raise
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            if not entangled:
                self._thread.join()
                self.loop.close()

    def give_up(self) -> None:
        """Close the loop, as far as that goes, once the thread has ended."""
        with suppress(OSError, ValueError, KeyError):
            self.loop.close()

    def _serve(self, portal: Portal) -> None:
        _own_threads.portal = portal
        while True:
            with suppress(SystemExit, KeyboardInterrupt):  # it is a call's, whose caller gets it
                self.loop.run_forever()
                return


def _waits_to_log_to_us(thread: threading.Thread) -> bool:
    """Say whether a thread waits for the lock of a logging handler that the calling thread is in."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - nothing else tells where a thread is
    if frame is None or frame.f_code not in _WAITING_TO_LOG:
        return False
    handler = frame.f_locals["self"]
    return bool(handler.lock is not None and handler.lock._is_owned())  # noqa: SLF001 - as threading.Condition asks


_WAITING_TO_LOG: Final = (logging.Handler.acquire.__code__, logging.Handler.handle.__code__)
