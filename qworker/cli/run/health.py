"""Serves `--health-port` for a worker, and for a supervisor of several."""

import asyncio
import importlib.util
import os
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from qworker.events import HealthServed, Listener
from qworker.observe.health.fleet import Fleet
from qworker.observe.health.reporter import Reporter
from qworker.observe.health.reports import REPORT_FD, Samples
from qworker.observe.health.server import ServerThread, listen, serving
from qworker.observe.health.state import WorkerState

if TYPE_CHECKING:
    from qworker.engine.worker import Worker
    from qworker.observe.metrics import Metrics

_PULSE, _FIRST_PULSE = 1.0, 0.1
"""Seconds between two beats of a worker's event loop; the second until the worker polls."""
_LENGTHS_EVERY: Final = 15.0
"""Seconds between two questions for the lengths of queues."""


class WorkerWatch:
    """Has a worker of this process watched: by a server here, or through its supervisor."""

    def __init__(self, tasks: Collection[str], lease: float, *, port: int | None, first: bool) -> None:
        """Take the port to serve, None if a supervisor does; the *first* worker asks for the lengths of queues.

        Raises ConfigurationError if the port is taken.
        """
        self._state = WorkerState(lease)
        self._metrics = _metrics(tasks)
        self._first = first
        self._listener = None if port is None else listen(port)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Listeners for the events of the worker."""
        return (self._state,) if self._metrics is None else (self._state, self._metrics)

    @asynccontextmanager
    async def watching(self, worker: "Worker", emit: Listener) -> AsyncIterator[None]:
        """Answer or report, within the block, on how the worker is."""
        async with AsyncExitStack() as ending:
            if self._listener is not None:
                server = ServerThread(_Solo(self._state, self._metrics), self._listener)
                server.start()
                ending.callback(server.stop)
                emit(_served(self._listener, self._metrics))
            elif (fd := os.environ.pop(REPORT_FD, None)) is not None:
                reporter = Reporter(int(fd), self._state, self._samples)
                reporter.start()
                ending.callback(reporter.stop)
            ending.push_async_callback(_cancel, asyncio.create_task(self._beat(worker)))
            if self._first and self._metrics is not None:
                ending.push_async_callback(_cancel, asyncio.create_task(self._measure(worker, self._metrics)))
            yield

    def _samples(self) -> Samples:
        if self._metrics is None:
            return {}
        from qworker.observe.health.samples import samples_of  # noqa: PLC0415 — an extra

        return samples_of(self._metrics.registry)

    async def _beat(self, worker: "Worker") -> None:
        while True:
            if (vitals := worker.vitals()) is not None:
                self._state.beat(vitals)
                if self._metrics is not None:
                    self._metrics.note(vitals)
            await asyncio.sleep(_PULSE if vitals else _FIRST_PULSE)

    async def _measure(self, worker: "Worker", metrics: "Metrics") -> None:
        while True:
            begun = worker.vitals() is not None
            if begun:
                metrics.note_lengths(await worker.lengths())
            await asyncio.sleep(_LENGTHS_EVERY if begun else _FIRST_PULSE)


class SupervisorWatch:
    """Answers for all processes of a supervisor."""

    def __init__(self, port: int) -> None:
        """Take the port. Raises ConfigurationError if another program has it."""
        self._listener = listen(port)
        self._metrics = _metrics(())
        self.fleet = Fleet(self._metrics)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Listeners for the events of the supervisor."""
        return () if self._metrics is None else (self._metrics,)

    @asynccontextmanager
    async def watching(self, emit: Listener) -> AsyncIterator[None]:
        """Answer, within the block; the supervisor's event loop has nothing to hold it up."""
        async with serving(self.fleet, self._listener):
            emit(_served(self._listener, self._metrics))
            yield


class _Solo:
    """One worker process as the target."""

    def __init__(self, state: WorkerState, metrics: "Metrics | None") -> None:
        self.live = state.live
        self.ready = state.ready
        self._metrics = metrics

    def metrics(self, accept: str) -> tuple[bytes, str] | None:
        if self._metrics is None:
            return None
        from qworker.observe.health.samples import text_of_all  # noqa: PLC0415 — an extra

        return text_of_all(self._metrics.registry, (), accept)


def _metrics(tasks: Collection[str]) -> "Metrics | None":
    if importlib.util.find_spec("prometheus_client") is None:
        return None
    from qworker.observe.metrics import Metrics  # noqa: PLC0415 — an extra

    return Metrics(tasks)


def _served(listener: socket.socket, metrics: "Metrics | None") -> HealthServed:
    return HealthServed(port=listener.getsockname()[1], metrics=metrics is not None)


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
