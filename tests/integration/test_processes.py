"""The worker as a process: signals, supervision, reload, stuck handlers."""

import os
import signal
import textwrap
import time
from pathlib import Path

import pytest

import jobs
from stage import Stage, WorkerProcess, wait_until


def _children(stage: Stage, worker: WorkerProcess, count: int) -> set[int]:
    started = wait_until(
        lambda: (lines := worker.lines("worker.started")) and len(lines) >= count and lines,
        what=f"{count} started workers",
    )
    return {int(line["worker"].rpartition(":")[2]) for line in started}


def test_a_child_that_dies_is_replaced(sqlite_stage: Stage) -> None:
    worker = sqlite_stage.worker("-p", "2")
    first = _children(sqlite_stage, worker, 2)
    os.kill(min(first), signal.SIGKILL)
    assert "killed by SIGKILL" == worker.wait_for("process.died")["how"]
    assert 3 == len(_children(sqlite_stage, worker, 3))
    jobs.quick.using(queue=sqlite_stage.queue).enqueue(1)
    wait_until(sqlite_stage.history.lines, what="a job on what is left")
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    assert 2 == len(worker.lines("worker.stopped"))


def test_children_end_when_their_supervisor_is_killed(sqlite_stage: Stage) -> None:
    worker = sqlite_stage.worker("-p", "2")
    children = _children(sqlite_stage, worker, 2)
    worker.process.kill()
    wait_until(lambda: len(worker.lines("worker.stopped")) == 2, what="the end of both")
    assert {"its supervisor is gone"} == {line["reason"] for line in worker.lines("worker.stopping")}
    wait_until(lambda: not any(_is_alive(pid) for pid in children), what="no process left")


def test_ctrl_c_reaches_the_supervisor_alone(sqlite_stage: Stage) -> None:
    worker = sqlite_stage.worker("-p", "2")
    children = _children(sqlite_stage, worker, 2)
    assert all(os.getpgid(pid) != os.getpgid(worker.process.pid) for pid in children)
    worker.send(signal.SIGINT)
    assert 0 == worker.wait(), worker.output
    assert {"SIGTERM"} == {line["reason"] for line in worker.lines("worker.stopping")}


