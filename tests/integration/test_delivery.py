"""At least once, whatever happens: real worker processes, really killed."""

import asyncio
import itertools
import json
import random
import signal
from collections import Counter
from collections.abc import Callable

import jobs
from fault_proxy import FaultProxy
from qworker.poison.record import decode_poison
from stage import Stage
from waiting import wait_until

LEASE = 3
NOBODYS = "00000000-0000-0000-0000-000000000000"
"""A message that no queue has."""


async def test_a_thousand_jobs_on_two_processes_take_few_gets(
    fault_proxy: FaultProxy,
    stage_on: Callable[[str], Stage],
) -> None:
    """Each runs exactly once; at most one get for 16 jobs; each message is deleted once."""
    stage = stage_on(fault_proxy.connection_string)
    await jobs.quick.using(queue=stage.queue).aenqueue_many([(n,) for n in range(1000)])
    worker = await asyncio.to_thread(stage.worker, "-p", "2", "--poll-max", "2s")

    def of_jobs(operation: str) -> int:
        """Count what was not a worker's question, at its start, whether it may."""
        return sum(seen.message_id != NOBODYS for seen in fault_proxy.seen(operation))

    await asyncio.to_thread(wait_until, lambda: of_jobs("delete") >= 1000, what="1,000 deletes")
    gets = fault_proxy.requests["get"]
    worker.send(signal.SIGTERM)
    code = await asyncio.to_thread(worker.wait)
    await jobs.app.aclose()

    assert 0 == code, worker.output
    assert Counter(dict.fromkeys(range(1000), 1)) == stage.history.count()
    assert 2 == len({line["pid"] for line in stage.history.lines()})
    assert gets <= 1000 / 16
    assert 1000 == of_jobs("delete")
    assert 0 == of_jobs("update")
    assert 0 == await asyncio.to_thread(stage.remaining)
    assert [] == await asyncio.to_thread(stage.poisoned)


def test_a_worker_killed_in_the_middle_loses_nothing(stage: Stage) -> None:
    """Those in flight at the kill run again within lease + 2 s."""
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201 — pytest shows it on failure
    jobs.rest.using(queue=stage.queue).enqueue_many([(n, 0.05) for n in range(200)])
    victim = stage.worker("--lease", str(LEASE), "-c", "8")
    until = random.Random(seed).randrange(40, 120)
    wait_until(lambda: len(stage.history.lines()) >= until, what="the middle")
    victim.process.kill()
    victim.wait()
    started, ended = stage.history.count(), stage.history.count("end")
    killed_at = max(line["at"] for line in stage.history.lines())
    interrupted = {n for n in started if not ended[n]}
    survivor = stage.worker("--lease", str(LEASE), "-c", "8")
    wait_until(lambda: stage.remaining() == 0, what="an empty queue")

    assert set(range(200)) == set(stage.history.count("end"))
    again = [line for line in stage.history.lines() if line["n"] in interrupted and line["at"] > killed_at]
    assert interrupted == {line["n"] for line in again}
    assert max((line["at"] for line in again), default=killed_at) <= killed_at + LEASE + 2
    # Whatever ran twice was in the victim's hands: running, or finished and not yet deleted.
    twice = {n for n, times in stage.history.count().items() if times > 1}
    assert all(stage.history.count()[n] == 2 for n in twice)
    survivor.send(signal.SIGTERM)
    assert 0 == survivor.wait(), survivor.output


def test_sigterm_under_load_loses_nothing_and_spends_no_attempt(stage: Stage) -> None:
    """What was leased and not started begins elsewhere within 2 s, as the same attempt."""
    first = stage.worker("-c", "4", "--lease", "30")
    first.wait_for("worker.started")
    jobs.rest.using(queue=stage.queue).enqueue_many([(n, 0.2) for n in range(60)])
    wait_until(lambda: len(stage.history.lines()) >= 12, what="load")
    second = stage.worker("-c", "16", "--lease", "30")
    second.wait_for("worker.started")
    first.send(signal.SIGTERM)
    assert 0 == first.wait(), first.output
    wait_until(lambda: stage.remaining() == 0, what="an empty queue")

    assert Counter(dict.fromkeys(range(60), 1)) == stage.history.count("end")
    assert {1} == {line["attempt"] for line in stage.history.lines()}
    released = {line["job"] for line in first.lines("job.released")}
    stopped_at = max(line["at"] for line in stage.history.lines() if line["pid"] == first.process.pid)
    starts = [line["at"] for line in stage.history.lines() if line["job"] in released]
    assert all(at < stopped_at + 2 + 2 for at in starts)


