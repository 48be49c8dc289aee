"""Faults 22 to 32: a broker that refuses, stalls, cuts and throttles, by a proxy in front of Azurite."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

import jobs
from azurite_server import Azurite
from fault_actions import (
    Action,
    Answer,
    BlackHole,
    CloseAfterAnswer,
    CutBody,
    DropAnswer,
    DropBefore,
    Trickle,
)
from fault_exchange import Seen
from fault_proxy import FaultProxy
from fault_report import Fault
from fault_rules import Rule
from qworker import App
from qworker.errors import EnqueueUncertain
from qworker.events import Event, JobPoisoned, JobSucceeded, LeaseLost, PollFailed, SettleFailed
from qworker.testing import EventRecorder
from qworker.wire.envelope import decode
from stage import MakeStage, Stage
from troubled import Bench, azure_bench
from waiting import until, wait_until

_NOISE = 1.5
"""Seconds by which a busy machine may be late."""
DROPS = (DropAnswer("FIN"), DropAnswer("RST"), CutBody("FIN"), CutBody("RST"))


@pytest.fixture
def stage(stage_on: MakeStage, azurite: Azurite, fault_proxy: FaultProxy) -> Stage:
    """A stage whose workers go through the proxy, and the test itself does not."""
    stage = stage_on(azurite.connection_string, fault_proxy.connection_string)
    fault_proxy.note = stage.history.file
    return stage


@pytest.mark.fault(22)
def test_an_outage_of_the_service(stage: Stage, fault_proxy: FaultProxy, fault: Fault) -> None:
    seconds, poll_max = fault.scale(short=6.0, full=60.0), 0.2
    stage.enqueue_many(jobs.rest, [(n, 0.2) for n in range(60)])
    worker = stage.worker("-c", "4", "--lease", "6")
    wait_until(lambda: len(stage.history.lines()) > 8, what="some load")
    began, asked = time.monotonic(), len(fault_proxy.log)
    half = fault_proxy.add(Rule(Answer(503, "ServerBusy"), probability=0.5))
    rest = fault_proxy.add(Rule(Answer(500, "OperationTimedOut")))
    time.sleep(seconds)  # the outage
    refused = len(fault_proxy.log) - asked
    fault_proxy.remove(half)
    fault_proxy.remove(rest)
    well = time.monotonic()
    wait_until(lambda: any(line["at"] > well for line in stage.history.lines()), what="a job after the outage")
    resumed = min(line["at"] for line in stage.history.lines() if line["at"] > well) - well
    verdict = stage.verdict()
    fault.did(f"503 and 500 on everything for {seconds:g} s, 4 slots busy")
    rate = refused / (well - began)
    fault.saw(f"{rate:.1f} requests/s meanwhile, resumed after {resumed:.1f} s, lost {len(verdict.lost)}")
    verdict.assert_clean()
    assert worker.process.poll() is None
    assert rate < 20
    assert resumed < poll_max + 4


@pytest.mark.fault(23)
async def test_retry_after_is_waited_for(proxied_bench: Bench, fault_proxy: FaultProxy, fault: Fault) -> None:
    asked = fault.scale(short=3, full=7)
    busy = fault_proxy.add(Rule(Answer(503, "ServerBusy", {"Retry-After": str(asked)}), on="get", times=1))
    async with proxied_bench.worker() as worker:
        await until(lambda: busy.applied, "the refusal")
        refused_at = time.monotonic()
        await proxied_bench.rest.aenqueue(1, 0.0)
        await worker.wait_for(JobSucceeded, within=20)
    waited = next(seen.at for seen in fault_proxy.seen("get") if seen.at > refused_at) - refused_at
    fault.did(f"a get answered 503 with Retry-After: {asked}")
    fault.saw(f"the next came after {waited:.2f} s")
    assert asked - 0.1 < waited < asked + 2


@pytest.mark.fault(24)
async def test_lost_answers_to_gets(proxied_bench: Bench, fault_proxy: FaultProxy, fault: Fault) -> None:
    """Their messages are leased to nobody, and come back."""
    bench, times, count = proxied_bench, fault.scale(short=4, full=50), 0
    every_second(fault_proxy, "get", DROPS)

    def hits() -> list[Seen]:
        return [seen for seen in fault_proxy.seen("get", bench.queue) if seen.action and seen.messages]

    async with bench.worker(poll_max=0.1) as worker:
        while len(hits()) < times:
            await bench.rest.aenqueue_many([(n, 0.02) for n in range(count, count + 8)])
            count += 8
            await until(partial(seen_all_but, 7, bench, count), "some of them")
        await until(lambda: len(worker.of(JobSucceeded)) >= count, "the end of all")
    runs = Counter(execution.n for execution in bench.executions)
    hit = sum(len(seen.messages) for seen in hits())
    fault.did(f"{len(hits())} answers to gets dropped or cut, FIN or RST, {hit} messages in them, of {count} jobs")
    fault.saw(
        f"lost {count - len(runs)}, poisoned {len(worker.of(JobPoisoned))}, executions a job {max(runs.values())}"
    )
    assert dict.fromkeys(range(count), 1) == runs
    assert [] == worker.of(JobPoisoned) + worker.of(SettleFailed)
    assert 0 == await bench.remaining()


def seen_all_but(few: int, bench: Bench, count: int) -> bool:
    return len({each.n for each in bench.executions}) >= count - few


def every_second(proxy: FaultProxy, operation: str, actions: Sequence[Action]) -> list[Rule]:
    """Have the actions strike in turn, each second request, the first one too."""
    rules = [proxy.add(Rule(action, on=operation, every=2 * len(actions))) for action in actions]
    for place, rule in enumerate(rules):
        rule.matched = 2 * place + 1
    return rules


@pytest.mark.fault(25)
@pytest.mark.parametrize("sync", [True, False], ids=["enqueue", "aenqueue"])
async def test_lost_answers_to_puts(
    fault_proxy: FaultProxy, azurite: Azurite, proxied_bench: Bench, fault: Fault, *, sync: bool
) -> None:
    times = fault.scale(short=6, full=100)
    queue = proxied_bench.queue
    app = App(broker=fault_proxy.connection_string)

    @app.task(name="rest", queue=queue)
    async def rest(n: int) -> None: ...

    rules = every_second(fault_proxy, "put", DROPS)
    applied, uncertain = set[str](), set[str]()
    while sum(rule.applied for rule in rules) < times:
        try:
            job = await asyncio.to_thread(rest.enqueue, 1) if sync else await rest.aenqueue(1)
            applied.add(job.id)
        except EnqueueUncertain as error:
            uncertain.add(error.job_id)
    copies = Counter(await bodies(proxied_bench))
    fault.did(f"{times} answers to puts dropped or cut")
    fault.saw(
        f"{len(applied)} successes, {len(uncertain)} EnqueueUncertain; copies of an accepted job: "
        f"{min(copies[job] for job in applied)} to {max(copies[job] for job in applied)}",
    )
    assert applied | uncertain >= set(copies)
    assert {1, 2} >= {copies[job] for job in applied}
    assert max(copies.values()) <= 2
    await app.aclose()


@pytest.mark.fault(25)
async def test_puts_that_are_never_answered_are_uncertain(
    fault_proxy: FaultProxy, proxied_bench: Bench, fault: Fault
) -> None:
    app = App(broker=fault_proxy.connection_string)

    @app.task(name="rest", queue=proxied_bench.queue)
    async def rest(n: int) -> None: ...

    fault_proxy.add(Rule(DropBefore("RST"), on="put"))
    with pytest.raises(EnqueueUncertain) as caught:
        await rest.aenqueue(1)
    fault.saw(f"every put dropped before it was applied: EnqueueUncertain of job {caught.value.job_id[:4]}…, 0 copies")
    assert [] == await bodies(proxied_bench)
    assert caught.value.job_id in str(caught.value)
    await app.aclose()


async def bodies(bench: Bench) -> list[str]:
    """Return the job ids of all messages."""
    queue, found = bench.clean.queue(bench.queue), list[str]()
    while batch := await queue.get(32, visibility=300):
        found += [decode(message.body, message_id=message.id).id for message in batch]
    return found


@pytest.mark.fault(26)
async def test_a_delete_applied_whose_answer_was_lost_counts_as_done(bench: Bench, fault: Fault) -> None:
    count = fault.scale(short=10, full=200)
    bench.trouble.lose_answer("delete", times=count)
    await bench.rest.aenqueue_many([(n, 0.0) for n in range(count)])
    async with bench.worker(concurrency=10) as worker:
        await until(lambda: len(worker.of(JobSucceeded)) == count, "the end of all")
    again = sum(call.error is not None for call in bench.calls("delete"))
    fault.did(f"{count} answers to deletes dropped")
    fault.saw(f"{len(bench.executions)} executions of {count} jobs; {again} deletes answered late, with 404, or not")
    assert again >= count
    assert dict.fromkeys(range(count), 1) == Counter(execution.n for execution in bench.executions)
    assert [] == worker.of(LeaseLost) + worker.of(SettleFailed)
    assert 0 == await bench.remaining()


@pytest.mark.fault(27)
async def test_a_queue_deleted_while_running_and_made_again(
    proxied_bench: Bench, fault_proxy: FaultProxy, fault: Fault
) -> None:
    """The service refuses the name of a deleted queue for a while: Azurite doesn't."""
    bench, gone = proxied_bench, fault.scale(short=3.0, full=40.0)
    async with bench.worker() as worker:
        await bench.rest.aenqueue(1, 0.0)
        await worker.wait_for(JobSucceeded)
        await bench.clean.delete_queue(bench.queue)
        await worker.wait_for(PollFailed)
        being_deleted = fault_proxy.add(Rule(Answer(409, "QueueBeingDeleted"), queue=bench.queue))
        asked, began = len(fault_proxy.seen("get", bench.queue)), time.monotonic()
        await asyncio.sleep(gone)
        rate = (len(fault_proxy.seen("get", bench.queue)) - asked) / (time.monotonic() - began)
        fault_proxy.remove(being_deleted)
        await bench.clean.create_queue(bench.queue)
        back = time.monotonic()
        await bench.rest.aenqueue(2, 0.0)
        await until(lambda: len(worker.of(JobSucceeded)) == 2, "a job of the new queue")
    resumed = bench.executions[-1].began - back
    fault.did(f"deleted, refused for {gone:g} s as being deleted, made again")
    fault.saw(f"{rate:.1f} gets/s meanwhile, resumed after {resumed:.1f} s")
    assert resumed < 5
    assert rate < 4


