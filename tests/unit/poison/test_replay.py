import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from doubles import ScriptedBroker, ScriptedQueue, message
from qworker.brokers.base import Broker
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.errors import (
    AccessDenied,
    AnswerLost,
    BrokerBusy,
    InvalidQueueName,
    LeaseLost,
    PartlyReplayed,
    QueueNotFound,
)
from qworker.outcome import Failure
from qworker.poison.record import PoisonRecord, encode_poison
from qworker.poison.replay import replay
from qworker.poison.sweep import Pass
from qworker.wire.bodies import as_body


def poisoned(body: str, *, message_id: str = "m1", queue: str = "mail") -> str:
    at = datetime(2027, 1, 1, tzinfo=UTC)
    return encode_poison(PoisonRecord(body, queue, Failure("ValueError", "no"), 5, "host:1", at, message_id))


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    broker = SqliteBroker(None)
    for name in ("mail", "mail-poison"):
        await broker.create_queue(name)
    yield broker
    await broker.aclose()


async def poison(broker: Broker, *bodies: str) -> None:
    for body in bodies:
        await broker.queue("mail-poison").put(body)


async def bodies_of(broker: Broker, queue: str = "mail") -> list[str]:
    return [seen.body for seen in await broker.queue(queue).peek(32)]


async def test_the_original_body_goes_back_to_where_it_came_from(broker: Broker) -> None:
    body = '{ "task":"mail.send", "kwargs":{"to":"é\\u0001"}, "more":1e2 }'
    await poison(broker, poisoned(body))

    assert 1 == await replay(broker, "mail")

    assert [body] == await bodies_of(broker)
    assert 0 == await broker.queue("mail-poison").count()


@pytest.mark.parametrize("body", ["not JSON", "[1]", "", "x" * 65_536], ids=["text", "array", "empty", "64 KiB"])
async def test_what_is_no_job_goes_back_as_it_is(broker: Broker, body: str) -> None:
    await poison(broker, poisoned(body))
    assert 1 == await replay(broker, "mail")
    assert [body] == await bodies_of(broker)


async def test_a_record_does_not_say_where_its_job_goes(broker: Broker) -> None:
    await broker.create_queue("payments")
    await poison(broker, poisoned('{"task":"t"}', queue="payments"))
    assert 1 == await replay(broker, "mail")
    assert (1, 0) == (await broker.queue("mail").count(), await broker.queue("payments").count())


@pytest.mark.parametrize("encoding", ["text", "base64"])
async def test_its_attempts_begin_anew_and_its_state_is_kept(broker: Broker, encoding: str) -> None:
    spent = as_body(
        {"v": 1, "task": "t", "attempts": 3, "state": {"page": 7}}, "text" if encoding == "text" else "base64"
    )
    await poison(broker, poisoned(spent))

    await replay(broker, "mail")

    (body,) = await bodies_of(broker)
    fresh = {"v": 1, "task": "t", "state": {"page": 7}}
    assert as_body(fresh, "text" if encoding == "text" else "base64") == body


async def test_no_more_than_asked_for(broker: Broker) -> None:
    await poison(broker, *(poisoned(json.dumps({"task": str(n)})) for n in range(40)))
    assert 33 == await replay(broker, "mail", Pass(limit=33))
    assert (33, 7) == (await broker.queue("mail").count(), await broker.queue("mail-poison").count())
    assert 7 == await replay(broker, "mail")
    assert 0 == await replay(broker, "mail")