def test_a_long_job_is_released_at_the_end_of_the_grace(stage: Stage) -> None:
    first = stage.worker("--grace", "1s", "--lease", "30")
    jobs.rest.using(queue=stage.queue).enqueue(1, 5.0)
    wait_until(stage.history.lines, what="the start")
    first.send(signal.SIGTERM)
    assert 0 == first.wait(within=1 + 4), first.output
    assert ["jobs.rest"] == [line["task"] for line in first.lines("job.released")]

    second = stage.worker("--lease", "30")
    wait_until(lambda: stage.history.count("end")[1], what="its end elsewhere")
    assert [1, 1] == [line["attempt"] for line in stage.history.lines()]
    second.send(signal.SIGTERM)
    assert 0 == second.wait(), second.output


def test_a_failing_job_reappears_as_the_same_message_and_ends_in_the_poison_queue(stage: Stage) -> None:
    job = jobs.fail.using(queue=stage.queue).enqueue(7)
    worker = stage.worker()
    poisoned = worker.wait_for("job.poisoned")

    assert ["1/3", "2/3"] == [line["attempt"] for line in worker.lines("job.retried")]
    assert [1, 2, 3] == [line["attempt"] for line in stage.history.lines()]
    assert {job.id} == {line["job"] for line in stage.history.lines()}
    starts = [line["at"] for line in stage.history.lines()]
    assert all(later - earlier >= 0.95 for earlier, later in itertools.pairwise(starts))
    assert (job.id, 3, f"{stage.queue}-poison") == (poisoned["job"], poisoned["attempt"], poisoned["moved_to"])
    record = decode_poison(stage.poisoned()[0])
    assert ("ValueError", "no 7", 3, stage.queue) == (
        record.failure.type,
        record.failure.message,
        record.attempts,
        record.queue,
    )
    assert "raise ValueError" in record.failure.traceback
    assert job.id == json.loads(record.body)["id"]
    assert 0 == stage.remaining()


def test_a_rejected_job_is_poisoned_at_once(stage: Stage) -> None:
    jobs.reject.using(queue=stage.queue).enqueue(1)
    worker = stage.worker("--burst")
    assert 0 == worker.wait(), worker.output
    assert 1 == len(stage.history.lines())
    assert "Reject" == decode_poison(stage.poisoned()[0]).failure.type


def test_a_bad_message_among_32_disturbs_none_of_its_neighbours(stage: Stage) -> None:
    async def put_bad() -> None:
        await stage.app.broker.create_queue(stage.queue)
        await stage.app.broker.queue(stage.queue).put("this is no job")

    stage.app._portal.run(put_bad())
    jobs.quick.using(queue=stage.queue).enqueue_many([(n,) for n in range(31)])
    worker = stage.worker("--burst", "-c", "32")
    assert 0 == worker.wait(), worker.output
    assert Counter(dict.fromkeys(range(31), 1)) == stage.history.count()
    record = decode_poison(stage.poisoned()[0])
    assert ("this is no job", 1) == (record.body, record.attempts)
    assert "neither a JSON object nor Base64" in record.failure.message


def test_a_snoozed_job_spends_no_attempt(stage: Stage) -> None:
    jobs.snooze_once.using(queue=stage.queue).enqueue(1)
    stage.worker()
    wait_until(lambda: stage.history.count("end")[1], what="the end")
    assert [1, 1] == [line["attempt"] for line in stage.history.lines()]


def test_a_job_that_kills_its_worker_is_poisoned_and_its_neighbours_finish(stage: Stage) -> None:
    jobs.crash.using(queue=stage.queue).enqueue(0)
    jobs.quick.using(queue=stage.queue).enqueue_many([(n,) for n in range(1, 21)])
    worker = stage.worker("-p", "2", "--lease", "2")
    wait_until(lambda: len(stage.poisoned()) == 1, what="the poisoned job")
    wait_until(lambda: stage.remaining() == 0, what="an empty queue")

    assert 2 == stage.history.count()[0]
    assert set(range(21)) == set(stage.history.count())
    record = decode_poison(stage.poisoned()[0])
    assert ("jobs.crash", "WorkerLost") == (record.task, record.failure.type)
    assert {"exit code 7"} == {line["how"] for line in worker.lines("process.died")}
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
