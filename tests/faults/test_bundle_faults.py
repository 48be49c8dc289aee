"""Faults 1 to 3, 6, 7, 13, 15, 33 and 40, for jobs that share a message."""

import json
import signal
from collections import Counter, defaultdict
from functools import partial
from itertools import chain
from random import Random
from typing import Final

import pytest

import crashing
import jobs
from fault_report import Fault
from history import check
from qworker.events import JobSucceeded, LeaseLost
from qworker.job import Job
from qworker.poison.record import decode_poison
from qworker.wire.bundle import bundled
from qworker.wire.envelope import encode
from stage import Stage, WorkerProcess
from troubled import Bench
from waiting import until, wait_until

LEASE: Final = 2
FEW: Final = ("--lease", str(LEASE), "-c", "4")
POINTS: Final[tuple[str, ...]] = (
    "received",
    "before-handler",
    "in-handler",
    "after-handler",
    "after-delete",
    "renewal-sent",
    "renewal-answered",
    "before-release",
    "after-release",
    "after-put-alone",
    "after-poison-put",
    "after-poison-delete",
)
LATE: Final = {"renewal-sent", "renewal-answered", "before-release", "after-release"}
"""Points that are only reached when jobs take a while."""


def stop(worker: WorkerProcess) -> None:
    """Have a worker end, which lives and works."""
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output


def put(stage: Stage, body: str) -> None:
    """Put what no producer of ours would."""

    async def create_and_put() -> None:
        await stage.app.broker.create_queue(stage.queue)
        await stage.app.broker.queue(stage.queue).put(body)

    stage.app._portal.run(create_and_put())


@pytest.mark.fault(1)
def test_workers_killed_at_random_lose_nothing_of_bundles(stage: Stage, fault: Fault) -> None:
    kills = fault.scale(short=3, full=40)
    workers = [stage.worker(*FEW) for _ in range(3)]
    total = 0
    for number in range(kills):
        for worker in workers:
            worker.wait_for("worker.started")
        calls = [(total + n, fault.random.uniform(0.001, 0.05)) for n in range(60)]
        total += len(calls)
        stage.enqueue_many(jobs.rest, calls, bundle=fault.random.randint(5, 30))
        some = 40 * number + 5
        wait_until(partial(lambda some: stage.history.count("end").total() > some, some), what="some of them")
        stage.kill(workers.pop(fault.random.randrange(3)))
        workers.append(stage.worker(*FEW))
    verdict = stage.verdict(within=120)
    again = sum(count - 1 for count in verdict.executions.values())
    fault.did(f"in bundles of 5 to 30: {kills} kills over {total} jobs")
    fault.saw(
        f"bundles: lost {len(verdict.lost)}, unexplained {len(verdict.unexplained)}, "
        f"poisoned {len(verdict.poisoned)}, {again} executions more than jobs"
    )
    verdict.assert_clean()


@pytest.mark.fault(2, 40, minutes=4)
def test_killed_at_each_fault_point_jobs_of_bundles_are_executed_once_or_twice(stage: Stage, fault: Fault) -> None:
    """At some points, some jobs of the bundle have ended, some run and some wait."""
    few: list[tuple[str, ...]] = [tuple(fault.random.sample(POINTS, 3))]
    rounds = fault.scale(short=few, full=[POINTS] * 5)
    seen: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for point in chain.from_iterable(rounds):
        seen[point].update(kill_at(point, stage, fault.random))
    copies = stage.poisoned_jobs()
    fault.did(f"in bundles: killed at {', '.join(seen)}, {len(rounds)} times each")
    fault.saw("executions in bundles: " + ", ".join(f"{name} {min(of)}-{max(of)}" for name, of in seen.items()))
    check(stage.history.read(), poisoned=copies).assert_clean()
    assert {1, 2} >= {times for of in seen.values() for times in of}
    assert {1} >= set(seen["received"])
    assert {1, 2} >= set(copies.values())


