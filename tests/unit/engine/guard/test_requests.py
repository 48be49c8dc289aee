import asyncio

import pytest

from doubles import ScriptedBroker
from qworker._routine import RequestMade, Result
from qworker.brokers.base import Urgency
from qworker.engine.guard.requests import ToldBroker, result_of
from qworker.errors import (
    AccessDenied,
    AnswerLost,
    BrokerBusy,
    BrokerRefused,
    BrokerUnavailable,
    LeaseLost,
    QueueNotFound,
)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (LeaseLost("m1"), "lost"),
        (AccessDenied("no"), "denied"),
        (BrokerBusy("busy"), "busy"),
        (BrokerUnavailable("gone"), "unreachable"),
        (AnswerLost("lost"), "unanswered"),
        (asyncio.CancelledError(), "unanswered"),
        (QueueNotFound("mail"), "refused"),
        (BrokerRefused("no"), "refused"),
        (ValueError("a bug"), "refused"),
    ],
)
async def test_each_request_is_told_with_its_result(error: BaseException, result: Result) -> None:
    told: list[RequestMade] = []
    broker = ScriptedBroker()
    queue = ToldBroker(broker, told.append).queue("mail")
    assert "m1" == await queue.put("body", delay=1, ttl=9)
    assert [] == await queue.get(3, visibility=60)
    assert "r2" == await queue.update("m1", "r1", visibility=5, body="new")
    broker.queue("mail").will("delete", error)
    with pytest.raises(type(error)):
        await queue.delete("m1", "r1")
    assert [("put", "ok"), ("get", "ok"), ("update", "ok"), ("delete", result)] == [
        (event.operation, event.result) for event in told
    ]
    assert result == result_of(error)
    assert all("mail" == event.queue and event.seconds >= 0 for event in told)
    assert [
        ("put", "body", 1, 9),
        ("get", 3, 60),
        ("update", "m1", "r1", 5, "new"),
        ("delete", "m1", "r1"),
    ] == broker.queue("mail").calls


async def test_the_rest_is_passed_on() -> None:
    inner = ScriptedBroker()
    broker = ToldBroker(inner, lambda _: None)
    queue = broker.queue("mail")
    inner.queue("mail").limit = 7.0
    assert ("scripted", 0.01, False, 7.0) == (broker.label, broker.poll_max, broker.shared, queue.rate)
    await queue.admit(Urgency.RENEWAL, within=1.0)
    await queue.wait(0.0)
    await queue.check_right("put")
    assert [(Urgency.RENEWAL, 1.0)] == inner.queue("mail").admissions
    assert [("wait", 0.0), ("check_right", "put")] == inner.queue("mail").calls
    for missing in (queue.peek, queue.clear, queue.count):
        with pytest.raises(NotImplementedError):
            await missing()
    assert await broker.create_queue("mail")
    assert ["mail"] == await broker.list_queues()
    with pytest.raises(QueueNotFound):
        await broker.delete_queue("mail")
    await broker.aclose()
    assert 1 == inner.closed