def test_a_mistake_in_the_app_ends_the_supervisor_at_once(sqlite_stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_like_this\n")
    worker = WorkerProcess(["broken", "-p", "2", "--log-format", "json"], sqlite_stage.env(), tmp_path)
    assert 2 == worker.wait(), worker.output
    assert "module 'broken' can't be imported" in worker.output
    assert "Traceback" not in worker.output


def test_after_max_jobs_another_process_takes_over(sqlite_stage: Stage) -> None:
    jobs.quick.using(queue=sqlite_stage.queue).enqueue_many([(n,) for n in range(12)])
    worker = sqlite_stage.worker("-p", "2", "--max-jobs", "3", "-c", "1")
    wait_until(lambda: sqlite_stage.remaining() == 0, what="an empty queue")
    assert list(range(12)) == sorted(sqlite_stage.history.count().elements())
    assert 4 <= len({line["pid"] for line in sqlite_stage.history.lines()})
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    assert [] == worker.lines("process.died")


def test_the_second_signal_releases_at_once(stage: Stage) -> None:
    jobs.rest.using(queue=stage.queue).enqueue(1, 60.0)
    worker = stage.worker("--grace", "60s")
    wait_until(stage.history.lines, what="the start")
    for number in (signal.SIGTERM, signal.SIGINT):
        worker.send(number)
    assert 0 == worker.wait(within=5), worker.output
    assert ["jobs.rest"] == [line["task"] for line in worker.lines("job.released")]
    assert 1 == stage.remaining()


@pytest.mark.parametrize("task", ["ignore_cancel", "sleep_in_thread"])
def test_a_handler_that_will_not_stop_does_not_hold_the_process(sqlite_stage: Stage, task: str) -> None:
    arguments = (1,) if task == "ignore_cancel" else (1, 30.0)
    getattr(jobs, task).using(queue=sqlite_stage.queue).enqueue(*arguments)
    # Not measured: traced, CPython 3.11 stands still while an exception waits for a thread that is in C code.
    worker = sqlite_stage.worker("--grace", "0.5s", "--lease", "2", env={"COVERAGE_PROCESS_CONFIG": ""})
    wait_until(sqlite_stage.history.lines, what="the start")
    worker.send(signal.SIGTERM)
    asked = time.monotonic()
    worker.wait(within=30)
    assert time.monotonic() - asked < 0.5 + 4
    assert worker.lines("job.stuck")
    assert 1 == sqlite_stage.remaining()


def test_it_reloads_when_a_source_file_changes(sqlite_stage: Stage, tmp_path: Path) -> None:
    source = """
        from qworker import App
        app = App()
        @app.task(name="say")
        async def say() -> None:
            print({word!r}, flush=True)
    """
    module = tmp_path / "reloaded.py"
    module.write_text(textwrap.dedent(source.format(word="before")))
    options = ["reloaded", "--reload", "--log-format", "json", "--poll-max", "0.1s"]
    worker = WorkerProcess(options, sqlite_stage.env(), tmp_path)
    try:
        worker.wait_for("worker.started")
        module.write_text(textwrap.dedent(source.format(word="after, and longer")))
        assert "reloaded.py" in worker.wait_for("reloading")["files"]
        wait_until(lambda: len(worker.lines("worker.started")) == 2, what="the new worker")
        worker.send(signal.SIGTERM)
        assert 0 == worker.wait(), worker.output
    finally:
        worker.end()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("task", ["exit_in_subtask", "cancel_itself"])
def test_a_handler_that_ends_or_cancels_by_mistake_is_one_failed_attempt(sqlite_stage: Stage, task: str) -> None:
    getattr(jobs, task).using(queue=sqlite_stage.queue).enqueue(1)
    jobs.rest.using(queue=sqlite_stage.queue).enqueue(2, 0.5)
    worker = sqlite_stage.worker()
    poisoned = worker.wait_for("job.poisoned")
    wait_until(lambda: sqlite_stage.history.count("end")[2], what="the end of its neighbour")
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    assert (f"jobs.{task}", 2) == (poisoned["task"], poisoned["attempt"])
    assert {1: 2, 2: 1} == sqlite_stage.history.count()


def test_sigterm_ends_a_worker_whose_loop_is_blocked(sqlite_stage: Stage) -> None:
    jobs.block.using(queue=sqlite_stage.queue).enqueue(1, 60.0)
    worker = sqlite_stage.worker("--grace", "0.5s")
    wait_until(sqlite_stage.history.lines, what="the start")
    asked = time.monotonic()
    worker.send(signal.SIGTERM)
    assert 1 == worker.wait(within=30)
    assert time.monotonic() - asked < 0.5 + 5
    assert 1 == sqlite_stage.remaining()


def test_after_max_jobs_a_handler_that_will_not_stop_does_not_hold_the_process(sqlite_stage: Stage) -> None:
    jobs.ignore_cancel.using(queue=sqlite_stage.queue).enqueue(1)
    worker = sqlite_stage.worker("--max-jobs", "1", "--grace", "0.5s")
    assert 1 == worker.wait(within=30)


def test_a_signal_to_every_process_of_the_service_is_one_signal(sqlite_stage: Stage) -> None:
    """As systemd sends it: the supervisor gets one, its children too, and theirs again from the supervisor."""
    jobs.rest.using(queue=sqlite_stage.queue).enqueue(1, 2.0)
    worker = sqlite_stage.worker("-p", "2")
    children = _children(sqlite_stage, worker, 2)
    wait_until(sqlite_stage.history.lines, what="the start")
    for pid in (*children, worker.process.pid):
        os.kill(pid, signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    assert {1: 1} == sqlite_stage.history.count("end")
    assert [] == worker.lines("job.released")
