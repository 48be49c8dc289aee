"""Faults 5 to 9: however a worker is stopped, it ends in time, and what it held is another's at once."""

import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any
from uuid import uuid4

import pytest

import jobs
import stopping
from azurite_server import Azurite
from explanations import Line
from fault_actions import Delay
from fault_exchange import Seen
from fault_proxy import FaultProxy
from fault_report import Fault
from fault_rules import Rule
from proc import family, starved
from qworker.task import Task
from qworker.wire.envelope import decode
from stage import MakeStage, Stage, WorkerProcess
from waiting import wait_until
from watched import Watched


def stop(stage: Stage, worker: WorkerProcess, number: signal.Signals = signal.SIGTERM) -> float:
    """Send a signal, and return when."""
    stage.kill(worker, number)
    return time.monotonic()


def ended_at(stage: Stage, worker: WorkerProcess) -> float:
    """Wait for a process to end, and return when it did."""
    worker.wait()
    lines = [*stage.history.lines("exited"), *stage.history.lines("died")]
    return next(float(line["at"]) for line in lines if line["pid"] == worker.process.pid)


def starved_at_the_end(worker: WorkerProcess) -> float:
    """Wait for a process to end, and return for how long it had wanted a processor in vain, in its life."""
    seconds = 0.0
    while worker.process.poll() is None:
        seconds = max(seconds, starved(worker.process.pid))
        time.sleep(0.01)
    return seconds


def visible(stage: Stage) -> list[int]:
    """Return of each visible message how many attempts were spent."""

    async def peek() -> list[int]:
        messages = await stage.app.broker.queue(stage.queue).peek(32)
        return [each.dequeue_count - decode(each.body, message_id=each.id).releases for each in messages]

    return stage.app._portal.run(peek())


def lines_of(stage: Stage, job_ids: set[str], what: str = "start") -> list[Line]:
    return [line for line in stage.history.lines(what) if line["job"] in job_ids]


def wait_for_starts(stage: Stage, job_ids: set[str], each: int = 1) -> None:
    """Wait until each of the jobs was started so many times."""
    wait_until(lambda: len(lines_of(stage, job_ids)) == each * len(job_ids), what=f"{len(job_ids)} starts")


@pytest.mark.fault(5)
def test_sigterm_lets_running_jobs_end_and_takes_no_more(watched: Watched, fault: Fault) -> None:
    seconds = fault.scale(short=3.5, full=10.0)
    ways: list[tuple[str, ...]] = [("-c", "16"), ("-c", "5"), ("-p", "2", "-c", "3")]
    rounds = ways[: fault.scale(short=1, full=3)]
    drains = [_drain(watched, fault.random, seconds, options) for options in rounds]
    verdict = watched.stage.verdict()
    fault.did(f"rounds: {len(rounds)}, SIGTERM with four {seconds:g} s jobs; another is put 100 ms later")
    ran = watched.stage.history.count("end").total()
    fault.saw(
        f"{'; '.join(map(str, drains))}; the late job was left alone; "
        f"{ran} jobs ended, {verdict.executions.total() - ran} duplicates, exit code 0"
    )
    verdict.assert_clean()
    assert {"succeeded"} == {line["as"] for line in watched.stage.history.lines("settled")}
    assert 5 * len(rounds) == ran == verdict.executions.total()
    assert all(drain.noticed <= 0.1 + drain.starved for drain in drains)
    assert all(drain.last_get <= 0.1 + drain.starved for drain in drains)


@dataclass(frozen=True)
class Drain:
    """How soon a worker took no more, in seconds after the signal."""

    noticed: float
    last_get: float
    """0 if there was none."""
    starved: float
    """For how long until then the machine was too busy to let worker or proxy do anything."""

    def __str__(self) -> str:
        return f"noticed after {1000 * self.noticed:.0f} ms, last get after {1000 * self.last_get:.0f} ms"


