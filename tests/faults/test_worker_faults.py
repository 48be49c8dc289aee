"""Faults 1 to 4 and 12: whatever ends a worker process, nothing is lost, and no job is given up for another's crash."""

import itertools
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final
from uuid import uuid4

import pytest

import crashing
import jobs
from azurite_server import Azurite
from explanations import Line
from fault_actions import Delay
from fault_proxy import FaultProxy
from fault_report import Fault
from fault_rules import Rule
from history import check
from qworker.poison.record import PoisonRecord, decode_poison
from qworker.task import Task
from stage import MakeStage, Stage, WorkerProcess
from waiting import wait_until

LEASE: Final = 2
CRASHING: Final = ("--lease", str(LEASE), "-c", "4")


def beside(stage: Stage) -> Stage:
    """Return a stage with another queue, and the same history."""
    other = copy(stage)
    other.queue = f"q-{uuid4().hex[:12]}"
    return other


def executions(stage: Stage) -> Counter[str]:
    """Count each job's starts."""
    return Counter(line["job"] for line in stage.history.lines())


def stop(worker: WorkerProcess) -> None:
    """Have a worker end, which lives and works."""
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output


# 1


@dataclass(frozen=True)
class Restart:
    """A job that a kill interrupted, and its next start."""

    seconds: float
    """From the kill."""
    deliveries: int
    """Since the one that was interrupted: more than one if workers were killed that had it, and had not started it."""


@pytest.mark.fault(1, minutes=3)
def test_workers_killed_at_random_lose_nothing(stage: Stage, fault: Fault) -> None:
    on_sqlite = stage.url.startswith("sqlite")
    kills = fault.scale(short=6 if on_sqlite else 3, full=200 if on_sqlite else 40)
    spans = [(n, fault.random.uniform(0.001, 0.1)) for n in range(50 * kills)]
    workers = [stage.worker(*CRASHING) for _ in range(3)]
    for number in range(kills):
        for worker in workers:
            worker.wait_for("worker.started")  # it is one of three that is killed, not one of two
        enqueue_over(stage, spans[50 * number : 50 * (number + 1)], fault.random.uniform(0.2, 0.6))
        stage.kill(workers.pop(fault.random.randrange(3)))
        if number < kills - 1:
            workers.append(stage.worker(*CRASHING))
    verdict = stage.verdict(within=120)
    restarts = list(restarts_in(stage.history.read()))
    at_once, later = ([again for again in restarts if (again.deliveries == 1) == once] for once in (True, False))
    fault.did(f"{kills} kills over {len(spans):,} jobs of 1 to 100 ms")
    fault.saw(
        f"lost {len(verdict.lost)}, unexplained {len(verdict.unexplained)}, poisoned {len(verdict.poisoned)}; "
        f"{len(at_once)} interrupted, the slowest started again after {slowest(at_once):.1f} s; "
        f"{len(later)} more than once in a row, {slowest(later):.1f} s"
    )
    verdict.assert_clean()
    assert [] == [again for again in restarts if again.seconds > again.deliveries * (LEASE + 2)]


def enqueue_over(stage: Stage, calls: list[tuple[int, float]], seconds: float) -> None:
    """Enqueue calls, a few at a time: so that workers have some at any time, and none has many."""
    for first in range(0, len(calls), 5):
        wait_until(lambda: stage.remaining() < 50, what="fewer jobs in the queue")
        stage.enqueue_many(jobs.rest, calls[first : first + 5])
        time.sleep(seconds * 5 / len(calls))


def slowest(restarts: Iterable[Restart]) -> float:
    return max((again.seconds for again in restarts), default=0.0)


def restarts_in(lines: Iterable[Line]) -> Iterator[Restart]:
    starts: defaultdict[str, list[Line]] = defaultdict(list)
    killed: dict[int, float] = {}
    settled = set()
    for line in lines:
        match line["what"]:
            case "kill":
                killed[line["pid"]] = line["at"]
            case "start":
                starts[line["job"]].append(line)
            case "settled":
                settled.add((line["job"], line["pid"]))
    for job, of_job in starts.items():
        for first, second in itertools.pairwise(of_job):
            if first["pid"] in killed and (job, first["pid"]) not in settled:
                yield Restart(second["at"] - killed[first["pid"]], second["attempt"] - first["attempt"])


# 2


@dataclass(frozen=True)
class Point:
    """Where a worker is killed, and with which jobs around."""

    name: str
    task: Task[..., Any] = crashing.pass_by
    seconds: float = 0.0
    stopped: bool = False
    """Whether the worker is told to stop when all its jobs run."""
    passages: int = 4
    """It is killed at one of the first so many."""


POINTS: Final = (
    Point("received", passages=1),
    Point("before-handler"),
    Point("in-handler"),
    Point("after-handler"),
    Point("after-delete"),
    Point("renewal-sent", seconds=5),
    Point("renewal-answered", seconds=5),
    Point("before-release", seconds=5, stopped=True),
    Point("after-release", seconds=5, stopped=True),
    Point("after-poison-put", jobs.reject),
    Point("after-poison-delete", jobs.reject),
)


