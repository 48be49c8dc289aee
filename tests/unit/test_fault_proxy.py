"""What other tests count on: the proxy's faults are what they say, and without them it changes nothing."""

import asyncio
import http.client
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from azurite_server import Azurite
from fault_actions import Action, Answer, BlackHole, CutBody, Delay, DropAnswer, DropBefore, Duplicate, Shuffle
from fault_proxy import FaultProxy
from fault_rules import Rule
from qworker.brokers.azure.broker import AzureBroker, AzureQueue
from qworker.errors import AnswerLost, BrokerBusy, BrokerUnavailable, LeaseLost
from waiting import wait_until


@pytest.fixture
async def direct(azurite: Azurite) -> AsyncIterator[AzureQueue]:
    """A queue of the test's own, past the proxy."""
    broker = AzureBroker.from_connection_string(azurite.connection_string)
    name = f"faulty-{uuid4().hex[:12]}"
    await broker.create_queue(name)
    yield broker.queue(name)
    await broker.delete_queue(name)
    await broker.aclose()


@pytest.fixture
async def queue(direct: AzureQueue, fault_proxy: FaultProxy) -> AsyncIterator[AzureQueue]:
    """The same queue, through the proxy."""
    broker = AzureBroker.from_connection_string(fault_proxy.connection_string)
    yield broker.queue(direct.name)
    await broker.aclose()


async def happens(fact: Any, what: str) -> None:
    await asyncio.to_thread(wait_until, fact, what=what)


async def test_requests_are_counted_by_what_they_ask_for(fault_proxy: FaultProxy) -> None:
    broker = AzureBroker.from_connection_string(fault_proxy.connection_string)
    name = f"counted-{uuid4().hex[:12]}"
    queue = broker.queue(name)
    await broker.create_queue(name)
    for body in ("a", "b", "c"):
        await queue.put(body)
    await queue.peek(32)
    first, second, third = await queue.get(32, visibility=60)
    for message in (first, second):
        await queue.delete(message.id, await queue.update(message.id, message.receipt, visibility=60))
    assert 1 == await queue.count()
    await queue.clear()
    assert [name] == await broker.list_queues(name)
    await broker.delete_queue(name)
    await broker.aclose()
    assert ["a", "b", "c"] == [message.body for message in (first, second, third)]
    assert {
        "create queue": 1,
        "put": 3,
        "peek": 1,
        "get": 1,
        "update": 2,
        "delete": 2,
        "queue properties": 1,
        "clear": 1,
        "list queues": 1,
        "delete queue": 1,
    } == fault_proxy.requests


async def test_the_log_tells_which_messages(fault_proxy: FaultProxy, queue: AzureQueue) -> None:
    put = await queue.put("a < b & c")
    [message] = await queue.get(1, visibility=60)
    receipt = await queue.update(message.id, message.receipt, visibility=60)
    await queue.delete(message.id, receipt)
    [was_put], [got] = fault_proxy.seen("put"), fault_proxy.seen("get", queue.name)
    [updated], [deleted] = fault_proxy.seen("update"), fault_proxy.seen("delete")
    assert ("a < b & c", [put]) == (was_put.body, was_put.ids)
    assert [(put, message.receipt, 1)] == [(found.id, found.receipt, found.dequeue_count) for found in got.messages]
    assert (put, message.receipt, "", 204) == (updated.message_id, updated.receipt, updated.action, updated.status)
    assert (put, receipt, 204) == (deleted.message_id, deleted.receipt, deleted.status)
    assert [] == fault_proxy.seen("get", "another")


def test_tests_without_an_event_loop_can_use_it(fault_proxy: FaultProxy) -> None:
    fault_proxy.add(Rule(Answer(503, "ServerBusy", {"Retry-After": "7"}, "<no>")))
    connection = http.client.HTTPConnection("127.0.0.1", fault_proxy.port)
    connection.request("GET", "/devstoreaccount1/mail/messages")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert (503, "ServerBusy", "7") == (answer.status, answer.headers["x-ms-error-code"], answer.headers["Retry-After"])
    assert b"<Error><Code>ServerBusy</Code><Message>&lt;no&gt;</Message></Error>" in body


async def test_an_answer_of_its_own(fault_proxy: FaultProxy, queue: AzureQueue, direct: AzureQueue) -> None:
    rule = fault_proxy.add(Rule(Answer(503, "ServerBusy", {"Retry-After": "7"}), on="put", times=1))
    with pytest.raises(BrokerBusy) as busy:
        await queue.put("refused")
    await queue.put("accepted")
    assert (7, 1) == (busy.value.retry_after, rule.applied)
    assert ["accepted"] == [message.body for message in await direct.peek(32)]


