"""Fault 11: a worker that stood still for longer than its leases last touches nothing of what is another's by now."""

import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

import freezing
from fault_report import Fault
from proc import family
from qworker.task import Task
from stage import Stage, WorkerProcess
from waiting import wait_until
from watched import Watched

LEASE: Final = 2
TASKS: Final[list[Task[..., Any]]] = [freezing.on_loop, freezing.in_thread, freezing.in_child]


@pytest.mark.fault(11)
def test_a_frozen_worker_deletes_nothing_that_it_lost(watched: Watched, fault: Fault, tmp_path: Path) -> None:
    """Supervisor, workers and their children; what they had runs elsewhere when they go on."""
    stage, done = watched.stage, tmp_path / "done"
    worker = start(stage, done, "-p", "2", "-c", "2")
    # The first is told that it lost its lease; the handlers of the others have ended before their worker can know.
    made: set[str] = set()
    for task, seconds in (
        (freezing.on_loop, 60),
        (freezing.in_child, 2),
        (freezing.in_thread, 2),
        (freezing.on_loop, 2),
    ):
        made.add(stage.enqueue(task, len(made), float(seconds * LEASE)).id)
        wait_until(lambda: len(stage.history.lines()) == len(made), what="its start")
    with frozen(stage, family(worker.process.pid)):
        began = time.monotonic()
        other = start(stage, done, "-c", "8")
        wait_until(lambda: len(stage.history.lines()) == 2 * len(made), what="the starts elsewhere")
        time.sleep(max(0.0, began + 3 * LEASE - time.monotonic()))
    wait_until(lambda: settled(stage)["lost"] == len(made), what="the loss of all")
    left = stage.remaining()
    done.touch()
    wait_until(lambda: settled(stage)["succeeded"] == len(made), what="the end of all")
    stage.verdict().assert_clean()
    assert len(made) == left
    assert {other.process.pid} == {line["pid"] for line in stage.history.lines("settled") if line["as"] == "succeeded"}

    rounds = fault.scale(short=0, full=10)
    for _ in range(rounds):
        freeze_some(stage, worker, fault.random)
    verdict = stage.verdict()
    executions = Counter(verdict.executions.values())
    fault.did("supervisor, two workers and their children frozen for 3 L")
    fault.did(f"random ones of them frozen for 0.5 L to 3 L, rounds: {rounds}")
    fault.saw(
        f"{left} of {len(made)} messages still there after all leases were lost; "
        f"of {executions.total()} jobs, {executions[2]} were executed twice, none more often"
    )
    verdict.assert_clean()
    assert {*executions} <= {1, 2}
    assert_each_settled_once_by_its_last(watched)
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output


def freeze_some(stage: Stage, worker: WorkerProcess, random: Random) -> None:
    """Let jobs run, all processes of a worker stand still, or one and its children, and all jobs end."""
    one = int(random.choice(worker.lines("worker.started"))["worker"].rpartition(":")[2])
    calls = [(n, random.uniform(0, 2 * LEASE)) for n in range(12)]
    started = len(stage.history.lines())
    for task in TASKS:
        stage.enqueue_many(task, random.sample(calls, 4))
    wait_until(lambda: len(stage.history.lines()) > started, what="a start")
    time.sleep(random.uniform(0, LEASE))
    with frozen(stage, family(random.choice([worker.process.pid, one]))):
        time.sleep(random.uniform(0.5, 3) * LEASE)
    enqueued = {line["job"] for line in stage.history.lines("enqueued")}
    wait_until(lambda: ended(stage).keys() == enqueued and not stage.remaining(), what="the end of all")


def ended(stage: Stage) -> dict[str, int]:
    """Return who settled each job. Where a freeze took the answer to its delete, it could not say that it succeeded."""
    lines = stage.history.lines("settled")
    by_now: dict[str, int] = {}
    for kind in ("failed", "succeeded"):
        by_now |= {line["job"]: line["pid"] for line in lines if line["as"] == kind}
    return by_now


def settled(stage: Stage) -> Counter[str]:
    return Counter(line["as"] for line in stage.history.lines("settled"))


def start(stage: Stage, done: Path, *options: str) -> WorkerProcess:
    worker = stage.worker("--lease", str(LEASE), *options, app="freezing", env={"DONE": str(done)})
    worker.wait_for("worker.started")
    return worker


@contextmanager
def frozen(stage: Stage, pids: Iterable[int]) -> Iterator[None]:
    """Stop processes for the block."""
    pids = [*pids]
    try:
        for pid in pids:
            stage.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # a child whose worker went on before it, and ended it
                stage.kill(pid, signal.SIGCONT)


def assert_each_settled_once_by_its_last(watched: Watched) -> None:
    """Whoever executed a job last has settled it, once, and nobody else asked for the deletion of its message."""
    history = watched.stage.history
    last = {line["job"]: line.get("worker", line["pid"]) for line in history.lines()}
    assert last == ended(watched.stage)
    succeeded = Counter(line["job"] for line in history.lines("settled") if line["as"] == "succeeded")
    assert {*succeeded.values()} == {1}
    if watched.proxy:
        delivered = {message for seen in watched.seen("get") for message in seen.ids}
        deleted = Counter(seen.message_id for seen in watched.seen("delete") if seen.message_id in delivered)
        assert dict.fromkeys(delivered, 1) == deleted
