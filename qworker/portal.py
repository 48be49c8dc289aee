"""The way from plain functions to the event loop: a thread that runs one for them."""

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
_LAST_CALLS: Final = 5.0
"""Seconds that calls under way get to end when the portal is closed."""


class Portal:
    """Runs coroutines for callers that have no event loop, or must not wait on theirs.

    The thread starts at the first call, and again in a forked child, where only the forking thread lives on.
    """

    def __init__(self, on_close: Callable[[], Awaitable[None]]) -> None:
        self._on_close = on_close
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def open(self) -> None:
        """Start the thread, so that `close` and the end of the process close what its callers open."""
        self._running_loop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* in the portal's loop and return its result, or raise what it raised."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running_loop()).result()

    def close(self) -> None:
        """Stop the thread; a later call starts it again."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None or self._pid != os.getpid():
                return
            atexit.unregister(self.close)
            try:
                asyncio.run_coroutine_threadsafe(self._closed(), loop).result()
            finally:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
                loop.close()

    async def _closed(self) -> None:
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        if calls:  # threads wait for these
            _, late = await asyncio.wait(calls, timeout=_LAST_CALLS)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._on_close()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            # A lock that another thread of the parent held at the fork would stay locked here for ever.
            self._lock = threading.Lock()
            self._loop = self._thread = None
            self._pid = os.getpid()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="qworker-portal", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            return self._loop
