"""A worker: fetcher, lease keeper, runner and settler wired together; start, drain and stop."""

import asyncio
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from qworker._faultpoints import faultpoint
from qworker._queue_names import DEFAULT_QUEUE, poison_queue_of
from qworker._routine import LeaseRenewed, Routine, RoutineListener
from qworker.brokers.base import Broker, Message, Queue
from qworker.engine.attempt import Received
from qworker.engine.get.fetcher import Fetcher, Pace
from qworker.engine.get.slots import Slots
from qworker.engine.get.turns import Turns
from qworker.engine.guard.access import Access, GuardedBroker, Suspended
from qworker.engine.guard.requests import ToldBroker
from qworker.engine.guard.rights import RightsCheck
from qworker.engine.guard.vitals import Vitals, lengths
from qworker.engine.lease.lease import Lease, LeaseKeeper
from qworker.engine.lease.watch import LoopWatch
from qworker.engine.pipeline import Pipeline
from qworker.engine.run.forks import end_forks_of
from qworker.engine.run.runner import Runner
from qworker.engine.settle.settler import Settler
from qworker.errors import AccessDenied, BrokerError, BrokerUnusable, text_of
from qworker.events import (
    Event,
    JobPoisoned,
    JobReleased,
    JobRetried,
    JobSucceeded,
    Listener,
    MessagePoisoned,
    PollFailed,
    PollRecovered,
    RenewalFailed,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from qworker.failing import ErrorHook
from qworker.middleware import Middleware
from qworker.processes.beginning import Beginning, refuse_worker_while_beginning
from qworker.settings import Settings
from qworker.task import Task
from qworker.wire.bodies import Encoding

if TYPE_CHECKING:  # an extra
    from qworker.tracing import Tracing

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]

