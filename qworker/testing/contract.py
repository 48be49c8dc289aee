# ruff: noqa: S101, PLR2004, SIM300, RUF001 - a test suite: it asserts, expected == actual, and on odd characters
"""The contract of a broker as a test suite: what every broker does alike.

A broker of your own keeps it if this passes::

    class TestMyBroker(BrokerContract):
        @pytest.fixture
        async def harness(self) -> AsyncIterator[Harness]:
            yield MyHarness(...)

Needs pytest and anyio's pytest plugin.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import get_args
from uuid import uuid4

import pytest

from qworker.brokers.base import MAX_BATCH, MAX_BODY_BYTES, MAX_TTL, MAX_VISIBILITY, Broker, Message, Queue, Right
from qworker.errors import InvalidQueueName, LeaseLost, MessageTooLarge, QueueBeingDeleted, QueueNotFound
from qworker.testing.clock import FakeClock

_GONE = (QueueNotFound, QueueBeingDeleted)
_LONG = 60
"""A lease that outlasts any test."""
_BODIES = {
    "json": '{"v":1,"task":"mail.send","args":["a@b.c"]}',
    "empty": "",
    "one space": " ",
    "spaces around": "  inner  ",
    "tabs and newlines": "\tone\n\ntwo\n",
    "markup": "<a href=\"x\">&amp; 'q' ]]></a><!-- -->",
    "entity": "&#65;&lt;",
    "accents": "naïve café",
    "cjk": "日本語 中文 한국어",
    "right to left": "עברית \u200f العربية",
    "emoji": "👩‍👩‍👧 🏳️‍🌈",
    "astral": "𝒳 \U0010fffd",
    "byte order mark": "\ufeffbom",
    "line separators": "a\x85b\u2028c\u2029d",
    "delete and C1": "\x7f\x80\x9f",
    "base64": "eyJ0YXNrIjoibWFpbC5zZW5kIn0=",
    "long": "x" * 50_000,
}
_BAD_NAMES = ["", "ab", "a" * 64, "Upper", "under_score", "dot.ted", "-lead", "trail-", "dou--ble", "sp ace", "ümlaut"]
_GOOD_NAMES = ["abc", "a-b", "0-9", "a" * 63, "mail-poison"]


class Harness(ABC):
    """A broker under test, and how time passes for it."""

    tolerance: float
    """Seconds by which the duration of a call may blur a moment."""
    counts_expired: bool = False
    """Whether what has expired may be counted until the broker clears it away."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    @abstractmethod
    def now(self) -> float:
        """Return the time, in seconds since some moment."""

    @abstractmethod
    async def advance(self, seconds: float) -> None:
        """Let at least *seconds* pass for the broker."""

    async def aclose(self) -> None:
        """Close the broker's connections of this event loop."""
        await self.broker.aclose()

    def fresh_name(self) -> str:
        """Return a name that no queue has."""
        return f"t-{uuid4().hex}"

    async def fresh_queue(self) -> Queue:
        """Make a queue that nobody else uses."""
        name = self.fresh_name()
        await self.broker.create_queue(name)
        return self.broker.queue(name)


class RealHarness(Harness):
    """A broker whose clock is a real one: time passes by waiting."""

    tolerance = 0.25
    counts_expired = True

    def now(self) -> float:
        """Return the real time."""
        return time.monotonic()

    async def advance(self, seconds: float) -> None:
        """Wait, and a little more."""
        await asyncio.sleep(seconds + self.tolerance)


class FakeHarness(Harness):
    """A broker that runs on a fake clock."""

    tolerance = 0.0

    def __init__(self, broker: Broker, clock: FakeClock) -> None:
        super().__init__(broker)
        self.clock = clock

    def now(self) -> float:
        """Return the fake time."""
        return self.clock.monotonic()

    async def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.clock.advance(seconds)


async def get_one(queue: Queue, *, visibility: int = _LONG) -> Message:
    """Get the one message there is."""
    [message] = await queue.get(visibility=visibility)
    return message


def _bodies(messages: Sequence[Message]) -> list[str]:
    return sorted(message.body for message in messages)


