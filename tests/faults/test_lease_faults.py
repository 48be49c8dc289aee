"""Faults 13 to 21: whatever happens to renewals, a job is not given away while it runs, nor kept once lost."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

import jobs
from fault_actions import Answer
from fault_proxy import FaultProxy
from fault_report import Fault
from fault_rules import Rule
from qworker.brokers.azure.broker import AzureBroker
from qworker.errors import BrokerBusy
from qworker.events import JobSucceeded, LeaseLost, SettleFailed
from stage import Stage
from troubled import Bench
from waiting import until, wait_until


@pytest.mark.fault(13)
async def test_a_handler_of_ten_leases_runs_once(bench: Bench, fault: Fault) -> None:
    leases = fault.scale(short=2.5, full=10)
    await bench.rest.aenqueue(1, leases * bench.lease)
    async with bench.worker() as first:
        await until(lambda: bench.executions, "the start")
        async with bench.worker(troubled=False):
            await until(lambda: first.of(JobSucceeded), "the end")
    renewals = bench.calls("update")
    fault.did(f"a handler of {leases:g} L, beside a second worker")
    fault.saw(f"{len(bench.executions)} execution, {len(renewals)} renewals, each with the receipt of the one before")
    assert 1 == len(bench.executions)
    assert len(renewals) >= int(leases * 2)
    assert [call.given for call in renewals[:-1]] == [call.receipt for call in renewals[1:]]
    assert [renewals[-1].given] == [call.receipt for call in bench.calls("delete")]
    assert [] == bench.refused("update") + bench.refused("delete")
    assert 0 == await bench.remaining()


@pytest.mark.fault(14)
async def test_a_renewal_answered_503_twice_is_tried_again_in_time(bench: Bench, fault: Fault) -> None:
    bench.trouble.busy("update", times=2)
    await bench.rest.aenqueue(1, 2.0 * bench.lease)
    async with bench.worker() as first:
        await until(lambda: bench.executions, "the start")
        async with bench.worker(troubled=False) as second:
            await until(lambda: first.of(JobSucceeded), "the end")
    fault.did("the first two renewals answered 503")
    fault.saw(f"{len(bench.executions)} execution, {len(bench.refused('update'))} renewals refused")
    assert 2 == len(bench.refused("update"))
    assert all(isinstance(call.error, BrokerBusy) for call in bench.refused("update"))
    assert 1 == len(bench.executions)
    assert [] == first.of(LeaseLost) + second.of(LeaseLost)
    assert 0 == await bench.remaining()


@pytest.mark.fault(15)
async def test_when_renewals_fail_for_a_lease_its_handler_is_cancelled(bench: Bench, fault: Fault) -> None:
    well_again = bench.trouble.busy("update")
    await bench.rest.aenqueue(1, 1.6 * bench.lease)
    async with bench.worker() as first:
        await until(lambda: bench.executions, "the start")
        may_get_again = bench.trouble.busy("get")  # the job is to go to the other worker
        async with bench.worker(troubled=False) as second:
            await until(lambda: len(bench.executions) == 2, "a second start")
            lost = await first.wait_for(LeaseLost)
            await until(lambda: second.of(JobSucceeded), "the end")
        well_again()
        may_get_again()
        await bench.rest.aenqueue(2, 0.0)
        await first.wait_for(JobSucceeded)  # it lives
    one, two, _ = bench.executions
    fault.did("every renewal answered 503 for longer than L")
    fault.saw(f"2 executions, the first cancelled {two.began - one.ended:.1f} s before the second began")
    assert (True, True, 1) == (one.cancelled, one.lease_lost, lost.attempt)
    assert (False, 2) == (two.cancelled, two.attempt)
    assert one.ended < two.began + 0.5
    assert 0 == await bench.remaining()


@pytest.mark.fault(15)
async def test_the_deadline_counts_from_before_the_get(bench: Bench, fault: Fault) -> None:
    """An answer that took long has used up some of the lease."""
    lease, late = 4, 2.5
    await bench.rest.aenqueue(1, 30.0)
    bench.trouble.delay_answer("get", late, times=1)
    bench.trouble.busy("update")
    async with bench.worker(lease=lease) as worker:
        await worker.wait_for(LeaseLost)
        asked = next(call.at for call in bench.calls("get"))
        kept = bench.executions[0].ended - asked
    fault.saw(f"a get answered after {late:g} s: cancelled {kept:.1f} s after it was asked, L = {lease}")
    assert lease - 0.5 < kept < lease + 1


@pytest.mark.fault(16)
async def test_a_message_that_is_gone_is_renewed_no_more(bench: Bench, fault: Fault) -> None:
    """For real: it is deleted under the worker's feet."""
    await bench.rest.aenqueue(1, 30.0)
    async with bench.worker() as worker:
        await until(lambda: bench.executions, "the start")
        await bench.clean.queue(bench.queue).clear()
        await worker.wait_for(LeaseLost)
        asked = len(bench.calls("update"))
        async with bench.worker(troubled=False):
            await asyncio.sleep(bench.lease / 2)  # time for one more renewal, which must not come
    fault.did("deleted by someone else while it runs")
    fault.saw(f"renewals after the refused one: {len(bench.calls('update')) - asked}")
    assert asked == len(bench.calls("update"))
    assert bench.executions[0].cancelled
    assert bench.executions[0].lease_lost
    assert [] == bench.calls("delete")


