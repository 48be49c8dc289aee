"""From jobs to messages in a queue: what a producer does."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from qworker.brokers.base import Broker, Queue, Urgency, check_body
from qworker.errors import (
    AccessDenied,
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerUnavailable,
    EnqueueUncertain,
    InvalidArguments,
    PartlyEnqueued,
    QueueNotFound,
    QworkerError,
)
from qworker.job import Job
from qworker.produce.producer import Sending
from qworker.wire.bodies import Encoding
from qworker.wire.bundle import bundled, pack
from qworker.wire.envelope import encode

if TYPE_CHECKING:  # an extra
    from qworker.tracing import Tracing

_PAUSES: Final = (0.1, 0.5, 2.0)
"""Seconds before each further try of a put that was not done, or not answered."""
_PATIENCE: Final = 30.0
"""Seconds that a put is tried for at least while the broker is too busy: it then says that nothing was done."""
_LONGEST_PAUSE: Final = 10.0
_AT_ONCE: Final = 64
"""Puts of one message each under way at the same time when many jobs are enqueued."""
_MANY_AT_ONCE: Final = 2
"""The same for puts of many: while one is written, the next is waiting."""


@dataclass(frozen=True, slots=True, eq=False)
class Cargo:
    """Jobs, and the messages to be put that carry them.

    It has no object for each message: with a hundred thousand of them, to make those would take as long as to put them.
    """

    jobs: Sequence[Job]
    bodies: Sequence[str] = field(repr=False)
    parts: Sequence[range] | None = field(default=None, repr=False)
    """Which jobs each message carries; None where it is one each."""

    @property
    def single(self) -> bool:
        """Whether it is one message with one job."""
        return len(self.bodies) == len(self.jobs) == 1

    def loads(self, size: int) -> list["Cargo"]:
        """Divide it into loads of so many messages."""
        return [self._load(start, start + size) for start in range(0, len(self.bodies), size)]

    def _load(self, start: int, stop: int) -> "Cargo":
        if self.parts is None:
            return Cargo(self.jobs[start:stop], self.bodies[start:stop])
        parts = self.parts[start:stop]
        return Cargo(self.jobs[parts[0].start : parts[-1].stop], self.bodies[start:stop], parts)


class Now(Enum):
    """What came of a put from plain code."""

    DONE = auto()
    NOT_DONE = auto()
    MAYBE_DONE = auto()


class Enqueuer:
    """Puts jobs into a broker's queues, and creates a queue that isn't there yet."""

    def __init__(self, broker: Broker, encoding: Encoding, tracing: "Tracing | None" = None) -> None:
        self._broker = broker
        self._encoding = encoding
        self.tracing = tracing
        """What makes spans of what is put, if anything does."""

    def cargo_of(self, jobs: Sequence[Job], bundle: int = 1) -> Cargo:
        """Return the messages that carry these jobs, at most *bundle* in each.

        Raises InvalidArguments and MessageTooLarge.
        """
        if bundle == 1 or len(jobs) < 2:  # noqa: PLR2004 — one job alone is no bundle
            return Cargo(jobs, [self._body(job, self._encoding) for job in jobs])
        texts = [self._body(job, "text") for job in jobs]
        parts = [*pack(texts, bundle, self._encoding)]
        bodies = [self._bundled(jobs[part.start : part.stop], texts[part.start : part.stop]) for part in parts]
        return Cargo(jobs, bodies, parts)

    async def put(self, cargo: Cargo, sending: Sending, so_far: Now = Now.NOT_DONE) -> None:
        """Put each message into its queue. Raises EnqueueUncertain, PartlyEnqueued or a BrokerError."""
        queue = self._broker.queue(sending.queue)
        if cargo.single:
            await self._put(queue, cargo, sending, maybe_done=so_far is Now.MAYBE_DONE)
        elif cargo.bodies:
            await self._put_many(queue, cargo, sending)

    def put_now(self, cargo: Cargo, sending: Sending) -> Now:
        """Put a single message from plain code, where the broker can do that, and tell what came of it.

        What is not done, `put` can do with its patience. Raises what is no use to try again.
        """
        queue = self._broker.queue(sending.queue)
        if not cargo.single:
            queue.check_thread()
            return Now.NOT_DONE
        try:
            put = queue.put_now(cargo.bodies[0], delay=sending.delay)
        except AnswerLost:
            return Now.MAYBE_DONE
        except (BrokerBusy, BrokerUnavailable, QueueNotFound):
            return Now.NOT_DONE
        return Now.NOT_DONE if put is None else Now.DONE

    def _bundled(self, jobs: Sequence[Job], texts: Sequence[str]) -> str:
        return self._body(jobs[0], self._encoding) if len(jobs) == 1 else bundled(texts, self._encoding)

    def _body(self, job: Job, encoding: Encoding) -> str:
        try:
            return check_body(encode(job, encoding))
        except ValueError as error:
            problem = f"an argument can't be sent as JSON: {error}"
        # Out here, so that Python's error, with the whole body in it, is not even its context.
        raise InvalidArguments(job.task, problem)

    async def _put_many(self, queue: Queue, cargo: Cargo, sending: Sending) -> None:
        size = queue.put_limit
        first, *others = cargo.loads(size)
        try:
            await self._put(queue, first, sending)  # creates the queue, or finds the broker down, just once
        except EnqueueUncertain as lost:
            raise PartlyEnqueued([], _ids([first]), _ids(others), lost) from lost
        accepted, uncertain, reasons = [first], list[Cargo](), list[QworkerError]()

        async def put_from(waiting: Iterator[Cargo]) -> None:
            for load in waiting:
                try:
                    await self._put(queue, load, sending)
                    accepted.append(load)
                except QworkerError as error:
                    reasons.append(error)
                    if isinstance(error, EnqueueUncertain):
                        uncertain.append(load)
                if reasons:
                    return

        waiting = iter(others)
        at_once = _AT_ONCE if size == 1 else _MANY_AT_ONCE
        await asyncio.gather(*(put_from(waiting) for _ in range(min(at_once, len(others)))))
        if reasons:
            known = {*accepted, *uncertain}
            refused = [load for load in others if load not in known]
            raise PartlyEnqueued(_ids(accepted), _ids(uncertain), _ids(refused), reasons[0]) from reasons[0]

    async def _put(self, queue: Queue, load: Cargo, sending: Sending, *, maybe_done: bool = False) -> None:
        retries = _Retries(maybe_done=maybe_done)
        while True:
            try:
                await queue.admit(Urgency.NEW_WORK, within=retries.seconds_left)
                await self._put_once(queue, load, sending)
            except BrokerError as error:
                pause = retries.pause_after(error)
                if pause is None:
                    if retries.maybe_done:
                        job = load.jobs[0]
                        raise EnqueueUncertain(job.id, job.task) from error
                    raise
            else:
                return
            await asyncio.sleep(pause)

    async def _put_once(self, queue: Queue, load: Cargo, sending: Sending) -> None:
        async def put() -> None:
            if len(load.bodies) == 1:
                await queue.put(load.bodies[0], delay=sending.delay)
            else:
                await queue.put_many(load.bodies, delay=sending.delay)

        try:
            await put()
        except QueueNotFound as missing:
            try:
                await self._broker.create_queue(sending.queue)
            except AccessDenied:
                raise missing from None  # a producer may well have no right to create queues
            await put()


class _Retries:
    """How often one put is tried again, and when."""

    def __init__(self, *, maybe_done: bool) -> None:
        self.maybe_done = maybe_done
        """Whether a try may have been applied."""
        self._until = time.monotonic() + _PATIENCE
        self._pauses = iter(_PAUSES)

    @property
    def seconds_left(self) -> float:
        """How long a broker may be too busy from now on."""
        return self._until - time.monotonic()

    def pause_after(self, error: BrokerError) -> float | None:
        """Return the seconds to wait before the next try; None if there is to be none."""
        self.maybe_done = self.maybe_done or isinstance(error, AnswerLost)
        if isinstance(error, BrokerBusy):
            pause = _PAUSES[0] if error.retry_after is None else min(error.retry_after, _LONGEST_PAUSE)
            return pause if pause < self.seconds_left else None
        return next(self._pauses, None) if isinstance(error, AnswerLost | BrokerUnavailable) else None


def _ids(loads: Iterable[Cargo]) -> list[str]:
    return [job.id for load in loads for job in load.jobs]
