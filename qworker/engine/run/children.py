"""Child processes of the "process" executor: each runs one call at a time, and can be killed."""

import asyncio
import contextlib
import os
import subprocess
import sys
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING, Any, Final

from qworker._exits import how_it_ended
from qworker.context import SaveState
from qworker.engine.run.child import Checkpoint, ChildCall
from qworker.engine.run.child_wire import Said, Saved, pack, unpack
from qworker.engine.run.forks import no_fork
from qworker.errors import QworkerError
from qworker.outcome import Outcome
from qworker.processes.beginning import Beginning
from qworker.system import interpreter
from qworker.system.descriptors import EXHAUSTED

if TYPE_CHECKING:
    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection as Connection
    else:
        from multiprocessing.connection import Connection

_DYING: Final = 0.5
"""Seconds that a child whose pipe has ended gets to end itself."""


class ChildDied(QworkerError):
    """A child process ended in the middle of a job."""


class NoChild(QworkerError):
    """No child process can be started now: descriptors, memory or processes are used up; others may let go of some."""


class Children:
    """Child processes, made when they are needed and kept for the next call."""

    def __init__(self, beginning: Beginning | None = None) -> None:
        self._beginning = beginning or Beginning.here()
        self._idle: list[_Child] = []

    async def run(self, call: ChildCall, save_state: SaveState) -> Outcome:
        """Run a call in a child of its own; when cancelled, kill that. Raises ChildDied, or NoChild."""
        child = self._take()
        try:
            outcome = await child.run(call, save_state)
        except BaseException:
            child.kill()
            raise
        self._idle.append(child)
        return outcome

    def _take(self) -> "_Child":
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            child.kill()
        try:
            return _Child(self._beginning)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            raise NoChild(f"no process can be started: {error.strerror}") from None

    def close(self) -> None:
        """End the children; those that still run a call are ended by cancelling it."""
        while self._idle:
            self._idle.pop().kill()


class _Child:
    """One child process, and the pipe to it.

    A second pipe, on which nobody ever writes, ends with this process: the child watches it.
    """

    def __init__(self, beginning: Beginning) -> None:
        self._pipe: Connection[Any, Any]
        with no_fork, contextlib.ExitStack() as mine, contextlib.ExitStack() as theirs:
            self._pipe, pipe = Pipe()
            mine.callback(self._pipe.close)
            theirs.callback(pipe.close)  # so that the pipe ends when the child does
            alive, self._alive = os.pipe()
            mine.callback(os.close, self._alive)
            theirs.callback(os.close, alive)
            self._process = _start(beginning, (pipe.fileno(), alive))
            self._close = mine.pop_all().close
        with contextlib.suppress(ConnectionError):  # it has died, and the call will tell
            self._pipe.send_bytes(beginning.told())

    async def run(self, call: ChildCall, save_state: SaveState) -> Outcome:
        try:
            self._pipe.send_bytes(pack(call))
            while isinstance(said := await self._listen(), Checkpoint):
                self._pipe.send_bytes(pack(await _saved(said, save_state)))
        except (EOFError, ConnectionError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_DYING)
            raise ChildDied(f"the process of its handler ended: {how_it_ended(self._process.returncode)}") from None
        assert isinstance(said, Outcome)  # noqa: S101 — a child says nothing else
        return said

    async def _listen(self) -> Said:
        """Wait for the next thing that the child says. Raises EOFError or ConnectionError if it has ended."""
        loop = asyncio.get_running_loop()
        speaks = loop.create_future()
        loop.add_reader(self._pipe.fileno(), _wake, speaks)
        try:
            await speaks
        finally:
            loop.remove_reader(self._pipe.fileno())
        return unpack(self._pipe.recv_bytes())

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close()


def _start(beginning: Beginning, fds: tuple[int, int]) -> "subprocess.Popen[bytes]":
    """Start a child; it is to end with the thread that does this, which is that of the worker's event loop."""
    return subprocess.Popen(  # noqa: S603 — this very Python
        interpreter.command("qworker.engine.run.child_main:main", str(os.getpid()), *map(str, fds)),
        stdin=subprocess.DEVNULL,
        cwd=beginning.place(),
        env={**os.environ, **interpreter.environment(beginning.path)},
        pass_fds=fds,
    )


async def _saved(checkpoint: Checkpoint, save_state: SaveState) -> Saved:
    try:
        await save_state(checkpoint.state)
    except QworkerError as error:
        return Saved(error)
    return Saved(None)


def _wake(speaks: "asyncio.Future[None]") -> None:
    if not speaks.done():
        speaks.set_result(None)