async def test_a_job_that_is_given_up_again_meanwhile_stays(broker: Broker) -> None:
    """A worker that gives up each job at once, while the replay runs."""
    mail, given_up = broker.queue("mail"), broker.queue("mail-poison")
    await poison(broker, *(poisoned(json.dumps({"task": str(n)}), message_id=f"old-{n}") for n in range(100)))

    async def give_up() -> None:
        while True:
            for got in await mail.get(32, visibility=60):
                await given_up.put(poisoned(got.body, message_id=got.id))
                await mail.delete(got.id, got.receipt)
            await asyncio.sleep(0)

    worker = asyncio.create_task(give_up())
    # More were there, so that the count alone would not keep it from what comes back.
    invisible = await given_up.get(20, visibility=60)
    assert 80 == await replay(broker, "mail")
    while await mail.count():  # noqa: ASYNC110 — nothing else tells
        await asyncio.sleep(0)
    worker.cancel()

    assert 100 == await given_up.count()
    assert 80 == len([seen for _ in range(3) for seen in await given_up.get(32, visibility=60)])
    assert 20 == len(invisible)


async def test_two_at_once_share_the_work(broker: Broker) -> None:
    await poison(broker, *(poisoned(json.dumps({"task": str(n)})) for n in range(200)))
    counts = await asyncio.gather(replay(broker, "mail"), replay(broker, "mail"))
    assert (200, 200) == (sum(counts), await broker.queue("mail").count())
    assert min(counts) > 0


async def test_a_queue_without_a_poison_queue(broker: Broker) -> None:
    with pytest.raises(QueueNotFound, match="news-poison"):
        await replay(broker, "news")
    with pytest.raises(InvalidQueueName):
        await replay(broker, "News")


async def test_a_queue_that_is_gone_is_made_again(broker: Broker) -> None:
    await broker.delete_queue("mail")
    await poison(broker, poisoned('{"task":"t"}'))
    assert 1 == await replay(broker, "mail")
    assert ['{"task":"t"}'] == await bodies_of(broker)


class Scripted:
    """A broker of which the poison queue has some messages, and then none."""

    def __init__(self, *bodies: str) -> None:
        self.broker = ScriptedBroker()
        self.mail = self.broker.queue("mail")
        self.poison = CountedQueue("mail-poison", len(bodies))
        self.broker.queues["mail-poison"] = self.poison
        self.poison.will("get", [message(body, number=n) for n, body in enumerate(bodies)])


class CountedQueue(ScriptedQueue):
    def __init__(self, name: str, size: int) -> None:
        super().__init__(name)
        self._size = size

    async def count(self) -> int:
        return self._size


async def test_put_comes_before_delete() -> None:
    scripted = Scripted(poisoned('{"task":"t"}'))
    scripted.mail.will("put", AccessDenied("no"))

    with pytest.raises(AccessDenied):
        await replay(scripted.broker, "mail")

    assert [] == scripted.poison.called("delete")


async def test_what_may_pass_is_tried_again() -> None:
    scripted = Scripted(poisoned('{"task":"t"}'))
    scripted.mail.will("put", BrokerBusy("busy", 0.0), AnswerLost("lost"))
    scripted.poison.will("delete", AnswerLost("lost"), LeaseLost("m0"))

    assert 1 == await replay(scripted.broker, "mail")

    assert (3, 2) == (len(scripted.mail.called("put")), len(scripted.poison.called("delete")))


async def test_what_asks_for_too_long_a_wait_is_not_waited_for() -> None:
    scripted = Scripted(poisoned('{"task":"t"}'))
    scripted.mail.will("put", BrokerBusy("busy", 45.0))
    with pytest.raises(BrokerBusy):
        await replay(scripted.broker, "mail")
    assert 1 == len(scripted.mail.called("put"))


async def test_an_end_before_the_end_says_how_much_was_done() -> None:
    scripted = Scripted(*(poisoned(json.dumps({"task": str(n)})) for n in range(3)))
    scripted.mail.will("put", "new-1", AccessDenied("no right"), "new-3")

    with pytest.raises(PartlyReplayed, match=r"only 2 jobs were put back into 'mail', .*: no right") as raised:
        await replay(scripted.broker, "mail")

    assert (2, "mail") == (raised.value.count, raised.value.queue)
    assert ["m0", "m2"] == [called[0] for called in scripted.poison.called("delete")]