@pytest.mark.fault(16)
@pytest.mark.parametrize(("status", "code"), [(404, "MessageNotFound"), (400, "PopReceiptMismatch")])
async def test_both_ways_to_say_so_stop_the_renewals(
    fault_proxy: FaultProxy, fault: Fault, status: int, code: str
) -> None:
    troubled, clean = (AzureBroker.from_connection_string(fault_proxy.connection_string) for _ in range(2))
    bench = Bench(troubled, clean)
    await bench.clean.create_queue(bench.queue)
    rule = fault_proxy.add(Rule(Answer(status, code), on="update", queue=bench.queue))
    await bench.rest.aenqueue(1, 30.0)
    async with bench.worker() as worker:
        await worker.wait_for(LeaseLost)
        await asyncio.sleep(bench.lease / 2)  # time for one more renewal, which must not come
    fault.did(f"renewal answered {status}")
    fault.saw(f"{rule.applied} renewal")
    assert 1 == rule.applied
    assert bench.executions[0].cancelled
    await bench.aclose()


@pytest.mark.fault(17)
async def test_a_renewal_whose_answer_was_lost_costs_one_more_execution_at_most(bench: Bench, fault: Fault) -> None:
    bench.trouble.lose_answer("update", times=1)
    await bench.rest.aenqueue_many([(1, 0.5 * bench.lease), (2, 1.5 * bench.lease)])
    async with bench.worker() as first:
        await until(lambda: len(bench.executions) == 2, "both starts")
        async with bench.worker(troubled=False) as second:
            await until(lambda: len(first.of(JobSucceeded) + second.of(JobSucceeded)) == 2, "the end of both")
    runs = Counter(execution.n for execution in bench.executions)
    fault.did("the answer to one of two jobs' renewal dropped")
    fault.saw(f"executions {sorted(runs.values())}, {len(bench.refused('delete'))} deletes refused")
    assert max(runs.values()) <= 2
    assert 3 == runs.total()  # one was not touched
    receipts = {call.message: call.given for call in bench.calls("update") if call.given}
    deleted = [call for call in bench.calls("delete") if call.error is None]
    assert all(call.receipt == receipts.get(call.message, call.receipt) for call in deleted)
    assert 0 == await bench.remaining()


@pytest.mark.fault(18)
async def test_a_handler_that_ends_during_its_renewal_deletes_with_the_right_receipt(
    bench: Bench, fault: Fault
) -> None:
    count, delay = fault.scale(short=60, full=1000), 0.3
    bench.trouble.delay_answer("update", delay)
    # All are renewed at the same time, and each renewal gets a sixth of it: beside many other tests it takes long.
    lease = fault.scale(short=24, full=3 * bench.lease)
    spans = [(n, fault.random.uniform(0.0, 1.3 * delay)) for n in range(count)]
    await bench.rest_into_renewal.aenqueue_many(spans)
    async with bench.worker(concurrency=100, poll_max=0.05, lease=lease) as worker:
        await until(lambda: len(worker.of(JobSucceeded)) >= count, "the end of all", within=60)
    during = sum(any(call.at <= each.ended <= call.ended for call in bench.renewals(each)) for each in bench.executions)
    fault.did(f"{count} handlers that end about when their renewal is answered")
    fault.saw(f"{during} ended during a renewal, {len(bench.refused('delete'))} deletes failed")
    assert during > count / 3
    assert [] == bench.refused("delete")
    assert [] == worker.of(LeaseLost) + worker.of(SettleFailed)
    assert {n: 1 for n, _ in spans} == Counter(execution.n for execution in bench.executions)