_log = logging.getLogger("qworker")
_FAILURES: Final = (JobRetried, JobPoisoned, MessagePoisoned)
_UNSETTLED: Final = 64
"""Finished jobs that may wait for their settling before no new one is started."""
_UNUSABLE_FOR: Final = 2.0
"""Seconds after which a worker ends whose broker's file can't be used: too few files to open, say, may pass."""
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
        error_hooks: Iterable[ErrorHook] = (),
        beginning: Beginning | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._listeners = tuple(listeners)
        self._routine_listeners = tuple(one for one in self._listeners if isinstance(one, RoutineListener))
        told = ToldBroker(broker, self._tell_routine) if self._routine_listeners else broker
        self._broker = GuardedBroker(told, Access())
        self._tasks = tasks
        self._settings = settings
        self._encoding = encoding
        self._lifespan = lifespan
        self._error_hooks = tuple(error_hooks)
        self._slots = Slots(settings.concurrency, settings.max_jobs)
        self._runner = Runner(
            tasks,
            concurrency=settings.concurrency,
            middleware=middleware,
            beginning=beginning,
            tracing=tracing,
        )
        self._queues = dict(settings.queues) or {task.queue: 1 for task in tasks.values()} or {DEFAULT_QUEUE: 1}
        self._turns = Turns(settings.lease, self._start_waiting)
        self._in_hand: set[asyncio.Task[None]] = set()
        """Everything from a started job to its settled message."""
        self._emptied: dict[str, float] = {}
        self._unusable: dict[str, str] = {}
        self._broken_since: float | None = None
        self._given_up: str | None = None
        """Why the broker can't be used any more."""
        self._last_active = time.monotonic()
        self._fetching: asyncio.Task[None] | None = None
        self._tally: Counter[type[Event]] = Counter()
        self._stop_reason: str | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._exits = AsyncExitStack()

    @property
    def stop_reason(self) -> str | None:
        """Why it was asked to stop; None while it wasn't."""
        return self._stop_reason

    @property
    def failure(self) -> str | None:
        """Why a burst left a queue as it was: it isn't there, or may not be polled; None where all were emptied."""
        return next(iter(self._unusable.values()), None) if self._settings.burst else None

    @property
    def has_started_all(self) -> bool:
        """Whether it has started as many jobs as it may, so that others may be left."""
        return self._slots.left == 0

    def vitals(self) -> Vitals | None:
        """Return what can be said of it now; None before it polls. Must be called on the worker's event loop."""
        if self._fetching is None:
            return None
        now = time.monotonic()
        return Vitals(
            running=self._slots.running,
            waiting=self._slots.waiting,
            slots=self._slots.concurrency,
            polls_late=0.0 if self._fetching.done() else self._fetcher.late(now),
            keeper_late=self._keeper.late(now),
            stopping=self._stop_reason is not None,
        )

    async def lengths(self) -> dict[str, int]:
        """Return how many messages are in its queues and their poison queues, about; without what didn't answer."""
        return await lengths(self._broker, [name for queue in self._queues for name in (queue, poison_queue_of(queue))])

    def request_stop(self, reason: str) -> None:
        """Ask it to take no more messages and to end once its jobs have; a second call ends their grace.

        Must be called on the worker's event loop.
        """
        if self._stop_reason is None:
            self._stop_reason = reason
            self._stopping.set()
            self._take_no_more()
        else:
            self._hurry.set()

    async def stop_requested(self) -> None:
        """Wait until it is asked to stop."""
        await self._stopping.wait()

    async def __aenter__(self) -> Self:
        """Start. Raises BrokerUnusable, or what the lifespan raises."""
        refuse_worker_while_beginning()
        async with AsyncExitStack() as starting:
            if self._lifespan is not None:
                resources = await starting.enter_async_context(self._lifespan())
                self._runner.resources = {} if resources is None else resources
            await self._create_queues()
            self._start()
            self._exits = starting.pop_all()
        return self

    async def __aexit__(self, raised: type[BaseException] | None, *_: object) -> None:
        """Stop: drain, release what remains, and end. Raises BrokerUnusable if that is why it stopped."""
        if self._stop_reason is None:
            self.request_stop("the program that runs it")
        async with self._exits:
            await self._stop()
        if self._given_up is not None and raised is None:
            raise BrokerUnusable(self._given_up)

    def _start(self) -> None:
        end_forks_of(asyncio.get_running_loop())
        settings = self._settings
        poll_max = settings.poll_max or self._broker.poll_max
        pace = Pace(settings.lease, min(settings.poll_min or poll_max / 20, poll_max), poll_max)
        queues: dict[Queue, int] = {self._broker.queue(name): weight for name, weight in self._queues.items()}
        settler = Settler(self._broker, self.name, self._encoding)
        self._pipeline = Pipeline(self._tasks, self._runner, settler, self._emit, self._error_hooks)
        watch = LoopWatch(self._emit, self._pipeline.job_of)
        on_renewed = [self._renewed] if self._routine_listeners else []
        self._keeper = LeaseKeeper(settings.lease, watch, self._broker.aclose, self._renewal_failed, *on_renewed)
        self._keeper.start()
        self._rights = RightsCheck(self._broker, self._emit, self._keeper.run)
        tell = self._tell_routine if self._routine_listeners else None
        self._fetcher = Fetcher(queues, self._slots, pace, self._deliver, self._told_by_fetcher, tell=tell)
        self._fetching = asyncio.create_task(self._fetcher.run(), name="qworker-fetcher")
        self._fetching.add_done_callback(self._stopped_fetching)
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
        """Create what is missing. A worker that has no right to, or no connection yet, goes on: its polls will tell."""
        first, *others = [name for queue in self._queues for name in (queue, poison_queue_of(queue))]
        if await self._create_queue(first):
            await asyncio.gather(*map(self._create_queue, others))

    async def _create_queue(self, name: str) -> bool:
        """Create a queue and say whether others are worth trying. Raises BrokerUnusable."""
        try:
            await self._broker.create_queue(name)
        except BrokerUnusable:
            raise
        except BrokerError as error:
            return not isinstance(error, AccessDenied)
        return True

    def _told_by_fetcher(self, event: Event) -> None:
        self._emit(event)
        if isinstance(event, PollFailed) and event.lasting:
            self._unusable[event.queue] = event.reason
            self._emptied[event.queue] = time.monotonic()
            self._end_burst()
        elif isinstance(event, PollFailed) and event.unusable:
            self._give_up_unless_it_passes(event.reason)
        elif isinstance(event, PollRecovered):
            self._unusable.pop(event.queue, None)
            self._broken_since = None

    def _give_up_unless_it_passes(self, reason: str) -> None:
        now = time.monotonic()
        self._broken_since = self._broken_since or now
        if now - self._broken_since >= _UNUSABLE_FOR and self._stop_reason is None:
            self._given_up = reason
            self.request_stop(reason)

    def _renewal_failed(self, lease: Lease, error: Exception, retry_in: float) -> None:
        self._emit(
            RenewalFailed(
                queue=lease.queue.name,
                message_id=lease.message_id,
                reason=text_of(error),
                retry_in=retry_in,
                denied=isinstance(error, AccessDenied),
                everywhere=isinstance(error, Suspended) and error.everywhere,
            ),
        )

    def _renewed(self, lease: Lease) -> None:
        self._tell_routine(LeaseRenewed(queue=lease.queue.name))

    def _deliver(self, queue: Queue, messages: list[Message], began: float) -> None:
        self._rights.begin(queue.name)
        if not messages:
            self._emptied[queue.name] = began
            self._end_burst()
            return
        length = self._settings.lease
        received = [
            Received(message, Lease(queue, message, length=length, began=began), queue.name) for message in messages
        ]
        self._keeper.keep(each.lease for each in received)
        opened = [one for each in received for one in self._pipeline.open(each)]
        for each in opened:
            self._turns.add(each, alone=self._pipeline.must_be_alone(each))
        faultpoint("received")
        self._slots.received(messages=len(received), jobs=len(opened))
        if self._stop_reason is None:
            self._start_waiting()
        else:
            self._release_waiting()

    def _start_waiting(self) -> None:
        while self._may_start() and (received := self._turns.take()) is not None:
            self._slots.started()
            self._hold(received, self._pipeline.handle(received, self._leave_slot), then=self._slots.settled)
        self._slots.set_open(to_more=self._turns.open)
        if self.has_started_all and self._stop_reason is None:
            self.request_stop(f"it has started {self._settings.max_jobs} jobs")

    def _may_start(self) -> bool:
        if self._stop_reason is not None or self.has_started_all:
            return False
        return self._slots.free > 0 and len(self._in_hand) - self._slots.running < _UNSETTLED

    def _stopped_fetching(self, fetching: asyncio.Task[None]) -> None:
        if not fetching.cancelled() and (error := fetching.exception()) is not None:
            _log.critical("the fetcher ended, which is a bug in qworker", exc_info=error)
            self.request_stop("its fetcher ended")

    def _leave_slot(self) -> None:
        self._slots.ended()
        self._start_waiting()

    def _take_no_more(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
        self._release_waiting()

    def _release_waiting(self) -> None:
        for received in self._turns.take_all():
            self._slots.waiting -= 1
            self._hold(received, self._pipeline.release(received, "its worker stopped before it began"))

    def _hold(
        self, received: Received, work: Coroutine[Any, Any, None], then: Callable[[], None] | None = None
    ) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._in_hand.add(task)
        task.add_done_callback(partial(self._let_go, received, then))

    def _let_go(self, received: Received, then: Callable[[], None] | None, task: asyncio.Task[None]) -> None:
        if received.let_go():
            self._keeper.drop(received.lease)
        self._turns.ended(received)
        self._in_hand.discard(task)
        self._last_active = time.monotonic()
        if then is not None:
            then()
        self._start_waiting()

    def _end_burst(self) -> None:
        idle = not self._turns.waiting and not self._in_hand
        asked_since = all(self._emptied.get(name, 0.0) > self._last_active for name in self._queues)
        if self._settings.burst and idle and asked_since and self._stop_reason is None:
            self.request_stop(self.failure or "nothing is left to do")

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
        self._take_no_more()
        async with AsyncExitStack() as ending:  # each, whatever becomes of the others
            ending.callback(self._runner.close)
            ending.push_async_callback(self._keeper.stop)
            ending.push_async_callback(self._rights.stop)
            await self._drain(grace)
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
        done, hurry = asyncio.create_task(self._all_done()), asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait({done, hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pipeline.stop_all("its worker stopped")
            await asyncio.wait({done}, timeout=_LAST_MOMENTS)
            self._pipeline.report_stuck()
            for waiting in (done, hurry):
                waiting.cancel()

    async def _all_done(self) -> None:
        while pending := {task for task in (*self._in_hand, self._fetching) if task and not task.done()}:
            await asyncio.wait(pending)

    def _emit(self, event: Event) -> None:
        self._tally[type(event)] += 1
        _tell(self._listeners, event)

    def _tell_routine(self, event: Routine) -> None:
        _tell(self._routine_listeners, event)


def _tell(listeners: Iterable[Callable[[Any], None]], event: Event | Routine) -> None:
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 — a listener's bug must not cost a job
            _log.exception("a listener failed on %s", type(event).__name__)