@dataclass(frozen=True)
class Victim:
    """A worker that will be killed, on a queue that only it has until then."""

    stage: Stage
    jobs: frozenset[str]
    worker: WorkerProcess


@pytest.mark.fault(2, minutes=2)
def test_killed_at_each_fault_point_jobs_are_executed_once_or_twice(stage: Stage, fault: Fault) -> None:
    rounds = fault.scale(short=1, full=20)
    seen: defaultdict[str, Counter[int]] = defaultdict(Counter)
    poisoned: set[str] = set()
    for _ in range(rounds):
        victims = {point: victim_at(point, stage, fault.random) for point in POINTS}
        for point, victim in victims.items():
            if point.stopped:
                wait_until(partial(have_started, victim.jobs, stage), what="the starts of its jobs")
                stage.kill(victim.worker, signal.SIGTERM)
            assert -signal.SIGKILL == victim.worker.wait(), f"{point.name}: {victim.worker.output}"
        poisoned |= finish(stage, victims.values())
        times = executions(stage)
        for point, victim in victims.items():
            seen[point.name].update(times[job] for job in victim.jobs)
    fault.did(f"killed at each of {len(POINTS)} points, {rounds} times each, with 4 jobs around")
    fault.saw("executions: " + ", ".join(f"{name} {min(times)}-{max(times)}" for name, times in seen.items()))
    check(stage.history.read(), poisoned=poisoned).assert_clean()
    assert {1, 2} == set().union(*seen.values())
    assert {1} == set(seen["received"])
    assert all(2 in seen[name] for name in ("in-handler", "after-handler", "renewal-sent", "after-release"))


