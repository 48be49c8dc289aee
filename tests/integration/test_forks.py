"""Handlers that fork: the child is no worker, whatever it does."""

import signal

import pytest

import jobs
from stage import Stage, wait_until

_ENDED, _ITS_OWN_CODE = 1, 7


@pytest.mark.parametrize(
    ("task", "then", "code"),
    [
        *[("fork_on_loop", then, _ENDED) for then in ("return", "raise", "wait", "checkpoint")],
        *[("fork_in_thread", then, _ENDED) for then in ("return", "raise", "checkpoint")],
        ("fork_in_process", "return", _ENDED),
        *[(task, "exit", _ITS_OWN_CODE) for task in ("fork_on_loop", "fork_in_thread", "fork_in_process")],
    ],
)
def test_a_child_that_comes_back_from_its_handler_is_ended(stage: Stage, task: str, then: str, code: int) -> None:
    sending = jobs.app.get_task(f"jobs.{task}").using(queue=stage.queue)
    sending.enqueue(1, then)
    neighbours = [jobs.quick.using(queue=stage.queue).enqueue(n) for n in range(100, 120)]
    worker = stage.worker("-c", "4")
    wait_until(lambda: len(worker.lines("job.succeeded")) == 1 + len(neighbours), what="success of all")
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    assert 1 == stage.history.count()[1]
    assert 1 == stage.history.count("end")[code]
    assert 0 == stage.remaining()
    assert (code == _ENDED) == ("came back from it, and was ended" in worker.output)


def test_a_child_ends_when_it_is_told_to(sqlite_stage: Stage) -> None:
    jobs.fork_and_terminate.using(queue=sqlite_stage.queue).enqueue(1)
    worker = sqlite_stage.worker("--burst")
    assert 0 == worker.wait(), worker.output
    assert 1 == sqlite_stage.history.count("end")[1]