@pytest.mark.fault(28)
async def test_calls_that_are_never_answered_are_given_up(
    fault_proxy: FaultProxy, azurite: Azurite, fault: Fault
) -> None:
    lease, call_timeout = 6, fault.scale(short=3.0, full=10.0)
    bench = azure_bench(fault_proxy, azurite, call_timeout)
    await bench.clean.create_queue(bench.queue)
    fault_proxy.add(Rule(BlackHole(), on="get", times=1))
    fault_proxy.add(Rule(BlackHole(), on="update", times=2))
    await bench.rest.aenqueue(1, lease * 0.75)
    async with bench.worker(lease=lease) as worker:
        await worker.wait_for(JobSucceeded, within=30)
    get, renewals = bench.calls("get")[0], bench.refused("update")
    longest = max(call.ended - call.at for call in renewals)
    fault.did(f"a get and two renewals accepted and never answered, L = {lease} s, calls of {call_timeout:g} s at most")
    fault.saw(f"the get was given up after {get.ended - get.at:.2f} s, the renewals after {longest:.2f} s")
    assert get.error is not None
    assert get.ended - get.at < call_timeout + _NOISE
    assert 2 == len(renewals)
    assert longest < lease / 6 + _NOISE
    assert [1] == [execution.attempt for execution in bench.executions]
    await bench.aclose()


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    ("status", "code"), [(403, "AuthorizationPermissionMismatch"), (401, "NoAuthenticationInformation")]
)
def test_access_denied_and_granted_again(
    stage: Stage, fault_proxy: FaultProxy, fault: Fault, status: int, code: str
) -> None:
    """Two queues, and a handler that runs."""
    seconds = fault.scale(short=8.0, full=65.0)
    second = f"{stage.queue}-2"
    stage.enqueue_many(jobs.rest, [(1, 4.0)])
    worker = stage.worker("-q", f"{stage.queue},{second}", "--lease", "120")
    wait_until(stage.history.lines, what="the start")
    poison = [f"{queue}-poison" for queue in (stage.queue, second)]
    wait_until(
        lambda: all(fault_proxy.seen("put", queue) for queue in poison),
        what="the last of the questions that a worker begins with",
    )
    denied = fault_proxy.add(Rule(Answer(status, code)))
    began = time.monotonic()
    wait_until(lambda: denied.applied, what="the first denial")
    time.sleep(seconds)
    fault_proxy.remove(denied)
    granted = time.monotonic()
    stage.enqueue_many(jobs.quick, [(2,)])
    wait_until(lambda: stage.history.count("end")[2], what="a job after the right came back")
    resumed = time.monotonic() - granted
    verdict = stage.verdict()
    lines = worker.lines("poll.failed")
    refused = [seen for seen in fault_proxy.log if seen.status == status]
    asked = {operation: [seen.at for seen in refused if seen.operation == operation] for operation in ("get", "delete")}
    fault.did(f"{status} on everything for {seconds:g} s, 2 queues, a handler running")
    fault.saw(
        f"{status}: {len(refused)} requests, {len(lines)} log lines, back after {resumed:.1f} s, "
        f"lost {len(verdict.lost)}",
    )
    verdict.assert_clean()
    assert stage.history.count("end")[1] == 1
    # A denied get tells of that right only; when the delete of what ran is denied too, all else waits.
    assert all(later - earlier > 4.9 for earlier, later in itertools.pairwise(asked["get"]))
    assert len(refused) <= 2 + (granted - began) / 5
    assert len(lines) <= 1 + (granted - began) // 30
    assert 0 < len(lines)
    assert code in lines[0]["reason"]
    assert resumed < 5 + 2