class BrokerContract:
    """Subclass it, with a fixture `harness`."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Brokers run on asyncio."""
        return "asyncio"

    @pytest.fixture
    async def queue(self, harness: Harness) -> Queue:
        """Return an empty queue."""
        return await harness.fresh_queue()

    # Queues

    async def test_create_is_idempotent(self, harness: Harness) -> None:
        """Creating says whether it was new, and spares what is there."""
        name = harness.fresh_name()
        assert await harness.broker.create_queue(name) is True
        await harness.broker.queue(name).put("kept")
        assert await harness.broker.create_queue(name) is False
        assert "kept" == (await get_one(harness.broker.queue(name))).body

    async def test_list_by_prefix(self, harness: Harness) -> None:
        """Names come sorted, those only that begin with the prefix."""
        prefix = harness.fresh_name()[:30]
        names = [f"{prefix}-a", f"{prefix}-b", f"{prefix}b"]
        for name in reversed(names):
            await harness.broker.create_queue(name)
        assert names == await harness.broker.list_queues(prefix)
        assert names[:2] == await harness.broker.list_queues(f"{prefix}-")
        assert [] == await harness.broker.list_queues(f"{prefix}-c")
        everything = await harness.broker.list_queues()
        assert set(names) <= set(everything)
        assert sorted(everything) == everything

    @pytest.mark.parametrize("wildcard", ["%", "_", "*", "["])
    async def test_a_prefix_has_no_wildcards(self, harness: Harness, queue: Queue, wildcard: str) -> None:
        """A prefix is taken literally."""
        assert queue.name in await harness.broker.list_queues(queue.name[:2])
        assert [] == await harness.broker.list_queues(wildcard)

    async def test_delete_queue(self, harness: Harness, queue: Queue) -> None:
        """A deleted queue is off the list, and using it says so."""
        await queue.put("x")
        await harness.broker.delete_queue(queue.name)
        assert [] == await harness.broker.list_queues(queue.name)
        with pytest.raises(_GONE):
            await queue.put("y")
        with pytest.raises(_GONE):
            await queue.get(visibility=_LONG)

    async def test_missing_queue(self, harness: Harness) -> None:
        """Each operation on a queue that isn't there says so."""
        name = harness.fresh_name()
        missing = harness.broker.queue(name)
        calls = [
            missing.put("x"),
            missing.get(visibility=_LONG),
            missing.peek(),
            missing.update("1", "r", visibility=0),
            missing.delete("1", "r"),
            missing.count(),
            harness.broker.delete_queue(name),
        ]
        for call in calls:
            with pytest.raises(QueueNotFound) as caught:
                await call
            assert name == caught.value.name

    @pytest.mark.parametrize("right", get_args(Right))
    async def test_a_right_is_checked_by_asking_for_nothing(self, harness: Harness, queue: Queue, right: Right) -> None:
        """Of who may do anything, nothing is told, and nothing is changed; nor where there is no queue."""
        await queue.put("kept")
        message = await get_one(queue)
        await queue.check_right(right)
        await harness.broker.queue(harness.fresh_name()).check_right(right)
        assert 1 == await queue.count()
        await queue.delete(message.id, message.receipt)

    async def test_clearing_a_missing_queue_makes_none(self, harness: Harness) -> None:
        """It may fail or do nothing: Microsoft's emulator doesn't look whether the queue is there."""
        name = harness.fresh_name()
        try:
            await harness.broker.queue(name).clear()
        except QueueNotFound as error:
            assert name == error.name  # noqa: PT017 - the one error that may be raised, not one that must
        assert [] == await harness.broker.list_queues(name)

    @pytest.mark.parametrize("name", _BAD_NAMES)
    async def test_bad_names(self, harness: Harness, name: str) -> None:
        """What the service refuses as a name is refused before anything is sent."""
        with pytest.raises(InvalidQueueName):
            harness.broker.queue(name)
        with pytest.raises(InvalidQueueName):
            await harness.broker.create_queue(name)
        with pytest.raises(InvalidQueueName):
            await harness.broker.delete_queue(name)

    @pytest.mark.parametrize("name", _GOOD_NAMES)
    async def test_good_names(self, harness: Harness, name: str) -> None:
        """The shortest, the longest and what is between them."""
        assert name == harness.broker.queue(name).name
        await harness.broker.create_queue(name)
        assert name in await harness.broker.list_queues(name)

    # Put and get

    async def test_put_and_get(self, queue: Queue) -> None:
        """A message arrives whole."""
        message_id = await queue.put("hello")
        message = await get_one(queue)
        assert (message_id, "hello", 1) == (message.id, message.body, message.dequeue_count)
        assert message.receipt

    async def test_put_now(self, queue: Queue) -> None:
        """A put from plain code is like any, where it can be made at all; what is refused is refused by it too."""
        message_id = await asyncio.to_thread(queue.put_now, "hello", ttl=100)
        if message_id is None:
            message_id = await queue.put("hello", ttl=100)
        else:
            with pytest.raises(ValueError, match="can't hold the character"):
                queue.put_now("\x00")
            with pytest.raises(MessageTooLarge):
                queue.put_now("x" * (MAX_BODY_BYTES + 1))
        message = await get_one(queue)
        assert (message_id, "hello") == (message.id, message.body)
        assert message.expires_at
        assert [] == await queue.get(visibility=_LONG)

    async def test_put_many(self, queue: Queue) -> None:
        """As many messages as the queue takes at once arrive whole, with a delay and a ttl like any."""
        bodies = [f"{n:05}" for n in range(queue.put_limit)]
        await queue.put_many(bodies, ttl=100)
        found = [message for _ in bodies for message in await queue.get(MAX_BATCH, visibility=_LONG)]
        assert bodies == sorted(message.body for message in found)
        assert all(message.expires_at for message in found)
        await queue.put_many(["later"] * queue.put_limit, delay=_LONG)
        assert [] == await queue.get(visibility=_LONG)
        assert 2 * queue.put_limit == await queue.count()

    async def test_put_many_refused(self, queue: Queue) -> None:
        """Of too many, or of many with one that can't be taken, none is put."""
        with pytest.raises(ValueError, match="too many to put at once"):
            await queue.put_many(["x"] * (queue.put_limit + 1))
        with pytest.raises(ValueError, match="can't hold the character"):
            await queue.put_many([*["x"] * (queue.put_limit - 1), "\x00"])
        assert 0 == await queue.count()

    async def test_times_are_aware(self, queue: Queue) -> None:
        """The moments of a message are in UTC, and its end is as far off as its ttl."""
        await queue.put("x", ttl=100)
        message = await get_one(queue)
        assert message.expires_at is not None
        assert message.inserted_at.tzinfo is not None
        assert 100 == pytest.approx((message.expires_at - message.inserted_at).total_seconds(), abs=1)

    async def test_an_age_is_the_time_that_has_passed(self, harness: Harness, queue: Queue) -> None:
        """From a message's put to its get, and to a peek, as much time passes by its moments as really does.

        They may be cut to whole seconds; an update moves none of them.
        """
        before_put = harness.now()
        await queue.put("x")
        after_put = harness.now()
        await harness.advance(2)
        before_look = harness.now()
        [peeked] = await queue.peek()
        message = await get_one(queue)
        await queue.update(message.id, message.receipt, visibility=0, body="y")
        again = await get_one(queue)
        least, most = before_look - after_put - 1, harness.now() - before_put + 1
        for seen_at in (peeked.seen_at, message.received_at, again.received_at):
            assert seen_at.tzinfo is not None
            assert least <= (seen_at - message.inserted_at).total_seconds() <= most

    async def test_never_expires_by_default(self, queue: Queue) -> None:
        """Without a ttl there is no end, in a get and in a peek."""
        await queue.put("x")
        assert [None] == [message.expires_at for message in await queue.peek()]
        assert (await get_one(queue)).expires_at is None

    async def test_wait(self, queue: Queue) -> None:
        """A wait for messages ends, whether there are any or not."""
        async with asyncio.timeout(30):
            await queue.wait(0.05)
            await queue.put("x")
            await queue.wait(1)
        assert "x" == (await get_one(queue)).body

    async def test_empty(self, queue: Queue) -> None:
        """A get from an empty queue is answered at once."""
        assert [] == await queue.get(MAX_BATCH, visibility=_LONG)
        assert [] == await queue.peek(MAX_BATCH)
        assert 0 == await queue.count()

    async def test_leased_is_invisible(self, queue: Queue) -> None:
        """Nobody else sees a message while it is leased."""
        await queue.put("x")
        await get_one(queue)
        assert [] == await queue.get(visibility=_LONG)
        assert [] == await queue.peek()

    async def test_queues_are_apart(self, harness: Harness, queue: Queue) -> None:
        """A message is in its own queue only, even for who knows its receipt."""
        other = await harness.fresh_queue()
        await queue.put("x")
        assert [] == await other.get(visibility=_LONG)
        message = await get_one(queue)
        with pytest.raises(LeaseLost):
            await other.delete(message.id, message.receipt)
        await other.clear()
        assert 1 == await queue.count()

    async def test_batch(self, queue: Queue) -> None:
        """A get brings as many as asked for, 32 at most, each once."""
        await asyncio.gather(*(queue.put(f"{n:02}") for n in range(40)))
        first = await queue.get(MAX_BATCH, visibility=_LONG)
        second = await queue.get(MAX_BATCH, visibility=_LONG)
        assert (32, 8) == (len(first), len(second))
        assert [f"{n:02}" for n in range(40)] == _bodies([*first, *second])

    async def test_limit_is_a_maximum(self, queue: Queue) -> None:
        """One by default; never more than asked for."""
        await asyncio.gather(*(queue.put(str(n)) for n in range(5)))
        assert 1 == len(await queue.get(visibility=_LONG))
        assert 3 == len(await queue.get(3, visibility=_LONG))
        assert 1 == len(await queue.get(3, visibility=_LONG))

    async def test_concurrent_gets_share_nothing(self, queue: Queue) -> None:
        """32 messages and 8 gets at once: each message goes to one of them."""
        await asyncio.gather(*(queue.put(f"{n:02}") for n in range(32)))
        batches = await asyncio.gather(*(queue.get(8, visibility=_LONG) for _ in range(8)))
        assert [f"{n:02}" for n in range(32)] == _bodies([message for batch in batches for message in batch])

    @pytest.mark.parametrize("limit", [-1, 0, 33])
    async def test_limits_refused(self, queue: Queue, limit: int) -> None:
        """A batch has 1 to 32 messages."""
        with pytest.raises(ValueError, match="limit"):
            await queue.get(limit, visibility=_LONG)
        with pytest.raises(ValueError, match="limit"):
            await queue.peek(limit)

    @pytest.mark.parametrize("visibility", [-1, 0, MAX_VISIBILITY + 1])
    async def test_leases_refused(self, queue: Queue, visibility: int) -> None:
        """A lease lasts 1 second to 7 days."""
        with pytest.raises(ValueError, match="visibility"):
            await queue.get(visibility=visibility)

    async def test_longest_lease(self, queue: Queue) -> None:
        """Seven days are taken, by a put, a get and an update."""
        await queue.put("later", delay=MAX_VISIBILITY)
        await queue.put("now")
        message = await get_one(queue, visibility=MAX_VISIBILITY)
        assert "now" == message.body
        await queue.update(message.id, message.receipt, visibility=MAX_VISIBILITY)
        assert [] == await queue.peek()

    # Bodies

    @pytest.mark.parametrize("body", _BODIES.values(), ids=_BODIES.keys())
    async def test_text_round_trips(self, queue: Queue, body: str) -> None:
        """What XML 1.0 can carry comes back as it was, from a put and from an update."""
        await queue.put(body)
        assert [body] == [message.body for message in await queue.peek()]
        message = await get_one(queue)
        assert body == message.body
        await queue.update(message.id, message.receipt, visibility=0, body=f"{body}!")
        message = await get_one(queue)
        assert f"{body}!" == message.body
        await queue.update(message.id, message.receipt, visibility=0, body=body)
        assert body == (await get_one(queue)).body

    @pytest.mark.parametrize("code", [0, 1, 0x1F, 0xD800, 0xDFFF, 0xFFFE, 0xFFFF], ids=hex)
    async def test_text_refused(self, queue: Queue, code: int) -> None:
        """What XML 1.0 can't carry is refused before anything is sent."""
        await queue.put("good")
        message = await get_one(queue)
        with pytest.raises(ValueError, match=rf"U\+{code:04X}"):
            await queue.put(f"a{chr(code)}b")
        with pytest.raises(ValueError, match=rf"U\+{code:04X}"):
            await queue.update(message.id, message.receipt, visibility=0, body=chr(code))
        assert 1 == await queue.count()
        await queue.delete(message.id, message.receipt)

    # Multi-byte characters stand at the ends only: Microsoft's emulator spoils those that straddle two reads.
    @pytest.mark.parametrize("body", ["x" * MAX_BODY_BYTES, f"é{'x' * (MAX_BODY_BYTES - 4)}é"], ids=["ascii", "utf-8"])
    async def test_largest_body(self, queue: Queue, body: str) -> None:
        """64 KiB are taken, by a put and by an update."""
        assert MAX_BODY_BYTES == len(body.encode())
        await queue.put(body)
        message = await get_one(queue)
        assert body == message.body
        await queue.update(message.id, message.receipt, visibility=0, body=body)
        assert body == (await get_one(queue)).body

    @pytest.mark.parametrize(
        "body", ["x" * (MAX_BODY_BYTES + 1), f"{'é' * (MAX_BODY_BYTES // 2)}x"], ids=["ascii", "utf-8"]
    )
    async def test_too_large(self, queue: Queue, body: str) -> None:
        """One byte more is refused with both sizes, and nothing is sent."""
        await queue.put("small")
        message = await get_one(queue)
        with pytest.raises(MessageTooLarge) as caught:
            await queue.put(body)
        assert (65_537, 65_536) == (caught.value.size, caught.value.limit)
        with pytest.raises(MessageTooLarge):
            await queue.update(message.id, message.receipt, visibility=0, body=body)
        assert 1 == await queue.count()
        await queue.delete(message.id, message.receipt)

    # Delay and expiry

    async def test_delay(self, harness: Harness, queue: Queue) -> None:
        """A delayed message is counted but not seen, until its time has come."""
        await queue.put("x", delay=2)
        assert [] == await queue.get(visibility=_LONG)
        assert 1 == await queue.count()
        await harness.advance(2)
        assert "x" == (await get_one(queue)).body

    async def test_expiry(self, harness: Harness, queue: Queue) -> None:
        """An expired message is not seen any more, whether it was leased or not."""
        await queue.put("short", ttl=1)
        await queue.put("long", ttl=_LONG)
        await harness.advance(1)
        assert ["long"] == [message.body for message in await queue.peek(2)]
        assert "long" == (await get_one(queue)).body
        assert [] == await queue.get(visibility=_LONG)

    async def test_expired_while_leased(self, harness: Harness, queue: Queue) -> None:
        """A lease doesn't keep a message from expiring."""
        await asyncio.gather(queue.put("x", ttl=1), queue.put("x", ttl=1))
        one, two = await queue.get(2, visibility=_LONG)
        await harness.advance(1)
        with pytest.raises(LeaseLost):
            await queue.update(one.id, one.receipt, visibility=0)
        with pytest.raises(LeaseLost):
            await queue.delete(two.id, two.receipt)
        assert [] == await queue.get(visibility=_LONG)

    @pytest.mark.parametrize(
        ("delay", "ttl"),
        [(-1, None), (MAX_VISIBILITY + 1, None), (0, 0), (0, -1), (5, 5), (5, 4), (0, MAX_TTL + 1)],
    )
    async def test_puts_refused(self, queue: Queue, delay: int, ttl: int | None) -> None:
        """A delay is 0 to 7 days; a ttl is longer than the delay."""
        with pytest.raises(ValueError, match=r"delay|ttl"):
            await queue.put("x", delay=delay, ttl=ttl)
        assert 0 == await queue.count()

    async def test_longest_ttl(self, queue: Queue) -> None:
        """The longest life that can be asked for, and the shortest after a delay."""
        await queue.put("x", ttl=MAX_TTL)
        await queue.put("y", delay=5, ttl=6)
        message = await get_one(queue)
        assert message.expires_at is not None
        assert "x" == message.body

    # Leases

    async def test_lapsed_lease(self, harness: Harness, queue: Queue) -> None:
        """When a lease ends the message comes back, with its count risen."""
        await queue.put("x")
        first = await get_one(queue, visibility=1)
        await harness.advance(1)
        second = await get_one(queue)
        assert first.id == second.id
        assert first.receipt != second.receipt
        assert (1, 2) == (first.dequeue_count, second.dequeue_count)

    async def test_lapsed_receipt_works_until_redelivery(self, harness: Harness, queue: Queue) -> None:
        """The end of a lease doesn't void its receipt; only the next get does."""
        await asyncio.gather(queue.put("x"), queue.put("y"))
        one, two = await queue.get(2, visibility=1)
        await harness.advance(1)
        await queue.update(one.id, one.receipt, visibility=_LONG)
        await queue.delete(two.id, two.receipt)
        assert [] == await queue.get(visibility=_LONG)
        assert 1 == await queue.count()

    async def test_stale_after_redelivery(self, harness: Harness, queue: Queue) -> None:
        """Once redelivered, a message rejects its first receipt."""
        await queue.put("x")
        first = await get_one(queue, visibility=1)
        await harness.advance(1)
        second = await get_one(queue)
        with pytest.raises(LeaseLost):
            await queue.delete(first.id, first.receipt)
        with pytest.raises(LeaseLost) as caught:
            await queue.update(first.id, first.receipt, visibility=0)
        assert first.id == caught.value.message_id
        await queue.delete(second.id, second.receipt)

    async def test_stale_after_update(self, queue: Queue) -> None:
        """Each update replaces the receipt."""
        await queue.put("x")
        message = await get_one(queue)
        newer = await queue.update(message.id, message.receipt, visibility=_LONG)
        newest = await queue.update(message.id, newer, visibility=_LONG)
        assert 3 == len({message.receipt, newer, newest})
        for stale in (message.receipt, newer):
            with pytest.raises(LeaseLost):
                await queue.update(message.id, stale, visibility=0)
            with pytest.raises(LeaseLost):
                await queue.delete(message.id, stale)
        assert [] == await queue.peek()
        await queue.delete(message.id, newest)

    @pytest.mark.parametrize("message_id", ["0", "no-such-message", "9" * 30, "5f3c1d2e-8a4b-4c6d-9e7f-0a1b2c3d4e5f"])
    async def test_unknown_id(self, queue: Queue, message_id: str) -> None:
        """An id that no message has is a lost lease."""
        await queue.put("x")
        message = await get_one(queue)
        with pytest.raises(LeaseLost) as caught:
            await queue.update(message_id, message.receipt, visibility=0)
        assert message_id == caught.value.message_id
        with pytest.raises(LeaseLost):
            await queue.delete(message_id, message.receipt)
        assert 1 == await queue.count()

    # Update, delete, clear, peek, count

    async def test_update_extends(self, harness: Harness, queue: Queue) -> None:
        """An update's visibility counts from the update, whatever is left of the lease."""
        await queue.put("x")
        message = await get_one(queue, visibility=1)
        receipt = await queue.update(message.id, message.receipt, visibility=_LONG)
        await harness.advance(1)
        assert [] == await queue.get(visibility=_LONG)
        await queue.update(message.id, receipt, visibility=1)
        await harness.advance(1)
        assert message.id == (await get_one(queue)).id

    async def test_update_to_visible(self, queue: Queue) -> None:
        """With a visibility of 0 a message is there again at once."""
        await queue.put("x")
        message = await get_one(queue)
        await queue.update(message.id, message.receipt, visibility=0)
        assert [message.id] == [peeked.id for peeked in await queue.peek()]
        again = await get_one(queue)
        assert (message.id, 2) == (again.id, again.dequeue_count)

    async def test_update_keeps_the_rest(self, queue: Queue) -> None:
        """An update without a body keeps it; none touches the dequeue count or the message's moments."""
        await queue.put("x", ttl=_LONG)
        message = await get_one(queue)
        receipt = await queue.update(message.id, message.receipt, visibility=_LONG)
        await queue.update(message.id, receipt, visibility=0)
        again = await get_one(queue)
        assert ("x", 2) == (again.body, again.dequeue_count)
        assert (message.inserted_at, message.expires_at) == (again.inserted_at, again.expires_at)

    async def test_update_replaces_the_body(self, queue: Queue) -> None:
        """An update with a body replaces it, be it empty."""
        await queue.put("old")
        message = await get_one(queue)
        await queue.update(message.id, message.receipt, visibility=0, body="new")
        message = await get_one(queue)
        assert ("new", 2) == (message.body, message.dequeue_count)
        await queue.update(message.id, message.receipt, visibility=0, body="")
        assert "" == (await get_one(queue)).body

    @pytest.mark.parametrize("visibility", [-1, MAX_VISIBILITY + 1])
    async def test_updates_refused(self, queue: Queue, visibility: int) -> None:
        """An update's visibility is 0 to 7 days; what is refused changes nothing."""
        await queue.put("x")
        message = await get_one(queue)
        with pytest.raises(ValueError, match="visibility"):
            await queue.update(message.id, message.receipt, visibility=visibility)
        await queue.delete(message.id, message.receipt)

    async def test_delete(self, queue: Queue) -> None:
        """A deleted message is gone, and can't be deleted or updated again."""
        await queue.put("x")
        message = await get_one(queue)
        await queue.delete(message.id, message.receipt)
        assert 0 == await queue.count()
        with pytest.raises(LeaseLost) as caught:
            await queue.delete(message.id, message.receipt)
        assert message.id == caught.value.message_id
        with pytest.raises(LeaseLost):
            await queue.update(message.id, message.receipt, visibility=0)

    async def test_clear(self, queue: Queue) -> None:
        """Clearing deletes the visible, the leased and the delayed."""
        await queue.put("leased")
        message = await get_one(queue)
        await queue.put("visible")
        await queue.put("delayed", delay=5)
        await queue.clear()
        assert 0 == await queue.count()
        assert [] == await queue.get(visibility=_LONG)
        with pytest.raises(LeaseLost):
            await queue.delete(message.id, message.receipt)
        await queue.clear()
        await queue.put("after")
        assert "after" == (await get_one(queue)).body

    async def test_peek_changes_nothing(self, queue: Queue) -> None:
        """A peek neither leases nor counts."""
        message_id = await queue.put("x")
        for _ in range(2):
            [peeked] = await queue.peek(MAX_BATCH)
            assert (message_id, "x", 0) == (peeked.id, peeked.body, peeked.dequeue_count)
        message = await get_one(queue)
        assert 1 == message.dequeue_count
        assert (message.inserted_at, message.expires_at) == (peeked.inserted_at, peeked.expires_at)

    async def test_count(self, queue: Queue) -> None:
        """The count includes the invisible."""
        for delay in (0, 0, 5):
            await queue.put("x", delay=delay)
        await queue.get(visibility=_LONG)
        assert 3 == await queue.count()

    # Connections

    async def test_use_after_close(self, harness: Harness, queue: Queue) -> None:
        """Closing closes connections, not the broker."""
        await queue.put("x")
        await harness.broker.aclose()
        await harness.broker.aclose()
        assert "x" == (await get_one(queue)).body

    async def test_other_loops(self, harness: Harness, queue: Queue) -> None:
        """Another thread with a loop of its own may call, and close, at the same time."""

        async def elsewhere() -> None:
            for _ in range(5):
                await queue.put("x")
            await harness.broker.aclose()

        puts = [queue.put("y") for _ in range(5)]
        await asyncio.gather(asyncio.to_thread(asyncio.run, elsewhere()), *puts)
        assert 10 == await queue.count()