def _drain(watched: Watched, random: Random, seconds: float, options: tuple[str, ...]) -> Drain:
    stage = watched.stage
    worker = stage.worker("--lease", "3", "--poll-max", "0.1s", *options)
    worker.wait_for("worker.started")
    running = {stage.enqueue(task, n, seconds).id for task in (jobs.rest, jobs.sleep_in_thread) for n in range(2)}
    wait_for_starts(stage, running)
    time.sleep(random.uniform(0, 0.2))
    threads = [*family(worker.process.pid), *([watched.proxy.thread_id] if watched.proxy else [])]
    starved_before = starved(*threads)
    signalled, stopped = datetime.now(UTC), stop(stage, worker)
    wait_until(lambda: len(worker.lines("worker.stopping")) == len(worker.lines("worker.started")), what="the stop")
    time.sleep(max(0.0, stopped + 0.1 - time.monotonic()))  # the bound
    starved_by = starved(*threads) - starved_before
    late = stage.enqueue(jobs.quick, 3)
    other = watched.unwatched_worker("--lease", "3")
    assert 0 == worker.wait(), worker.output
    wait_until(lambda: stage.remaining() == 0, what="the end of the late one")
    other.end()
    assert {other.process.pid} == {line["pid"] for line in lines_of(stage, {late.id})}
    noticed = max(datetime.fromisoformat(line["timestamp"]) for line in worker.lines("worker.stopping"))
    gets = [seen.at - stopped for seen in watched.seen("get") if seen.at > stopped]
    return Drain((noticed - signalled).total_seconds(), max(gets, default=0.0), starved_by)


@dataclass(frozen=True)
class Handover:
    """What became of running jobs when their worker was stopped; in seconds."""

    grace: float
    released: float
    """From the signal to the first release."""
    ended: float
    """From the signal to the end of the process."""
    again: float
    """From a release to the start elsewhere, at most."""
    starved: float
    """For how long until its end the machine was too busy to let the worker do anything."""

    def __str__(self) -> str:
        return (
            f"G {self.grace:.1f}: released at {self.released:.2f} s, exit at {self.ended:.2f} s, "
            f"started {self.again:.2f} s after its release"
        )


@pytest.mark.fault(6)
def test_a_long_job_is_released_when_the_grace_ends(stage: Stage, fault: Fault) -> None:
    """On the loop, in a thread, and in a child process."""
    graces = [2.0, *(fault.random.uniform(0, 6) for _ in range(fault.scale(short=0, full=5)))]
    handovers = [_outlast(stage, grace) for grace in graces]
    verdict = stage.verdict()
    fault.did(f"rounds: {len(graces)}, SIGTERM with 60 s handlers on the loop, in a thread and in a child process")
    fault.saw("; ".join(map(str, handovers)))
    verdict.assert_clean()
    assert {1} == {line["attempt"] for line in stage.history.lines()}
    assert all(each.grace <= each.released for each in handovers)
    assert all(each.ended <= each.grace + 2 + each.starved for each in handovers)
    assert all(each.again <= 2 for each in handovers)


def _outlast(stage: Stage, grace: float) -> Handover:
    options = ["-c", "3", "--lease", "60", "--grace", f"{grace:.3f}s"]
    worker = stage.worker(*options, app="stopping")
    tasks: list[Task[..., Any]] = [stopping.rest, stopping.turn_in_thread, stopping.rest_in_child]
    made = {stage.enqueue(task, n, 60.0).id for n, task in enumerate(tasks)}
    wait_for_starts(stage, made)
    other = stage.worker(*options, app="stopping")
    stage.enqueue(stopping.rest_in_child, 3, 0.0)  # so that it has a child process, as a worker has
    other.wait_for("job.succeeded")
    starved_before = starved(worker.process.pid)
    stopped = stop(stage, worker)
    starved_by = starved_at_the_end(worker) - starved_before
    ended = ended_at(stage, worker) - stopped
    assert 0 == worker.wait(), worker.output
    wait_for_starts(stage, made, each=2)
    stage.verdict()
    other.end()
    released = {line["job"]: line["at"] for line in lines_of(stage, made, "settled") if line["as"] == "released"}
    again = {line["job"]: line["at"] for line in lines_of(stage, made)}  # the later of the two
    assert made == {*released}
    waits = [again[job] - released[job] for job in made]
    return Handover(grace, min(released.values()) - stopped, ended, max(waits), starved_by)