def kill_at(point: str, stage: Stage, random: Random) -> list[int]:
    """Have a worker killed there; return how often its jobs were executed once another has done the rest."""
    if point == "after-put-alone":
        made = stage.enqueue_many(crashing.fails_once, [(n,) for n in range(8)], bundle=8)
    elif "poison" in point:
        made = stage.enqueue_many(jobs.reject, [(n,) for n in range(8)], bundle=8, may_poison=True)
    else:
        made = stage.enqueue_many(crashing.pass_by, [(n, 3.0 if point in LATE else 0.0) for n in range(8)], bundle=8)
    passage = 1 if point in {"received", "after-delete"} | LATE else random.randint(1, 8)
    where = {"QWORKER_FAULTPOINT": f"{point}:{passage}:KILL"}
    victim = stage.worker(*FEW, "--grace", "0s", app="crashing", env=where)
    if point.endswith("-release"):
        wait_until(lambda: started(stage, made) >= 4, what="some starts")
        stage.kill(victim, signal.SIGTERM)
    assert -signal.SIGKILL == victim.wait(), f"{point}: {victim.output}"
    heir = stage.worker(*FEW, app="crashing")
    heir.wait_for("worker.started")
    wait_until(lambda: not stage.remaining(), what="an empty queue")
    stop(heir)
    times = Counter(line["job"] for line in stage.history.lines())
    expected = 2 if point == "after-put-alone" else 1  # the first attempt fails
    return [times[job.id] - expected + 1 for job in made]


def started(stage: Stage, made: list[Job]) -> int:
    return len({line["job"] for line in stage.history.lines()} & {job.id for job in made})


@pytest.mark.fault(3)
def test_a_job_that_ends_its_worker_takes_no_neighbour_of_its_bundle_along(stage: Stage, fault: Fault) -> None:
    tries = fault.scale(short=3, full=5)
    neighbours = fault.scale(short=30, full=100)
    spans = [(n, 0.2 if n < 6 else 0.005) for n in range(neighbours)]
    lives = [encode(Job(f"live-{n}", f"live-{tries}", [n, span])) for n, span in spans]
    dies = encode(Job("killer", f"die-{tries}", [-1, "os._exit"]))
    put(stage, bundled([*lives[:3], dies, *lives[3:]], "text"))
    stage.history.note_all({"what": "enqueued", "job": f"live-{n}", "n": n, "bundled": True} for n, _ in spans)
    stage.history.note("enqueued", job="killer", n=-1, may_poison=True, bundled=True)
    deaths = 0
    while True:
        worker = stage.worker("--lease", str(LEASE), "-c", "16", app="crashing")
        ended = partial(lambda worker: worker.process.poll() is not None or not stage.remaining(), worker)
        wait_until(ended, what="an empty queue, or a death")
        if not stage.remaining():
            break
        deaths += 1
        assert deaths <= tries
    stop(worker)
    [record] = [decode_poison(body) for body in stage.poisoned()]
    done = len({line["job"] for line in stage.history.lines("end")})
    fault.did(f"D = {tries}, a job that exits in one bundle with {neighbours} others")
    fault.saw(f"in a bundle: given up after {deaths} executions; {done} of {neighbours} neighbours finished")
    check(stage.history.read(), poisoned={"killer"}).assert_clean()
    assert (neighbours, tries, "killer", "WorkerLost") == (done, deaths, record.job_id, record.failure.type)