@pytest.mark.parametrize(
    "action",
    [DropBefore("FIN"), DropBefore("RST"), DropAnswer("FIN"), DropAnswer("RST"), CutBody("FIN"), CutBody("RST")],
    ids=repr,
)
async def test_a_connection_dropped(
    fault_proxy: FaultProxy, queue: AzureQueue, direct: AzureQueue, action: Action
) -> None:
    """Before or after the service did what was asked."""
    applied = 0 if isinstance(action, DropBefore) else 1
    rule = fault_proxy.add(Rule(action, on="put", nth=1))
    with pytest.raises(AnswerLost):
        await queue.put("first")
    assert (1, applied) == (rule.applied, await direct.count())
    [seen] = fault_proxy.seen("put")
    assert (type(action).__name__, 201 if applied else None, None) == (seen.action, seen.upstream, seen.status)
    await queue.put("second")
    assert applied + 1 == await direct.count()


@pytest.mark.parametrize(
    "action", [DropAnswer(), DropAnswer("RST"), CutBody(), CutBody("RST"), BlackHole(forward=True)]
)
async def test_a_get_without_an_answer_leases_all_the_same(
    fault_proxy: FaultProxy, queue: AzureQueue, direct: AzureQueue, action: Action
) -> None:
    ids = [await direct.put("a"), await direct.put("b")]
    rule = fault_proxy.add(Rule(action, on="get"))
    get = asyncio.create_task(queue.get(32, visibility=60))
    await happens(lambda: rule.applied, what="the fault")
    if isinstance(action, BlackHole):
        get.cancel()
    with pytest.raises((AnswerLost, asyncio.CancelledError)):
        await get
    assert [] == await direct.peek(32)
    assert ids == fault_proxy.seen("get")[0].ids


@pytest.mark.parametrize("forward", [True, False])
async def test_a_black_hole_ends_when_the_client_gives_up(
    fault_proxy: FaultProxy, queue: AzureQueue, direct: AzureQueue, *, forward: bool
) -> None:
    rule = fault_proxy.add(Rule(BlackHole(forward), on="put"))
    put = asyncio.create_task(queue.put("body"))
    await happens(lambda: rule.applied, what="the fault")
    assert 1 == fault_proxy.open_connections
    put.cancel()
    await happens(lambda: not fault_proxy.open_connections, what="the end of the connection")
    with pytest.raises(asyncio.CancelledError):
        await put
    assert int(forward) == await direct.count()


async def test_a_delayed_request_is_applied_although_the_client_gave_up(
    fault_proxy: FaultProxy, queue: AzureQueue, direct: AzureQueue
) -> None:
    rule = fault_proxy.add(Rule(Delay(0.2), on="put"))
    put = asyncio.create_task(queue.put("body"))
    await happens(lambda: rule.applied, what="the fault")
    put.cancel()
    await happens(lambda: fault_proxy.seen("put")[0].upstream, what="the service's answer")
    assert 1 == await direct.count()


async def test_a_put_is_sent_twice(fault_proxy: FaultProxy, queue: AzureQueue, direct: AzureQueue) -> None:
    fault_proxy.add(Rule(Duplicate(), on="put"))
    answered = await queue.put("body")
    twice = [message.id for message in await direct.peek(32)]
    assert ({*twice}, 2) == ({*fault_proxy.seen("put")[0].ids}, len(twice))
    assert answered in twice


async def test_a_batch_is_shuffled_as_the_seed_says(
    fault_proxy: FaultProxy, queue: AzureQueue, direct: AzureQueue
) -> None:
    bodies = [str(number) for number in range(8)]

    async def shuffled(seed: int) -> list[str]:
        fault_proxy.seed = seed
        for body in bodies:
            await direct.put(body)
        rule = fault_proxy.add(Rule(Shuffle(), on="get"))
        batch = await queue.get(32, visibility=60)
        fault_proxy.remove(rule)
        await direct.clear()
        return [message.body for message in batch]

    first, second = await shuffled(1), await shuffled(2)
    assert bodies != first != second
    assert bodies == sorted(first) == sorted(second)


async def test_rules_of_the_same_seed_decide_the_same(azurite: Azurite) -> None:
    def draws(seed: int) -> list[float]:
        proxy = FaultProxy(azurite.port, seed)
        proxy.start()
        rules = [proxy.add(Rule(DropBefore(), probability=0.5)) for _ in range(3)]
        proxy.close()
        return [rule.random.random() for rule in rules]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert 3 == len(set(draws(1)))


async def test_the_first_rule_that_strikes_is_applied(fault_proxy: FaultProxy, queue: AzureQueue) -> None:
    once = fault_proxy.add(Rule(Answer(503, "ServerBusy"), on="put", nth=2))
    always = fault_proxy.add(Rule(Answer(500, "InternalError"), on="put"))
    for _ in range(3):
        with pytest.raises((BrokerBusy, AnswerLost)):
            await queue.put("body")
    assert [500, 503, 500] == [seen.status for seen in fault_proxy.seen("put")]
    assert ((1, 3), (2, 3)) == ((once.applied, once.matched), (always.applied, always.matched))
    fault_proxy.remove(always)
    await queue.put("body")
    fault_proxy.add(Rule(DropBefore()))
    fault_proxy.clear_rules()
    await queue.put("body")