@pytest.mark.fault(2)
def test_killed_while_a_renewal_is_on_its_way_jobs_are_executed_twice(
    fault_proxy: FaultProxy, stage_on: MakeStage, azurite: Azurite, fault: Fault
) -> None:
    """The service has applied the renewal at the kill, its answer is on its way; or it gets it half a second later."""
    rounds = fault.scale(short=1, full=20)
    stage = stage_on(azurite.connection_string, fault_proxy.connection_string)
    at_once = fault.scale(short=1, full=4)
    for _ in range(rounds // at_once):
        victims = []
        for applied in [True, False] * at_once:
            victims.append(victim_of(crashing.pass_by, stage, seconds=5, count=1))
            fault_proxy.add(Rule(Delay(0.5, before=not applied), on="update", queue=victims[-1].stage.queue, times=1))
        for victim in victims:
            wait_until(partial(fault_proxy.seen, "update", victim.stage.queue), what="a renewal")
            stage.kill(victim.worker)
        finish(stage, victims)
    times = set(executions(stage).values())
    fault.did(f"killed as a renewal was on its way, {rounds} times after it was applied, {rounds} times before")
    fault.saw(f"executions: renewal on its way {min(times)}-{max(times)}")
    check(stage.history.read()).assert_clean()
    assert {2} == times


def have_started(ids: frozenset[str], stage: Stage) -> bool:
    return ids <= executions(stage).keys()


def victim_at(point: Point, stage: Stage, random: Random) -> Victim:
    where = f"{point.name}:{random.randint(1, point.passages)}:KILL"
    return victim_of(point.task, stage, seconds=point.seconds, count=4, env={"QWORKER_FAULTPOINT": where})


def victim_of(
    task: Task[..., Any], stage: Stage, *, seconds: float, count: int, env: dict[str, str] | None = None
) -> Victim:
    own = beside(stage)
    calls = [(n, seconds) if task is crashing.pass_by else (n,) for n in range(count)]
    made = own.enqueue_many(task, calls, may_poison=task is jobs.reject)
    worker = own.worker(*CRASHING, "--grace", "0s", app="crashing", env=env)
    return Victim(own, frozenset(job.id for job in made), worker)


def finish(stage: Stage, victims: Iterable[Victim]) -> set[str]:
    """Have one more worker do what the dead have left; return the jobs that are in the poison queues."""
    stages = [victim.stage for victim in victims]
    worker = stage.worker(*CRASHING, "-q", ",".join(each.queue for each in stages), app="crashing")
    wait_until(lambda: not any(each.remaining() for each in stages), what="empty queues")
    stop(worker)
    return {job for each in stages for job in each.poisoned_jobs()}


# 3


@dataclass(frozen=True)
class Killers:
    """Jobs that end their worker, and what became of both."""

    jobs: frozenset[str]
    deaths: int
    records: list[PoisonRecord]


@pytest.mark.fault(3)
def test_a_job_that_ends_its_worker_is_given_up_and_no_other(stage: Stage, fault: Fault) -> None:
    """Some of its neighbours are under way at each crash, and are delivered as often as the job that causes it."""
    tries = fault.scale(short=3, full=5)
    together = tuple(crashing.DEATHS)
    each_alone = [(way,) for way in together] if fault.full else []
    killers = {ways: let_kill(beside(stage), tries, ways) for ways in [*each_alone, together]}
    times = executions(stage)
    executed = {ways: [times[job] for job in of.jobs] for ways, of in killers.items()}
    ended = len({line["job"] for line in stage.history.lines("end")})
    poisoned = {record.job_id or "" for of in killers.values() for record in of.records}
    fault.did(f"D = {tries}, beside 100 neighbours: {'; '.join(' and '.join(ways) for ways in killers)}")
    fault.saw(
        f"{len(poisoned)} given up after {min(map(min, executed.values()))} to {max(map(max, executed.values()))} "
        f"executions; {ended} of {100 * len(killers)} neighbours finished"
    )
    check(stage.history.read(), poisoned=poisoned).assert_clean()
    assert 100 * len(killers) == ended
    for ways, of in killers.items():
        assert of.jobs == {record.job_id for record in of.records}
        assert {"WorkerLost"} == {record.failure.type for record in of.records}
        assert all(count <= tries for count in executed[ways])
        assert len(ways) > 1 or (tries, [tries]) == (of.deaths, executed[ways])


def let_kill(stage: Stage, tries: int, ways: Sequence[str]) -> Killers:
    """Enqueue killers among neighbours, and have one worker after another run them until the queue is empty."""
    spans = [0.3] * 6 + [0.005] * 94
    neighbours = list(enumerate(spans))
    stage.enqueue_many(crashing.lives[tries], neighbours[:3])
    deadly = stage.enqueue_many(crashing.dies[tries], list(enumerate(ways)), may_poison=True)
    stage.enqueue_many(crashing.lives[tries], neighbours[3:])
    deaths = 0
    while not emptied_by(stage.worker("--lease", str(LEASE), "-c", "16", app="crashing"), stage):
        deaths += 1
    return Killers(frozenset(job.id for job in deadly), deaths, [decode_poison(body) for body in stage.poisoned()])


def emptied_by(worker: WorkerProcess, stage: Stage) -> bool:
    """Wait until a worker has emptied the queue, and stop it; return False if it has died instead."""
    wait_until(lambda: worker.process.poll() is not None or not stage.remaining(), what="an empty queue, or a death")
    if stage.remaining():
        return False
    stop(worker)
    return True


@pytest.mark.fault(3)
def test_a_job_that_ends_its_child_process_is_given_up_and_its_worker_lives(stage: Stage, fault: Fault) -> None:
    ways = list(crashing.DEATHS) * fault.scale(short=1, full=5)
    stage.enqueue_many(crashing.die_in_child, list(enumerate(ways)), may_poison=True)
    stage.enqueue_many(crashing.lives[3], [(n, 0.01) for n in range(100)])
    worker = stage.worker("-c", "4", app="crashing")
    verdict = stage.verdict()
    stop(worker)
    neighbours = [line for line in stage.history.lines("end") if "worker" not in line]
    killers = Counter(line["n"] for line in stage.history.lines() if "worker" in line)
    reasons = Counter(decode_poison(body).failure.message for body in stage.poisoned())
    fault.did(f"the same in child processes, D = 3, {len(ways)} of them")
    fault.saw(f"executed {min(killers.values())} to {max(killers.values())} times, in one worker")
    verdict.assert_clean()
    assert dict.fromkeys(range(len(ways)), 3) == killers
    assert len(ways) == len(verdict.poisoned)
    assert 3 == len(reasons)
    assert (100, {worker.process.pid}) == (len(neighbours), {line["pid"] for line in neighbours})


# 4


@pytest.mark.fault(4)
def test_whatever_a_handler_raises_is_one_failed_attempt(stage: Stage, fault: Fault) -> None:
    rounds = fault.scale(short=1, full=20)
    errors = list(crashing.RAISES) * rounds
    for task in (crashing.throw, crashing.throw_in_thread, crashing.throw_in_child):
        stage.enqueue_many(task, list(enumerate(errors)))
    worker = stage.worker("-c", "4", app="crashing")
    verdict = stage.verdict()
    stage.enqueue(jobs.quick, -1)
    wait_until(lambda: stage.history.count("end")[-1], what="one more job")
    stop(worker)
    starts = stage.history.lines()
    retried = Counter(line["error"].partition(":")[0] for line in worker.lines("job.retried"))
    fault.did(f"{len(crashing.RAISES)} kinds, on the event loop, in a thread and in a child, {rounds} times each")
    fault.saw(
        f"{sum(retried.values())} attempts failed, {len(verdict.executions)} jobs done by the next, in one worker"
    )
    verdict.assert_clean()
    assert {worker.process.pid} == {line.get("worker", line["pid"]) for line in starts}
    assert {2} == set(verdict.executions.values())
    assert {1: 3 * len(errors), 2: 3 * len(errors)} == Counter(line["attempt"] for line in starts if line["n"] >= 0)
    assert dict.fromkeys(_names(crashing.RAISES), 3 * rounds) == retried


def _names(kinds: Iterable[str]) -> list[str]:
    return ["asyncio.exceptions.CancelledError" if kind == "CancelledError" else kind for kind in kinds]