@pytest.mark.fault(30)
async def test_a_connection_that_the_server_closes_when_idle(
    fault_proxy: FaultProxy, proxied_bench: Bench, fault: Fault
) -> None:
    count = fault.scale(short=25, full=500)
    fault_proxy.idle_limit = 0.05
    fault_proxy.add(Rule(CloseAfterAnswer(), on="put", every=5))
    app = App(broker=fault_proxy.connection_string)

    @app.task(name="rest", queue=proxied_bench.queue)
    async def rest(n: int) -> None: ...

    for n in range(count):
        await rest.aenqueue(n)
        await asyncio.sleep(fault.random.uniform(0.03, 0.09))  # about when the server hangs up
    found = await bodies(proxied_bench)
    puts = [seen for seen in fault_proxy.seen("put") if seen.upstream is not None]
    fault.did(f"{count} puts, {fault_proxy.hung_up} idle connections closed about when the next was sent")
    fault.saw(f"{len(found)} messages, {len(puts)} puts applied")
    assert fault_proxy.hung_up
    assert count == len(found) == len(set(found)) == len(puts)
    await app.aclose()


@pytest.mark.fault(31)
async def test_answers_that_trickle(proxied_bench: Bench, fault_proxy: FaultProxy, fault: Fault) -> None:
    bench, count = proxied_bench, fault.scale(short=32, full=300)
    lease = fault.scale(short=20, full=6)  # a get takes 3 s alone, and longer beside other tests
    fault_proxy.add(Rule(Trickle(5_000)))
    await bench.rest.aenqueue_many([(n, 0.05) for n in range(count)])
    began = time.monotonic()
    async with bench.worker(lease=lease, concurrency=32, poll_max=0.5) as worker:
        await until(lambda: len(settled(worker)) >= count, "the end of all", within=fault.scale(short=60, full=300))
    fault.did(f"{count} jobs, every answer at 5 kB/s, L = {lease} s")
    fault.saw(f"{time.monotonic() - began:.1f} s, no lease lost")
    assert [] == worker.of(LeaseLost)
    assert dict.fromkeys(range(count), 1) == Counter(execution.n for execution in bench.executions)


