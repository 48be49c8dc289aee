"""Keeps worker processes running: starts, signals, restarts and reloads them."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from qworker._exits import FAILED, MORE_TO_DO, NOTHING_TO_POLL, how_it_ended
from qworker.events import Event, ProcessDied, Reloading, SupervisorStarted
from qworker.system import interpreter
from qworker.system.platform import KILLING

SUPERVISED: Final = "QWORKER_SUPERVISED"
"""Set to 0, 1, … in a child's environment: it is one worker, and its standard input ends when its supervisor does.

Signals that come to such a worker after the first are of no account: a service manager may send each to every process,
and the supervisor passes on its own. What comes through standard input means that it should hurry.
"""
_HURRY: Final = b"hurry\n"

_FIRST_PAUSE, _LONGEST_PAUSE, _GOOD_LIFE = 1.0, 30.0, 60.0
"""Seconds before a dead process is replaced, doubled each time up to the longest, until one has lived long enough."""
_SHORTEST_LIFE: Final = 0.5
"""Seconds between two starts of the same process, however well the first ended."""
_FIRST_SAYS: Final = 5.0
"""Seconds that the first process gets to say what is wrong, before another's fatal exit ends it."""
_KILL_AFTER: Final = 5.0
"""Seconds beyond the grace after which a process that was told to stop is killed."""

_ENDED_WELL: Final = frozenset({0, MORE_TO_DO})

Changes = Callable[[], Awaitable[tuple[str, ...]]]
"""Waits for source files to change and returns their names."""


class ReportLine(Protocol):
    """What one process reports through."""

    @property
    def fds(self) -> tuple[int, ...]:
        """The file descriptors that the process is to have."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What tells the process of them."""

    def started(self, pid: int) -> None:
        """Begin to listen."""

    def close(self) -> None:
        """Hear the rest of what was said: the process has ended, or could not be started."""


class Supervisor:
    """Runs a command in several processes until told to stop."""

    def __init__(  # noqa: PLR0913 — each is a fact of its own
        self,
        command: Sequence[str],
        processes: int,
        *,
        grace: float,
        emit: Callable[[Event], None],
        fatal: frozenset[int] = frozenset(),
        once: bool = False,
        changes: Changes | None = None,
        open_line: Callable[[], ReportLine] | None = None,
    ) -> None:
        """Take the command; exit codes in *fatal* end everything; with *once*, what has ended well is not restarted.

        Each process gets a line from *open_line* to report through.
        """
        self._command = command
        self._processes = processes
        self._grace = grace
        self._emit = emit
        self._fatal = fatal
        self._once = once
        self._changes = changes
        self._open_line = open_line
        self._children: set[Process] = set()
        self._expected: set[Process] = set()
        """Those that were told to stop."""
        self._stopping = asyncio.Event()
        self._waking = asyncio.Event()
        """Set at a stop, and once for each change of source files."""
        self._code = 0

    async def run(self) -> int:
        """Keep the processes running until they are stopped, or a fatal exit; return the exit code."""
        self._emit(SupervisorStarted(processes=self._processes, reload=self._changes is not None))
        keepers = [asyncio.create_task(self._keep_one(number)) for number in range(self._processes)]
        reloader = asyncio.create_task(self._reload()) if self._changes else None
        await asyncio.gather(*keepers)
        if reloader is not None:
            reloader.cancel()
        return self._code

    def stop(self) -> None:
        """Tell the processes to stop; a second call tells them to hurry."""
        self._tell_all(hurry=self._stopping.is_set())
        self._stopping.set()
        self._waking.set()

    def _tell_all(self, *, hurry: bool = False) -> None:
        for child in tuple(self._children):
            self._expected.add(child)
            _send(child, signal.SIGTERM)
            if hurry and child.stdin is not None and not child.stdin.is_closing():
                child.stdin.write(_HURRY)
            asyncio.get_running_loop().call_later(self._grace + _KILL_AFTER, _send, child, KILLING)

    async def _keep_one(self, number: int) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            end = await self._run_one(number)
            if end.code in self._fatal and number:
                await self._rest(_FIRST_SAYS)
            if self._is_last(end):
                return
            lived = time.monotonic() - began
            if end.asked or end.code in _ENDED_WELL:  # one that ends at once must not spin
                await self._rest(max(0.0, _SHORTEST_LIFE - lived))
                continue
            if lived > _GOOD_LIFE:
                pause = _FIRST_PAUSE
            self._emit(ProcessDied(pid=end.pid, how=end.how, restart_in=pause))
            woken = await self._rest(pause)
            pause = _FIRST_PAUSE if woken else min(pause * 2, _LONGEST_PAUSE)

    async def _run_one(self, number: int) -> "_End":
        if self._open_line is None:
            return await self._run_child(number)
        try:
            line = self._open_line()
        except OSError as error:  # no descriptor left
            return _End(f"it can't be started: {error}")
        with contextlib.closing(line):
            return await self._run_child(number, line)

    async def _run_child(self, number: int, line: ReportLine | None = None) -> "_End":
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE,
                env={
                    **os.environ,
                    **interpreter.environment(interpreter.import_path()),
                    SUPERVISED: str(number),
                    **(line.environment if line else {}),
                },
                pass_fds=line.fds if line else (),
                start_new_session=True,  # so that Ctrl-C reaches the supervisor alone, which passes it on
            )
        except OSError as error:  # no memory, no process left, or no such program any more
            return _End(f"it can't be started: {error}")
        self._children.add(child)
        if line is not None:
            line.started(child.pid)
        if self._stopping.is_set():  # it came while the child was being made
            self._tell_all()
        code = await child.wait()
        self._children.discard(child)
        asked = child in self._expected
        self._expected.discard(child)
        return _End(how_it_ended(code), child.pid, code, asked=asked)

    def _is_last(self, end: "_End") -> bool:
        if self._stopping.is_set():
            # A signal that comes before a process has begun to be a worker ends it: it had nothing in its hands.
            if end.code not in {*_ENDED_WELL, None, -signal.SIGTERM}:
                self._code = self._code or FAILED
            return True
        if end.code in self._fatal:
            self._code = end.code or FAILED
            self.stop()
            return True
        if self._once and end.code == NOTHING_TO_POLL:
            self._code = FAILED
            return True
        return self._once and end.code == 0

    async def _rest(self, pause: float) -> bool:
        """Wait; return whether that was cut short, by a stop or by a change of source files."""
        try:
            await asyncio.wait_for(self._waking.wait(), pause)
        except TimeoutError:
            return False
        return True

    async def _reload(self) -> None:
        assert self._changes is not None  # noqa: S101 — only started with it
        while True:
            self._emit(Reloading(files=await self._changes()))
            self._tell_all(hurry=True)
            if not self._stopping.is_set():
                waking, self._waking = self._waking, asyncio.Event()
                waking.set()


@dataclass(frozen=True, slots=True)
class _End:
    """How a process came to its end."""

    how: str
    pid: int | None = None
    code: int | None = None
    """None if it could not be started."""
    asked: bool = False
    """Whether it was told to stop."""


def _send(child: Process, number: signal.Signals) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            # Not by its send_signal(), which looks whether it has ended, and then nobody else learns its exit code.
            os.kill(child.pid, number)


def this_command() -> list[str]:
    """Return the command line of this very process, for children that do the same."""
    return interpreter.command("qworker.__main__:main", *sys.argv[1:])
