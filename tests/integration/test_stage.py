"""What the tests of faults rely on finds what is wrong with real workers, too."""

import pytest

import jobs
from qworker.brokers.base import Queue
from stage import Stage
from waiting import wait_until


def test_all_jobs_in_the_poison_queue_are_found_again_and_again(stage: Stage) -> None:
    made = stage.enqueue_many(jobs.reject, [(n,) for n in range(40)])
    worker = stage.worker("--burst")
    assert 0 == worker.wait(), worker.output
    for _ in range(2):
        assert {job.id: 1 for job in made} == stage.poisoned_jobs()
    stage.verdict().assert_clean(poisoned=40)


def test_a_job_whose_message_is_taken_away_is_lost(stage: Stage) -> None:
    async def take_away(queue: Queue) -> None:
        [message] = await queue.get(1, visibility=5)
        await queue.delete(message.id, message.receipt)

    job = stage.enqueue(jobs.quick, 1)
    stage.app._portal.run(take_away(stage.app.broker.queue(stage.queue)))
    verdict = stage.verdict()
    assert {job.id} == verdict.lost
    with pytest.raises(AssertionError, match=f'job {job.id}: lost\n    .*"enqueued"'):
        verdict.assert_clean()


def test_a_job_that_is_put_twice_is_executed_twice_without_a_reason(stage: Stage) -> None:
    async def put_again(queue: Queue) -> None:
        [message] = await queue.peek()
        await queue.put(message.body)

    job = stage.enqueue(jobs.quick, 1)
    stage.app._portal.run(put_again(stage.app.broker.queue(stage.queue)))
    worker = stage.worker("--burst")
    assert 0 == worker.wait(), worker.output
    assert {job.id} == stage.verdict().unexplained
    stage.history.note("replayed", job=job.id)
    stage.verdict().assert_clean()


def test_a_job_interrupted_by_a_kill_is_recovered(stage: Stage) -> None:
    for worker in (stage.worker("--lease", "2"), stage.worker("--lease", "2")):
        worker.wait_for("worker.started")
    job = stage.enqueue(jobs.rest, 1, 2.0)
    wait_until(lambda: stage.history.count()[1], what="the start")
    stage.kill(stage.history.lines()[0]["pid"])
    verdict = stage.verdict()
    verdict.assert_clean()
    assert [(job.id, "killed")] == [(again.job, again.reason) for again in verdict.recovered]
    assert 0 < verdict.slowest_recovery


def test_an_attempt_that_is_released_at_a_stop_is_followed_by_its_like(stage: Stage) -> None:
    job = stage.enqueue(jobs.rest, 1, 1.5)
    first = stage.worker("--grace", "0.2s")
    wait_until(lambda: stage.history.count()[1], what="the start")
    first.process.terminate()
    assert 0 == first.wait(), first.output
    stage.worker()
    verdict = stage.verdict()
    verdict.assert_clean()
    assert (2, ()) == (verdict.executions[job.id], verdict.recovered)
    assert ["released", "succeeded"] == [line["as"] for line in stage.history.lines("settled")]