def settled(worker: EventRecorder) -> list[Event]:
    """Return what tells of jobs that ended, well or not: a job that can't succeed any more should not be waited for."""
    return [*worker.of(JobSucceeded), *worker.of(LeaseLost), *worker.of(SettleFailed)]


@pytest.mark.fault(32)
@pytest.mark.parametrize("limit", [100, 500])
async def test_a_throttled_account(proxied_bench: Bench, fault_proxy: FaultProxy, fault: Fault, limit: int) -> None:
    bench, count = proxied_bench, fault.scale(short=3, full=20) * limit
    few = 2 * limit  # of many messages in a queue, Azurite takes long to find the next
    await bench.rest.aenqueue_many([(n, 0.0) for n in range(few)])
    fault_proxy.throttle = limit
    began, done_before = time.monotonic(), len(fault_proxy.log)
    lease = 12  # the whole of Azurite, of the proxy, of its callers and of other tests has two cores
    async with bench.worker(concurrency=32, lease=lease) as worker:
        for first in range(few, count, 50):
            enough = partial(lambda done: len(settled(worker)) > done, first - few)
            await until(enough, "room for more", within=600)
            await bench.rest.aenqueue_many([(n, 0.0) for n in range(first, min(first + 50, count))])
        await until(lambda: len(settled(worker)) >= count, "the end of all", within=600)
        took = time.monotonic() - began
    asked = len(fault_proxy.log) - done_before
    answered = asked - fault_proxy.throttled
    fault.did(f"{count} jobs at {limit} requests/s")
    fault.saw(
        f"{limit}/s: {answered / took:.0f} requests/s answered, {fault_proxy.throttled / asked:.0%} of all refused, "
        f"{len(worker.of(LeaseLost))} leases lost",
    )
    assert [] == worker.of(LeaseLost) + worker.of(SettleFailed)
    assert dict.fromkeys(range(count), 1) == Counter(execution.n for execution in bench.executions)
    assert fault_proxy.throttled < answered / 2
    if limit == 100:  # 500 is near what Azurite itself can do, and on a busy machine more than that
        assert answered / took > limit / 2