@pytest.mark.fault(19)
@pytest.mark.parametrize("task", ["block", "burn"])
def test_a_handler_that_blocks_the_loop_keeps_its_lease_and_is_named(stage: Stage, fault: Fault, task: str) -> None:
    first, second = (stage.worker("--lease", str(stage.lease)) for _ in range(2))
    for worker in (first, second):
        worker.wait_for("worker.started")
    job = getattr(jobs, task).using(queue=stage.queue).enqueue(1, 3.0 * stage.lease)
    wait_until(lambda: stage.history.count("end")[1], what="the end")
    wait_until(lambda: stage.remaining() == 0, what="its deletion")
    blocked = [line for worker in (first, second) for line in worker.lines("loop.blocked")]
    fault.did("a handler that sleeps, and one that computes, without await")
    fault.saw(f"{task}: {stage.history.count()[1]} execution; the log says {blocked[0]['task']} at {blocked[0]['at']}")
    assert 1 == stage.history.count()[1]
    assert (f"jobs.{task}", job.id) == (blocked[0]["task"], blocked[0]["job"])
    assert "jobs.py" in blocked[0]["at"]
    assert [] == [line for worker in (first, second) for line in worker.lines("lease.lost")]


@pytest.mark.fault(20)
def test_a_wall_clock_that_is_stepped_changes_no_lease(stage: Stage, fault: Fault, tmp_path: Path) -> None:
    """That of the machine with the workers; Azure's service has its own."""
    clock = tmp_path / "clock"
    set_clock(clock, 0)
    env = {"WALL_CLOCK": str(clock)}
    workers = [stage.worker("--lease", str(stage.lease), app="wall_clock", env=env) for _ in range(2)]
    jobs.rest.using(queue=stage.queue).enqueue_many([(n, 2.5 * stage.lease) for n in range(4)])
    wait_until(lambda: len(stage.history.lines()) == 4, what="the starts")
    steps = fault.random.sample([600, -600], 2)
    for step in steps:
        set_clock(clock, step)
        wait_until(lambda: len(stage.history.lines("clock")) >= 2, what="the step")
        time.sleep(stage.lease / 2)  # in which each lease is renewed
    wait_until(lambda: stage.history.count("end").total() == 4, what="the ends")
    wait_until(lambda: stage.remaining() == 0, what="an empty queue")
    fault.did(f"steps to {' and '.join(f'{step:+} s' for step in steps)} while jobs of 2.5 L run on two workers")
    fault.saw(f"{stage.history.count().total()} executions of 4 jobs")
    assert dict.fromkeys(range(4), 1) == stage.history.count()
    assert 4 == len(stage.history.lines("clock"))
    assert [] == [line for worker in workers for line in worker.lines("lease.lost")]


def set_clock(file: Path, offset: int) -> None:
    new = file.with_suffix(".new")
    new.write_text(str(offset))
    new.replace(file)


@pytest.mark.fault(21)
async def test_a_batch_of_32_that_waits_its_turn_is_renewed(
    bench: Bench, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a rush of quick jobs makes a worker of one slot take 32 at once, and only where they are settled quickly."""
    monkeypatch.setattr("qworker.engine.get.slots.Slots._prefetch", lambda _: 64)
    seconds, lease = fault.scale(short=(0.4, 10), full=(1.0, 6))
    async with bench.worker(lease=lease, concurrency=1) as worker:
        await bench.rest.aenqueue_many([(n, 0.0) for n in range(200)])
        await bench.rest.aenqueue_many([(n, seconds) for n in range(200, 232)])
        await until(lambda: len(bench.executions) > 200, "the first of the slow ones")
        async with bench.worker(troubled=False, concurrency=1, lease=lease) as second:
            await until(lambda: len(worker.of(JobSucceeded) + second.of(JobSucceeded)) == 232, "the end of all")
    waited = {call.message for call in bench.calls("update")}
    fault.did(f"32 handlers of {seconds:g} s on one slot, L = {lease} s")
    fault.saw(f"{len(bench.executions) - 200} executions; {len(waited)} messages renewed")
    assert dict.fromkeys(range(232), 1) == Counter(execution.n for execution in bench.executions)
    assert {1} == {execution.attempt for execution in bench.executions}
    assert len(waited) > 10
    assert [] == worker.of(LeaseLost) + second.of(LeaseLost)
