"""A worker: fetcher, lease keeper, runner and settler wired together; start, drain and stop."""

import asyncio
import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, Final, Self

from qworker.brokers.base import Broker, Message, Queue
from qworker.context import context_of
from qworker.engine.attempt import Attempt
from qworker.engine.decide import decide
from qworker.engine.fetcher import Fetcher, Pace
from qworker.engine.lease import Lease, LeaseKeeper
from qworker.engine.report import event_of
from qworker.engine.runner import Run, Runner
from qworker.engine.settler import Settler
from qworker.engine.slots import Slots
from qworker.engine.watch import LoopWatch
from qworker.envelope import Encoding, decode
from qworker.errors import BrokerError, BrokerUnusable, InvalidEnvelope, LeaseLost, QworkerError
from qworker.events import (
    Event,
    JobPoisoned,
    JobReleased,
    JobRetried,
    JobStarted,
    JobStuck,
    JobSucceeded,
    Listener,
    MessagePoisoned,
    PollFailed,
    SettleFailed,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from qworker.events import LeaseLost as LeaseLostEvent
from qworker.job import Job
from qworker.outcome import Failure, Lost, Outcome, Released
from qworker.retry import RetryPolicy
from qworker.settings import Settings
from qworker.task import DEFAULT_QUEUE, Middleware, Task, poison_queue_of

Lifespan = Callable[[], AbstractAsyncContextManager[Mapping[str, Any] | None]]

_log = logging.getLogger("qworker")
_FAILURES: Final = (JobRetried, JobPoisoned, MessagePoisoned)
_UNSETTLED: Final = 64
"""Finished jobs that may wait for their settling before no new one is started."""
_LAST_MOMENTS: Final = 2.0
"""Seconds that cancelled handlers get to clean up, and releases to be sent."""


class Worker:
    """Runs the jobs of some queues in this process, until it is told to stop.

    Use it as an async context manager: it polls from entering until ``request_stop()``, or leaving.
    """

    def __init__(  # noqa: PLR0913 — the composition root hands in the parts
        self,
        broker: Broker,
        tasks: Mapping[str, Task[..., Any]],
        settings: Settings,
        *,
        encoding: Encoding = "text",
        lifespan: Lifespan | None = None,
        middleware: tuple[Middleware, ...] = (),
        listeners: Iterable[Listener] = (),
        child_setup: Callable[[], None] | None = None,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._broker = broker
        self._tasks = tasks
        self._settings = settings
        self._lifespan = lifespan
        self._listeners = tuple(listeners)
        self._slots = Slots(settings.concurrency)
        self._runner = Runner(
            tasks,
            concurrency=settings.concurrency,
            middleware=middleware,
            child_setup=child_setup,
        )
        self._settler = Settler(broker, self.name, encoding)
        self._queues = dict(settings.queues) or {task.queue: 1 for task in tasks.values()} or {DEFAULT_QUEUE: 1}
        self._inbox: deque[tuple[Lease, Message, str]] = deque()
        self._in_hand: set[asyncio.Task[None]] = set()
        """Everything from a started job to its settled message."""
        self._runs: set[Run] = set()
        self._emptied: dict[str, float] = {}
        self._last_active = time.monotonic()
        self._started = 0
        self._tally: Counter[type[Event]] = Counter()
        self._stop_reason: str | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._exits = AsyncExitStack()

    @property
    def stop_reason(self) -> str | None:
        """Why it was asked to stop; None while it wasn't."""
        return self._stop_reason

    def request_stop(self, reason: str) -> None:
        """Ask it to take no more messages and to end once its jobs have; a second call ends their grace.

        Must be called on the worker's event loop.
        """
        if self._stop_reason is None:
            self._stop_reason = reason
            self._stopping.set()
        else:
            self._hurry.set()

    async def stop_requested(self) -> None:
        """Wait until it is asked to stop."""
        await self._stopping.wait()

    async def __aenter__(self) -> Self:
        """Start. Raises BrokerUnusable, or what the lifespan raises."""
        async with AsyncExitStack() as starting:
            if self._lifespan is not None:
                resources = await starting.enter_async_context(self._lifespan())
                self._runner.resources = resources or {}
            await self._create_queues()
            self._start()
            self._exits = starting.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop: drain, release what remains, and end."""
        if self._stop_reason is None:
            self.request_stop("the program that runs it")
        async with self._exits:
            await self._stop()

    def _start(self) -> None:
        settings = self._settings
        poll_max = settings.poll_max or self._broker.poll_max
        pace = Pace(settings.lease, min(settings.poll_min or poll_max / 20, poll_max), poll_max)
        queues = {self._broker.queue(name): weight for name, weight in self._queues.items()}
        self._keeper = LeaseKeeper(settings.lease, LoopWatch(self._emit, self._job_of), self._broker.aclose)
        self._keeper.start()
        self._fetcher = Fetcher(queues, self._slots, pace, self._deliver, self._emit)
        self._fetching = asyncio.create_task(self._fetcher.run(), name="qworker-fetcher")
        self._emit(
            WorkerStarted(
                worker=self.name,
                broker=self._broker.label,
                queues=tuple(self._queues),
                tasks=len(self._tasks),
                concurrency=settings.concurrency,
                lease=settings.lease,
            ),
        )

    async def _create_queues(self) -> None:
        """Create what is missing; a worker that has no right to, or no connection yet, goes on without."""
        for name in self._queues:
            try:
                await self._broker.create_queue(name)
                await self._broker.create_queue(poison_queue_of(name))
            except BrokerUnusable:
                raise
            except BrokerError as error:
                self._emit(PollFailed(queue=name, reason=f"it could not be created: {error}", retry_in=0.0))

    def _deliver(self, queue: Queue, messages: list[Message], began: float) -> None:
        if not messages:
            self._emptied[queue.name] = began
            self._end_burst()
            return
        length = self._settings.lease
        received = [(Lease(queue, message, length=length, began=began), message, queue.name) for message in messages]
        self._keeper.keep(lease for lease, _, _ in received)
        self._inbox.extend(received)
        self._slots.waiting += len(received)
        if self._stop_reason is None:
            self._start_waiting()
        else:
            self._release_waiting()

    def _start_waiting(self) -> None:
        while self._inbox and self._may_start():
            lease, message, queue = self._inbox.popleft()
            self._slots.started()
            self._started += 1
            self._hold(self._process(lease, message, queue))
        if self._started == self._settings.max_jobs and self._stop_reason is None:
            self.request_stop(f"it has started {self._started} jobs")

    def _may_start(self) -> bool:
        if self._stop_reason is not None or self._started == self._settings.max_jobs:
            return False
        return self._slots.free > 0 and len(self._in_hand) - self._slots.running < _UNSETTLED

    def _hold(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._in_hand.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._in_hand.discard(task)
        self._last_active = time.monotonic()
        self._start_waiting()

    async def _process(self, lease: Lease, message: Message, queue: str) -> None:
        """Take one message from received to settled."""
        try:
            attempt = self._attempt(lease, message, queue)
        except InvalidEnvelope as error:
            self._slots.ended()
            await self._poison_message(lease, message, queue, Failure.of(error))
            return
        try:
            outcome = self._runner.refuse(attempt) or await self._run(attempt)
        finally:
            self._slots.ended()
            self._start_waiting()
        await self._settle(attempt, message, outcome)

    def _attempt(self, lease: Lease, message: Message, queue: str) -> Attempt:
        job = decode(message.body, message_id=message.id)
        number = max(message.dequeue_count - job.releases, 1)
        return Attempt(job, queue, number, lease, self._tasks.get(job.task))

    async def _run(self, attempt: Attempt) -> Outcome:
        run = self._runner.prepare(attempt, partial(self._settler.save_state, attempt))
        run.on_stuck = partial(self._report_stuck, attempt)
        attempt.lease.on_lost = lambda _: run.stop_from_thread(Lost())
        self._runs.add(run)
        attempt.started = time.monotonic()
        self._emit(JobStarted(job=attempt.job, queue=attempt.queue, attempt=attempt.number))
        try:
            return await run.outcome()
        finally:
            attempt.lease.on_lost = None
            self._runs.discard(run)

    async def _settle(self, attempt: Attempt, message: Message, outcome: Outcome) -> None:
        policy = attempt.task.options.policy if attempt.task else RetryPolicy()
        action = decide(outcome, attempt=attempt.number, policy=policy)
        event = event_of(attempt, outcome, action, max_attempts=policy.max_attempts)
        try:
            await self._settler.settle(attempt, message, action)
        except LeaseLost as error:
            event = LeaseLostEvent(job=attempt.job, queue=attempt.queue, attempt=attempt.number, reason=str(error))
        except (QworkerError, OSError) as error:
            event = SettleFailed(
                job=attempt.job,
                queue=attempt.queue,
                attempt=attempt.number,
                action=type(action).__name__.lower(),
                reason=str(error),
            )
        finally:
            self._keeper.drop(attempt.lease)
        self._emit(event)

    async def _poison_message(self, lease: Lease, message: Message, queue: str, failure: Failure) -> None:
        try:
            await self._settler.poison_message(lease, message, queue, failure)
        except BrokerError as error:
            job = Job(message.id, "unknown")
            self._emit(
                SettleFailed(job=job, queue=queue, attempt=message.dequeue_count, action="poison", reason=str(error)),
            )
        else:
            self._emit(
                MessagePoisoned(
                    message_id=message.id,
                    queue=queue,
                    dequeue_count=message.dequeue_count,
                    poison_queue=poison_queue_of(queue),
                    failure=failure,
                ),
            )
        finally:
            self._keeper.drop(lease)

    async def _stop(self) -> None:
        grace = self._settings.grace
        self._emit(
            WorkerStopping(
                worker=self.name,
                reason=self._stop_reason or "",
                running=self._slots.running,
                grace=grace,
            ),
        )
        self._fetching.cancel()
        self._release_waiting()
        await self._drain(grace)
        self._keeper.stop()
        self._runner.close()
        self._emit(
            WorkerStopped(
                worker=self.name,
                succeeded=self._tally[JobSucceeded],
                failed=sum(self._tally[kind] for kind in _FAILURES),
                released=self._tally[JobReleased],
            ),
        )

    async def _drain(self, grace: float) -> None:
        """Wait for what runs, then tell it to stop, then leave it."""
        hurry = asyncio.create_task(self._hurry.wait())
        await self._until_done(grace, hurry)
        hurry.cancel()
        for run in tuple(self._runs):
            run.stop(Released("its worker stopped"))
        await self._until_done(_LAST_MOMENTS)
        for run in tuple(self._runs):
            self._report_stuck(run.attempt)

    async def _until_done(self, seconds: float, hurry: asyncio.Task[Any] | None = None) -> None:
        until = time.monotonic() + seconds
        also = set() if hurry is None else {hurry}
        while pending := {task for task in (*self._in_hand, self._fetching) if not task.done()}:
            left = until - time.monotonic()
            if left <= 0 or (hurry is not None and hurry.done()):
                return
            await asyncio.wait(pending | also, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    def _release_waiting(self) -> None:
        while self._inbox:
            lease, message, queue = self._inbox.popleft()
            self._slots.waiting -= 1
            self._hold(self._release(lease, message, queue))

    async def _release(self, lease: Lease, message: Message, queue: str) -> None:
        try:
            attempt = self._attempt(lease, message, queue)
        except InvalidEnvelope as error:
            await self._poison_message(lease, message, queue, Failure.of(error))
        else:
            await self._settle(attempt, message, Released("its worker stopped before it began"))

    def _end_burst(self) -> None:
        idle = not self._inbox and not self._in_hand
        asked_since = all(self._emptied.get(name, 0.0) > self._last_active for name in self._queues)
        if self._settings.burst and idle and asked_since and self._stop_reason is None:
            self.request_stop("nothing is left to do")

    def _job_of(self, task: asyncio.Task[Any] | None) -> Job | None:
        """Return the job that an event loop's task belongs to, if that can be told."""
        for run in tuple(self._runs):
            if run.runs_in(task):
                return run.attempt.job
        ctx = context_of(task)
        return None if ctx is None else ctx.job

    def _report_stuck(self, attempt: Attempt) -> None:
        self._emit(
            JobStuck(job=attempt.job, queue=attempt.queue, attempt=attempt.number, seconds=attempt.seconds),
        )

    def _emit(self, event: Event) -> None:
        self._tally[type(event)] += 1
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 — a listener's bug must not cost a job
                _log.exception("a listener failed on %s", type(event).__name__)