@pytest.mark.fault(7)
def test_what_waits_for_a_slot_is_visible_again(sqlite_stage: Stage, fault: Fault) -> None:
    """After a rush of quick jobs a worker has taken a batch more than it has slots for."""
    stage, waits = sqlite_stage, []
    for _ in range(fault.scale(short=1, full=5)):
        stage.queue = f"q-{uuid4().hex[:12]}"  # what an earlier round left is leased for long
        stage.enqueue_many(jobs.quick, [(n,) for n in range(96)])
        running = {job.id for job in stage.enqueue_many(jobs.rest, [(n, 60.0) for n in range(32)])}
        waiting = {job.id for job in stage.enqueue_many(jobs.quick, [(n,) for n in range(32)])}
        worker = stage.worker("-c", "32", "--grace", "60s", "--lease", "60")
        wait_for_starts(stage, running)
        wait_until(lambda: not visible(stage), what="32 leased and not started")
        waits.append(until_visible(stage, stop(stage, worker)))
        worker.end()
        assert_elsewhere(stage, waiting)
    fault.did(f"rounds: {len(waits)}, SIGTERM with 32 jobs running and 32 waiting for their slots")
    fault.saw(f"32 visible after {max(waits):.2f} s at most, none of their attempts spent")
    assert max(waits) <= 2


@pytest.mark.fault(7)
def test_what_a_get_under_way_brings_is_visible_again(
    stage_on: MakeStage, azurite: Azurite, fault_proxy: FaultProxy, fault: Fault
) -> None:
    stage, delay, waits = stage_on(azurite.connection_string, fault_proxy.connection_string), 1.0, []
    fault_proxy.add(Rule(Delay(delay, before=False), on="get"))
    for _ in range(fault.scale(short=1, full=5)):
        waiting = {job.id for job in stage.enqueue_many(jobs.quick, [(n,) for n in range(32)])}
        earlier = len(fault_proxy.seen("get"))
        worker = stage.worker("-c", "32", "--lease", "60")
        get = wait_until(partial(full_get, fault_proxy, earlier), what="32 leased")
        stopped = stop(stage, worker)
        waits.append(until_visible(stage, max(stopped, get.at + delay)))
        assert 0 == worker.wait(), worker.output
        assert [] == lines_of(stage, waiting)
        assert_elsewhere(stage, waiting)
    fault.did(f"rounds: {len(waits)}, SIGTERM while the answer to a get is on its way, with 32 messages")
    fault.saw(f"32 visible {max(waits):.2f} s after they came at most, none of their attempts spent")
    stage.verdict().assert_clean()
    assert max(waits) <= 2


def full_get(proxy: FaultProxy, since: int) -> Seen | None:
    return next((seen for seen in proxy.seen("get")[since:] if len(seen.messages) == 32), None)


def until_visible(stage: Stage, moment: float) -> float:
    """Wait until 32 are visible, with no attempt spent, and return for how long they were not, in seconds."""
    wait_until(lambda: visible(stage) == [0] * 32, what="32 visible")
    return time.monotonic() - moment


def assert_elsewhere(stage: Stage, jobs: set[str]) -> None:
    """Have another worker do these, each as its first attempt."""
    other = stage.worker("--burst", "-c", "32", "--lease", "60", env={"QWORKER_BROKER": stage.url})
    assert 0 == other.wait(), other.output
    assert {(other.process.pid, 1)} == {(line["pid"], line["attempt"]) for line in lines_of(stage, jobs)}


@dataclass(frozen=True)
class Storm:
    """What five signals led to."""

    released: float
    """Seconds from the second signal to the last release."""
    ended: float
    """Seconds from the last signal to the end of the process."""


