"""Both event loops that a worker may run on; most other tests have asyncio's, and pass with TEST_LOOP=uvloop too."""

import os
import signal
from time import monotonic

import pytest

import jobs
import looping
import nesting
import nesting_late
from stage import Stage
from waiting import wait_until

both = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@pytest.mark.parametrize(("setting", "loop"), [("asyncio", "asyncio"), ("uvloop", "uvloop"), ("auto", "uvloop")])
def test_handlers_run_on_the_loop_that_was_asked_for(sqlite_stage: Stage, setting: str, loop: str) -> None:
    looping.app.use_broker(sqlite_stage.url)
    looping.which.using(queue=sqlite_stage.queue).enqueue()
    looping.app.close()
    worker = sqlite_stage.worker("--burst", app="looping", env={"QWORKER_LOOP": setting})
    assert 0 == worker.wait(), worker.output
    assert [loop] == [line["module"] for line in worker.lines("which")]


def test_a_loop_that_is_not_installed_is_one_line(sqlite_stage: Stage) -> None:
    (sqlite_stage.folder / "uvloop.py").write_text("raise ImportError('not here')")
    path = f"{sqlite_stage.folder}{os.pathsep}{sqlite_stage.env()['PYTHONPATH']}"
    worker = sqlite_stage.worker(env={"QWORKER_LOOP": "uvloop", "PYTHONPATH": path})
    assert 2 == worker.wait(), worker.output
    assert 1 == worker.output.count("\n")
    assert "uvloop is not installed: pip install 'qworker-azure[uvloop]'" in worker.output


def test_an_app_that_imports_nest_asyncio_gets_a_loop_that_it_can_patch(sqlite_stage: Stage) -> None:
    sqlite_stage.enqueue(nesting.nest)
    worker = sqlite_stage.worker("--burst", app="nesting", env={"QWORKER_LOOP": "auto"})
    assert 0 == worker.wait(), worker.output
    assert [5] == [line["got"] for line in worker.lines("nested")]


def test_an_error_of_a_late_nest_asyncio_says_how_it_would_work(sqlite_stage: Stage) -> None:
    sqlite_stage.enqueue(nesting_late.nest)
    worker = sqlite_stage.worker("--burst", app="nesting_late", env={"QWORKER_LOOP": "auto"})
    assert 0 == worker.wait(), worker.output
    [poisoned] = worker.lines("job.poisoned")
    assert poisoned["error"].startswith("ValueError: Can't patch loop of type <class 'uvloop.")
    assert poisoned["error"].endswith(": give the worker a loop that can be patched, by --loop asyncio")


@both
def test_a_stop_waits_for_what_runs_and_a_second_one_does_not(stage: Stage, loop: str) -> None:
    for n in range(4):
        stage.enqueue(jobs.rest, n, 60.0)
    worker = stage.worker("-c", "2", env={"QWORKER_LOOP": loop})
    wait_until(lambda: len(stage.history.lines()) >= 2, what="two starts")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("worker.stopping")
    began = monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    assert monotonic() - began < 20
    assert not worker.lines("job.succeeded")


@both
def test_a_blocked_loop_is_told_of(sqlite_stage: Stage, loop: str) -> None:
    looping.app.use_broker(sqlite_stage.url)
    looping.block.using(queue=sqlite_stage.queue).enqueue()
    looping.app.close()
    worker = sqlite_stage.worker("--burst", app="looping", env={"QWORKER_LOOP": loop})
    assert 0 == worker.wait(), worker.output
    assert {"looping.block"} == {line["task"] for line in worker.lines("loop.blocked")}
