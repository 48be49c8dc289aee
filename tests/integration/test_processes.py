"""The worker as a process: signals, supervision, reload, stuck handlers."""

import os
import signal
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import jobs
import lingering
from stage import Stage, WorkerProcess
from waiting import wait_until


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
    assert {"its supervisor has ended"} == {line["reason"] for line in worker.lines("worker.stopping")}
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


def test_a_burst_of_several_processes_goes_on_after_max_jobs(sqlite_stage: Stage) -> None:
    jobs.quick.using(queue=sqlite_stage.queue).enqueue_many([(n,) for n in range(10)])
    worker = sqlite_stage.worker("--burst", "--max-jobs", "3", "-p", "2", "-c", "1")
    assert 0 == worker.wait(), worker.output
    assert dict.fromkeys(range(10), 1) == sqlite_stage.history.count()
    assert [] == worker.lines("process.died")


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
    return _state(pid) != "Z"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


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


def test_a_second_signal_hurries_workers_that_have_not_seen_the_first(sqlite_stage: Stage) -> None:
    """They were too busy: both reach them at once."""
    jobs.rest.using(queue=sqlite_stage.queue).enqueue_many([(n, 60.0) for n in range(2)])
    worker = sqlite_stage.worker("-p", "2", "-c", "1", "--grace", "60s")
    children = _children(sqlite_stage, worker, 2)
    wait_until(lambda: len(sqlite_stage.history.lines()) == 2, what="the starts")
    with _frozen(children):
        for number in (signal.SIGTERM, signal.SIGINT):
            worker.send(number)
        wait_until(lambda: all(_pending(pid, signal.SIGTERM) for pid in children), what="their first signal")
    assert 0 == worker.wait(within=30), worker.output
    assert 2 == len(worker.lines("job.released"))


@contextmanager
def _frozen(pids: set[int]) -> Iterator[None]:
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: {_state(pid) for pid in pids} == {"T"}, what="their standstill")
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _pending(pid: int, number: signal.Signals) -> bool:
    """Say whether a signal waits for a process to look at it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_what_is_to_be_done_at_exit_is_done_though_a_thread_takes_its_time_to_end(sqlite_stage: Stage) -> None:
    sqlite_stage.enqueue(lingering.linger, 0)
    worker = sqlite_stage.worker("--burst", app="lingering")
    assert 0 == worker.wait()
    [line] = sqlite_stage.history.lines("exit")
    assert line["frozen"] > 10_000  # what was loaded is no matter of the garbage collector's any more
