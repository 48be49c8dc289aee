# ruff: noqa: S101 - a test suite asserts
"""Random histories of a queue, compared with a model of what a queue is.

A broker of your own is tried like this::

    class MyMachine(QueueMachine):
        async def open_harness(self) -> Harness:
            return MyHarness(...)

    TestMyMachine = MyMachine.TestCase
    TestMyMachine.settings = settings(print_blob=True)

Needs hypothesis.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, multiple, rule

from qworker.brokers.base import MAX_BATCH, Message, PeekedMessage
from qworker.errors import LeaseLost
from qworker.testing.contract import Harness

T = TypeVar("T")

_STEP = 0.01
_IN_XML = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
_TEXTS = st.text(_IN_XML | st.sampled_from("\t\n"), max_size=20)


class Lease(NamedTuple):
    """The right to a message, as a get or an update gave it; perhaps void by now."""

    message_id: str
    receipt: str


@dataclass(slots=True)
class ModelMessage:
    """What is known of one message."""

    body: str
    visible_at: float
    expires_at: float | None
    dequeue_count: int = 0
    receipt: str | None = None


@dataclass(slots=True)
class ModelQueue:
    """A queue that is only a dictionary: what a broker should do, at moments that the caller tells."""

    messages: dict[str, ModelMessage] = field(default_factory=dict)

    def visible(self, now: float) -> set[str]:
        """Return the ids that a get may bring."""
        return {message_id for message_id, message in self.alive(now).items() if message.visible_at <= now}

    def alive(self, now: float) -> dict[str, ModelMessage]:
        """Return what has not expired, by id."""
        return {
            message_id: message
            for message_id, message in self.messages.items()
            if message.expires_at is None or message.expires_at > now
        }

    def leased(self, message_id: str, receipt: str, visible_at: float) -> None:
        """Note that a get has brought a message."""
        message = self.messages[message_id]
        message.dequeue_count += 1
        message.receipt, message.visible_at = receipt, visible_at

    def held(self, lease: Lease, now: float) -> ModelMessage | None:
        """Return the message that a lease is still good for."""
        message = self.alive(now).get(lease.message_id)
        return message if message is not None and message.receipt == lease.receipt else None

    def is_settled(self, now: float, tolerance: float) -> bool:
        """Return whether nothing changes of its own within *tolerance* of now."""
        if not tolerance:
            return True
        moments = [moment for each in self.messages.values() for moment in (each.visible_at, each.expires_at)]
        return all(moment is None or abs(moment - now) > tolerance or moment == 0 for moment in moments)


class QueueMachine(RuleBasedStateMachine):
    """Does at random what can be done with a queue, and asserts that the broker does what the model says."""

    leases = Bundle("leases")

    @abstractmethod
    async def open_harness(self) -> Harness:
        """Return a harness; it is closed after the history."""

    @initialize()
    def open(self) -> None:
        """Begin with an empty queue."""
        self.model = ModelQueue()
        self._runner = asyncio.Runner()
        self.harness = self._runner.run(self.open_harness())
        self.queue = self._runner.run(self.harness.fresh_queue())

    def teardown(self) -> None:
        """Close what `open` opened."""
        if hasattr(self, "harness"):
            self._run(self.harness.aclose())
            self._runner.close()

    @rule(body=_TEXTS, delay=st.integers(0, 3), life=st.none() | st.integers(1, 6))
    def put(self, body: str, delay: int, life: int | None) -> None:
        """Put a message that lives *life* seconds beyond its delay."""
        now = self._settle()
        ttl = None if life is None else delay + life
        message_id = self._run(self.queue.put(body, delay=delay, ttl=ttl))
        assert message_id not in self.model.messages
        # A moment that is over on arrival is no boundary.
        visible_at = now + delay if delay else 0
        self.model.messages[message_id] = ModelMessage(body, visible_at, None if ttl is None else now + ttl)

    @rule(target=leases, limit=st.sampled_from([1, 2, 5, MAX_BATCH]), visibility=st.integers(1, 4))
    def get(self, limit: int, visibility: int) -> MultipleResults[Lease]:
        """Lease a batch: all that are visible, or as many as asked for."""
        now = self._settle()
        messages = self._run(self.queue.get(limit, visibility=visibility))
        self._compare(messages, limit, now, received=1)
        for message in messages:
            assert message.receipt != self.model.messages[message.id].receipt
            self.model.leased(message.id, message.receipt, now + visibility)
        return multiple(*(Lease(message.id, message.receipt) for message in messages))

    @rule(limit=st.sampled_from([1, 5, MAX_BATCH]))
    def peek(self, limit: int) -> None:
        """Look at a batch."""
        now = self._settle()
        self._compare(self._run(self.queue.peek(limit)), limit, now, received=0)

    @rule(target=leases, lease=leases, visibility=st.integers(0, 3), body=st.none() | _TEXTS)
    def update(self, lease: Lease, visibility: int, body: str | None) -> MultipleResults[Lease]:
        """Update with any receipt there ever was."""
        now = self._settle()
        held = self.model.held(lease, now)
        call = self.queue.update(lease.message_id, lease.receipt, visibility=visibility, body=body)
        if held is None:
            self._loses(call)
            return multiple()
        held.receipt = self._run(call)
        assert lease.receipt != held.receipt
        held.visible_at = now + visibility if visibility else 0
        held.body = held.body if body is None else body
        return multiple(Lease(lease.message_id, held.receipt))

    @rule(lease=leases)
    def delete(self, lease: Lease) -> None:
        """Delete with any receipt there ever was."""
        now = self._settle()
        call = self.queue.delete(lease.message_id, lease.receipt)
        if self.model.held(lease, now) is None:
            self._loses(call)
        else:
            self._run(call)
            del self.model.messages[lease.message_id]

    @rule()
    def count(self) -> None:
        """Count the visible and the invisible."""
        alive = len(self.model.alive(self._settle()))
        at_most = len(self.model.messages) if self.harness.counts_expired else alive
        assert alive <= self._run(self.queue.count()) <= at_most

    @rule(really=st.sampled_from([False] * 9 + [True]))
    def clear(self, really: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        """Clear, now and then: a history with many clears has little else in it."""
        if really:
            self._run(self.queue.clear())
            self.model.messages.clear()

    @rule(seconds=st.sampled_from([0.5, 1, 2]))
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._run(self.harness.advance(seconds))

    def _compare(
        self, messages: Sequence[Message] | Sequence[PeekedMessage], limit: int, now: float, *, received: int
    ) -> None:
        visible = self.model.visible(now)
        ids = {message.id for message in messages}
        assert len(ids) == len(messages)
        assert ids <= visible
        assert min(limit, len(visible)) == len(messages)
        for message in messages:
            expected = self.model.messages[message.id]
            assert (expected.body, expected.dequeue_count + received) == (message.body, message.dequeue_count)
            assert (expected.expires_at is None) == (message.expires_at is None)

    def _settle(self) -> float:
        """Wait until the duration of a call can't matter; return the time."""
        while not self.model.is_settled(now := self.harness.now(), self.harness.tolerance):
            self._run(asyncio.sleep(_STEP))
        return now

    def _loses(self, call: Coroutine[Any, Any, Any]) -> None:
        try:
            self._run(call)
        except LeaseLost:
            return
        msg = "a void receipt worked"
        raise AssertionError(msg)

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)
