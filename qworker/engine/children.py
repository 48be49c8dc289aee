"""Child processes of the "process" executor: each runs one call at a time, and can be killed."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from qworker.context import SaveState
from qworker.engine.child import Checkpoint, ChildCall, run_in_child
from qworker.engine.child_wire import Said, Saved, pack, unpack
from qworker.engine.exits import how_it_ended
from qworker.engine.forks import end_if_forked_from
from qworker.errors import QworkerError
from qworker.outcome import Outcome

_SPAWN: Final = multiprocessing.get_context("spawn")
_DYING: Final = 0.5
"""Seconds that a child whose pipe has ended gets to end itself."""


class ChildDied(QworkerError):
    """A child process ended in the middle of a job."""


class Children:
    """Child processes, made when they are needed and kept for the next call; each begins with *setup*."""

    def __init__(self, setup: Callable[[], None] | None = None) -> None:
        self._setup = setup
        self._idle: list[_Child] = []

    async def run(self, call: ChildCall, save_state: SaveState) -> Outcome:
        """Run a call in a child of its own; when cancelled, kill that. Raises ChildDied."""
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
        return _Child(self._setup)

    def close(self) -> None:
        """End the children; those that still run a call are ended by cancelling it."""
        while self._idle:
            self._idle.pop().kill()


class _Child:
    """One child process, and the pipe to it."""

    def __init__(self, setup: Callable[[], None] | None) -> None:
        self._pipe: Connection[Any, Any]
        self._pipe, theirs = _SPAWN.Pipe()
        # What multiprocessing pickles here, to start the child, is qworker's own: no job is known yet.
        self._process = _SPAWN.Process(target=_serve, args=(theirs, setup), name="qworker-child")
        self._process.start()
        theirs.close()  # so that the pipe ends when the child does

    async def run(self, call: ChildCall, save_state: SaveState) -> Outcome:
        try:
            self._pipe.send_bytes(pack(call))
            while isinstance(said := await self._listen(), Checkpoint):
                self._pipe.send_bytes(pack(await _saved(said, save_state)))
        except (EOFError, ConnectionError):
            self._process.join(_DYING)
            raise ChildDied(f"the process of its handler ended: {how_it_ended(self._process.exitcode)}") from None
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
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()


async def _saved(checkpoint: Checkpoint, save_state: SaveState) -> Saved:
    try:
        await save_state(checkpoint.state)
    except QworkerError as error:
        return Saved(error)
    return Saved(None)


def _wake(speaks: "asyncio.Future[None]") -> None:
    if not speaks.done():
        speaks.set_result(None)


def _serve(pipe: "Connection[Any, Any]", setup: Callable[[], None] | None) -> None:
    """Be a child: run what comes through the pipe until it ends."""
    # Ctrl-C in a terminal reaches every process of its group, and a service manager's SIGTERM every process of the
    # service; when a child ends is the worker's decision.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.register_at_fork(after_in_child=pipe.close)  # the pipe has to end when this process does
    threading.Thread(target=_end_with_parent, name="qworker-parent-watch", daemon=True).start()
    if setup is not None:
        setup()

    async def save_state(state: Any) -> None:
        pipe.send_bytes(pack(Checkpoint(state)))
        match unpack(pipe.recv_bytes()):
            case Saved(error) if error is not None:
                raise error

    pid = os.getpid()
    while True:
        try:
            call = unpack(pipe.recv_bytes())
        except EOFError:
            return
        if isinstance(call, ChildCall):
            outcome = run_in_child(call, save_state)
            end_if_forked_from(pid)
            pipe.send_bytes(pack(outcome))


def _end_with_parent() -> None:
    """End the process at once when the worker is gone: its job will run again elsewhere."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 — this is a child
    wait([parent.sentinel])
    os._exit(1)