async def test_connections_are_refused_and_accepted_again(fault_proxy: FaultProxy, queue: AzureQueue) -> None:
    await queue.put("before")
    held = fault_proxy.add(Rule(BlackHole(), on="get"))
    get = asyncio.create_task(queue.get(1, visibility=1))
    await happens(lambda: held.applied, what="a request under way")
    with fault_proxy.refusing():
        with pytest.raises(AnswerLost):
            await get
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                await queue.put("meanwhile")
    assert "after" != await queue.put("after")
    assert 2 == fault_proxy.requests["put"]


async def test_idle_connections_are_closed(fault_proxy: FaultProxy, queue: AzureQueue) -> None:
    fault_proxy.idle_limit = 0.1
    await queue.put("a")
    await happens(lambda: fault_proxy.hung_up, what="the end of the idle connection")
    assert time.monotonic() - fault_proxy.log[0].at >= 0.1
    fault_proxy.idle_limit = None
    await queue.put("b")
    assert (1, 2, 2) == (fault_proxy.hung_up, fault_proxy.accepted, fault_proxy.requests["put"])


async def test_over_the_limit_the_service_is_busy(
    fault_proxy: FaultProxy, queue: AzureQueue, direct: AzureQueue
) -> None:
    fault_proxy.throttle, fault_proxy.retry_after = 0.01, 9
    await queue.put("within")
    for _ in range(3):
        with pytest.raises(BrokerBusy) as busy:
            await queue.put("over")
        assert 9 == busy.value.retry_after
    assert (3, 1) == (fault_proxy.throttled, await direct.count())
    assert ["", *["Throttle"] * 3] == [seen.action for seen in fault_proxy.seen("put")]
    fault_proxy.throttle = None
    await queue.put("again")


async def test_throughput_settles_at_the_limit(fault_proxy: FaultProxy, queue: AzureQueue) -> None:
    fault_proxy.throttle = 50

    async def try_on() -> None:
        for _ in range(40):
            try:
                await queue.count()
            except BrokerBusy as busy:
                assert busy.retry_after is None  # noqa: PT017 — the other is no error

    await asyncio.gather(*[try_on() for _ in range(5)])
    log = fault_proxy.log
    passed = [seen for seen in log if seen.status == 200]
    assert 200 - len(passed) == fault_proxy.throttled > 0
    assert len(passed) <= 5 + 50 * (log[-1].at - log[0].at) + 1


@pytest.mark.parametrize(("mode", "status"), [(False, 400), (True, 404)])
async def test_a_stale_receipt_as_the_real_service_sees_it(
    fault_proxy: FaultProxy, queue: AzureQueue, *, mode: bool, status: int
) -> None:
    fault_proxy.stale_receipt_404 = mode
    await queue.put("body")
    [message] = await queue.get(1, visibility=60)
    await queue.update(message.id, message.receipt, visibility=60)
    with pytest.raises(LeaseLost):
        await queue.delete(message.id, message.receipt)
    assert [(400, status)] == [(seen.upstream, seen.status) for seen in fault_proxy.seen("delete")]


async def test_faults_are_noted_in_a_file(fault_proxy: FaultProxy, queue: AzureQueue, tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text('{"what":"earlier"}\n')
    fault_proxy.note = file
    fault_proxy.add(Rule(DropAnswer(), on="put", nth=1))
    fault_proxy.add(Rule(Answer(503, "ServerBusy"), on="delete", nth=1))
    with pytest.raises(AnswerLost):
        await queue.put("body")
    [message] = await queue.get(1, visibility=60)
    with pytest.raises(BrokerBusy):
        await queue.delete(message.id, message.receipt)
    earlier, put, delete = map(json.loads, file.read_text().splitlines())
    assert {"what": "earlier"} == earlier
    assert put.pop("at") <= delete.pop("at")
    common = {"what": "fault", "queue": queue.name, "message": message.id}
    assert {"action": "DropAnswer", "operation": "put", "messages": [message.id], "upstream": 201} | common == put
    assert {"action": "Answer", "operation": "delete", "messages": [], "upstream": None} | common == delete


async def test_many_connections_at_once(fault_proxy: FaultProxy, queue: AzureQueue, direct: AzureQueue) -> None:
    rule = fault_proxy.add(Rule(DropAnswer("RST"), on="put", every=4))
    results = await asyncio.gather(*[queue.put(str(number)) for number in range(200)], return_exceptions=True)
    assert (50, 50) == (rule.applied, sum(isinstance(result, AnswerLost) for result in results))
    assert 200 == await direct.count()