@pytest.mark.fault(6, 7)
def test_a_bundle_is_released_at_a_stop_and_no_attempt_is_spent(stage: Stage, fault: Fault) -> None:
    """Four of its jobs run for long, two have ended, the others wait."""
    count = 32
    calls = [(n, 0.0 if n < 2 else 60.0) for n in range(count)]
    stage.enqueue_many(crashing.rest_at_most, calls, bundle=count)
    worker = stage.worker("-c", "4", "--grace", "0.5s", "--lease", "60", app="crashing")
    wait_until(lambda: len(stage.history.lines()) == 6, what="the starts")
    stage.kill(worker, signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    stopped = stage.history.lines("kill")[0]["at"]
    released = len(worker.lines("job.released"))
    heir = stage.worker("-c", "4", "--lease", "60", app="crashing", env={"LONGEST": "0"})
    heir.wait_for("worker.started")
    verdict = stage.verdict()
    stop(heir)
    starts = stage.history.lines()
    visible = min(line["at"] for line in starts if line["pid"] == heir.process.pid) - stopped
    fault.did(f"SIGTERM with a bundle of {count}, of which 4 run")
    fault.saw(f"a bundle: {released} jobs released, started elsewhere {visible:.1f} s after the signal")
    verdict.assert_clean()
    assert count - 2 == released
    assert {1} == {line["attempt"] for line in starts}
    assert count + 4 == len(starts)


@pytest.mark.fault(13)
async def test_a_bundle_that_takes_many_leases_runs_once(bench: Bench, fault: Fault) -> None:
    leases = fault.scale(short=2, full=10)
    calls = [(n, leases * bench.lease / 2) for n in range(8)]  # four at once, twice
    await bench.rest.using(bundle=8).aenqueue_many(calls)
    async with bench.worker() as first:
        await until(lambda: bench.executions, "the start")
        async with bench.worker(troubled=False) as second:
            await until(lambda: len(first.of(JobSucceeded)) == 8, "the end", within=120)
            await until(lambda: bench.calls("delete"), "its deletion")
    renewals = bench.calls("update")
    fault.did(f"a bundle of 8 jobs that takes {leases} L")
    fault.saw(f"a bundle: {len(bench.executions)} executions of 8 jobs, {len(renewals)} renewals")
    assert dict.fromkeys(range(8), 1) == Counter(execution.n for execution in bench.executions)
    assert [] == first.of(LeaseLost) + second.of(LeaseLost)
    assert 2 * leases <= len(renewals) <= 4 * leases
    assert 1 == len(bench.calls("delete"))


@pytest.mark.fault(15)
async def test_when_renewals_of_a_bundle_fail_all_its_handlers_are_cancelled(bench: Bench, fault: Fault) -> None:
    well_again = bench.trouble.busy("update")
    await bench.rest.using(bundle=3).aenqueue_many([(0, 0.0), (1, 1.6 * bench.lease), (2, 1.6 * bench.lease)])
    async with bench.worker() as first:
        await until(lambda: len(bench.executions) == 3, "the starts")
        may_get_again = bench.trouble.busy("get")
        async with bench.worker(troubled=False) as second:
            await until(lambda: len(first.of(LeaseLost)) == 2, "the end of the lease")
            await until(lambda: len(second.of(JobSucceeded)) == 3, "the end")
            await until(lambda: not second.of(LeaseLost), "nothing else")
        well_again()
        may_get_again()
    fault.did("every renewal of a bundle answered 503 for longer than L")
    cancelled = [execution for execution in bench.executions if execution.cancelled]
    times = Counter(execution.n for execution in bench.executions)
    fault.saw(f"a bundle: {len(cancelled)} cancelled, executions {sorted(times.values())}")
    assert {1, 2} == {execution.n for execution in cancelled}
    assert all(execution.lease_lost for execution in cancelled)
    assert {0: 2, 1: 2, 2: 2} == times
    assert {1, 2} == {execution.attempt for execution in bench.executions}
    assert 0 == await bench.remaining()


@pytest.mark.fault(33)
def test_bad_members_of_a_bundle_are_poisoned_alone(stage: Stage, fault: Fault) -> None:
    bad = {
        "not an object": "7",
        "a missing field": '{"id":"b1"}',
        "an unknown version": '{"v":9,"id":"b2","task":"jobs.quick"}',
        "arguments that fail": '{"id":"b3","task":"jobs.quick","args":["x"]}',
        "too many arguments": '{"id":"b4","task":"jobs.quick","args":[1,2]}',
    }
    good = [encode(Job(f"g{n}", "jobs.quick", [n])) for n in range(27)]
    members = [*bad.values(), *good]
    fault.random.shuffle(members)
    put(stage, bundled(members, "text"))
    worker = stage.worker("--burst", "-c", "32")
    assert 0 == worker.wait(), worker.output
    records = [decode_poison(body) for body in stage.poisoned()]
    fault.did(f"{len(bad)} kinds of bad members in a bundle of {len(members)}")
    fault.saw(f"in a bundle: {len(records)} poisoned, {stage.history.count().total()} neighbours executed once")
    assert sorted(map(same, bad.values())) == sorted(same(record.body) for record in records)
    assert dict.fromkeys(range(27), 1) == stage.history.count()
    assert 0 == stage.remaining()


def same(text: str) -> str:
    """Return JSON with its keys in order."""
    return json.dumps(json.loads(text), sort_keys=True)