@pytest.mark.fault(8)
@pytest.mark.parametrize("processes", [1, 2])
def test_five_signals_in_half_a_second(stage: Stage, fault: Fault, processes: int) -> None:
    stage.enqueue_many(jobs.rest, [(n, 60.0) for n in range(4)])
    phases = fault.scale(short=["running"], full=["starting", "running", "draining"] * 10)
    storms = [_storm(stage, fault.random, processes, phase) for phase in phases]
    released, ended = (max(getattr(storm, what) for storm in storms) for what in ("released", "ended"))
    fault.did(f"storms: {len(storms)}, while it was {', '.join(dict.fromkeys(phases))}, with -p 1 and with -p 2")
    fault.saw(f"all released {released:.2f} s after the second signal, exit {ended:.2f} s after the last, at most")
    assert [0] * 4 == visible(stage)
    assert released <= 2
    assert ended <= 4


def _storm(stage: Stage, random: Random, processes: int, phase: str) -> Storm:
    started = len(stage.history.lines()) + 2 * processes
    worker = stage.worker("-p", str(processes), "-c", "2", "--grace", "30s", "--lease", "60")
    signals = [random.choice([signal.SIGTERM, signal.SIGINT]) for _ in range(5)]
    if phase == "starting":
        time.sleep(random.uniform(0, 0.8))
    else:
        wait_until(lambda: len(stage.history.lines()) >= started, what="the starts")
    sent = [_send(worker, signals.pop())]
    if phase == "draining":
        worker.wait_for("worker.stopping")
    for moment in sorted(sent[0] + random.uniform(0, 0.5) for _ in signals):
        time.sleep(max(0.0, moment - time.monotonic()))
        sent.append(_send(worker, signals.pop()))
    ended = ended_at(stage, worker)
    # Before any code of it has run, a signal ends it by itself.
    may_be_killed = {-signal.SIGTERM, -signal.SIGINT, 130} if not worker.output.startswith("{") else set()
    if worker.output.startswith("Fatal Python error: init_"):  # by a SIGINT while Python itself was starting
        may_be_killed.add(1)
    assert worker.wait() in {0, *may_be_killed}, worker.output
    assert [0] * 4 == visible(stage)
    released = [line["at"] for line in stage.history.lines("settled") if line["at"] >= sent[0]]
    return Storm(max(released, default=sent[1]) - sent[1], ended - sent[-1])


def _send(worker: WorkerProcess, number: signal.Signals) -> float:
    worker.send(number)
    return time.monotonic()


@pytest.mark.fault(9)
def test_handlers_that_will_not_stop_end_with_their_process(stage: Stage, fault: Fault) -> None:
    """Coroutine and thread that swallow what should stop them, a thread in C code; a loop that is blocked."""
    grace, lease = 0.5, 2
    stubborn: list[list[Task[..., Any]]] = [
        [stopping.swallow, stopping.swallow_in_thread, stopping.sleep_in_thread],
        [stopping.block],
        *([[stopping.burn]] if fault.full else []),
    ]
    options = ["--grace", f"{grace}s", "--lease", str(lease)]
    victims = []
    for tasks in stubborn:
        victims.append(stage.worker("-c", str(len(tasks)), *options, app="stopping"))
        made = {stage.enqueue(task, n).id for n, task in enumerate(tasks)}
        wait_for_starts(stage, made)
    stage.worker("--lease", str(lease), app="stopping").wait_for("worker.started")
    stopped = {victim.process.pid: stop(stage, victim) for victim in victims}
    died = {victim.process.pid: ended_at(stage, victim) for victim in victims}
    verdict = stage.verdict()
    took = max(died[pid] - stopped[pid] for pid in died)
    first, again = ({line["job"]: line for line in stage.history.lines() if line["attempt"] == n} for n in (1, 2))
    waits = [again[job]["at"] - died[first[job]["pid"]] for job in first]
    fault.did("cancellation swallowed on the loop and in a thread, a thread in C code, a blocked loop")
    fault.saw(f"ended {took:.2f} s after the signal, G = {grace}; again {max(waits):.2f} s after that, L = {lease}")
    verdict.assert_clean()
    assert took <= grace + 4
    assert max(waits) <= lease + 2
    assert dict.fromkeys(first, 2) == verdict.executions
