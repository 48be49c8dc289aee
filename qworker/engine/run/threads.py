"""Plain functions in threads, and how one of them is told to stop."""

import asyncio
import contextvars
import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

from qworker.engine.run.forks import end_if_forked_from

_in_handlers: Final[set[int]] = set()
"""The threads that run a handler now."""


def is_any_stuck() -> bool:
    """Say whether a handler still runs in a thread of this process, for which Python would wait when it exits."""
    alive = {thread.ident for thread in threading.enumerate()}
    return not alive.isdisjoint(_in_handlers)


class Interrupt(BaseException):
    """Raised inside a handler's thread when its time is up, its lease is lost or its worker stops.

    Not an Exception, so that a handler's ``except Exception`` doesn't swallow it. A thread that waits in C code
    only sees it once it is back in Python.
    """


class ThreadCall:
    """One call of a function in a thread, which can be interrupted there."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._ident: int | None = None
        self._interrupted = False
        self._pid = os.getpid()

    async def run(self, executor: Executor) -> Any:
        """Call the function in one of the executor's threads; raise what it raises.

        Being cancelled interrupts the function, and still waits for its end: until then the job is not another's.
        Being cancelled once more ends the wait too.
        """
        context = contextvars.copy_context()
        call = asyncio.get_running_loop().run_in_executor(executor, context.run, self._call)
        try:
            returned, value = await asyncio.shield(call)
        except asyncio.CancelledError:
            self.interrupt()
            await asyncio.wait([call])
            raise
        if returned:
            return value
        raise value

    def interrupt(self) -> None:
        """Raise Interrupt in the thread, as soon as it runs Python code; before it began, don't begin."""
        with self._lock:
            self._interrupted = True
            if self._ident is not None:
                _raise_in_thread(self._ident, Interrupt)

    def _call(self) -> tuple[bool, Any]:
        # A future can't carry every exception (not StopIteration), so they are returned as values.
        result: tuple[bool, Any] = False, Interrupt()
        try:
            if self._begin():
                result = True, self._function()
        except BaseException as error:  # noqa: BLE001 — whatever a handler raises is one failed attempt
            result = False, error
        end_if_forked_from(self._pid)
        while self._ident is not None:
            try:
                self._end()
            except Interrupt:  # it was on its way when the function ended, and must not hit the thread's next job
                continue
        return result

    def _begin(self) -> bool:
        with self._lock:
            if not self._interrupted:
                self._ident = threading.get_ident()
                _in_handlers.add(self._ident)
            return not self._interrupted

    def _end(self) -> None:
        with self._lock:
            if self._ident is not None:
                _in_handlers.discard(self._ident)
            self._ident = None
            # Python raises what is on its way where a loop turns: here, and not in the thread's next job. (To call it
            # back with SetAsyncExc(NULL) leaves CPython 3.11 checking for it for ever, and hanging under a tracer.)
            for _ in range(3):
                pass


def _raise_in_thread(ident: int, exception: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(exception))
