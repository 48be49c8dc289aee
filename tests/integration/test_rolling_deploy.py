"""Two versions of an app at work on one queue, while the older is replaced by the newer, worker by worker."""

import signal
from itertools import count

import jobs
import newer
from stage import Stage
from waiting import wait_until

WORKERS = 2


def test_a_task_that_only_the_newer_version_knows_loses_nothing(stage: Stage) -> None:
    """The older workers leave its jobs to be tried again, with a backoff; the newer ones have them then."""
    numbers = count()

    def enqueue_some() -> None:
        for task in (jobs.quick, newer.added):
            stage.enqueue_many(task, [(next(numbers),) for _ in range(20)])

    older = [stage.worker("-c", "4") for _ in range(WORKERS)]
    for worker in older:
        worker.wait_for("worker.started")
    enqueue_some()  # the producers are the first to be newer
    wait_until(
        lambda: any(worker.lines("task.unknown") for worker in older), what="a job that the older ones don't know"
    )
    for worker in older:
        stage.worker("-c", "4", app="newer").wait_for("worker.started")
        enqueue_some()
        stage.kill(worker, signal.SIGTERM)
        enqueue_some()
        assert 0 == worker.wait()

    verdict = stage.verdict()
    verdict.assert_clean()
    assert {1} == set(verdict.executions.values())
    unknown = [line for worker in older for line in worker.lines("task.unknown")]
    assert ["newer.added"] * len(unknown) == [line["task"] for line in unknown]
    assert len(unknown) <= WORKERS, "each says it once"
    assert [] == [line for worker in older for line in worker.lines("job.retried")]
