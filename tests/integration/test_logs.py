"""What the log says, and that it says it in one line."""

import jobs
from qworker.job import utc_now
from qworker.produce.producer import Sending
from stage import Stage


def test_handlers_and_libraries_log_with_their_job(sqlite_stage: Stage) -> None:
    job = jobs.log_lines.using(queue=sqlite_stage.queue).enqueue(5)
    worker = sqlite_stage.worker("--burst")
    assert 0 == worker.wait(), worker.output
    bound = {"job": job.id, "task": "jobs.log_lines", "attempt": 1, "queue": sqlite_stage.queue}
    mine = next(line for line in worker._lines if line["event"].startswith("from the handler"))
    theirs = next(line for line in worker._lines if line["event"].startswith("from a library"))
    assert bound == {key: mine[key] for key in bound}
    assert bound == {key: theirs[key] for key in bound}
    assert (5, "info") == (mine["n"], mine["level"])
    assert ("from a library, 5", "some.library", "warning") == (theirs["event"], theirs["logger"], theirs["level"])


def test_on_a_terminal_each_event_is_one_line_without_foreign_control_characters(sqlite_stage: Stage) -> None:
    jobs.log_lines.using(queue=sqlite_stage.queue).enqueue(5)
    strange = jobs.app.get_task("jobs.quick").using(queue=sqlite_stage.queue)
    job = strange._job((1,), {}, utc_now())
    names = "no such {task}", "no\n\x1b[2Jsuch {task}"
    sqlite_stage.app.send([type(job)(job.id, name) for name in names], Sending(sqlite_stage.queue))
    worker = sqlite_stage.worker("--burst", "--log-format", "console")
    assert 0 == worker.wait(), worker.output
    assert "\x1b" not in worker.output
    lines = worker.output.splitlines()
    assert all(line[2:3] == ":" for line in lines), worker.output  # each begins with the time
    assert r"from the handler\n\x1b[31mred" in worker.output
    assert 1 == sum("no such {task}" in line and "task.unknown" in line for line in lines)
    assert 1 == sum("'task' holds a control character" in line and "message.poisoned" in line for line in lines)


def test_the_first_line_names_the_broker_and_no_secret(stage: Stage) -> None:
    worker = stage.worker("--burst", "-l", "debug")
    assert 0 == worker.wait(), worker.output
    first = worker.lines("worker.started")[0]
    assert ("sqlite:///" in first["broker"]) or ("azure://devstoreaccount1" in first["broker"])
    assert "AccountKey" not in worker.output
    assert "Eby8vdM02xNOcqFlqUwJPLlmEtl" not in worker.output


def test_a_queue_that_no_task_uses_is_told_as_a_worker_starts(sqlite_stage: Stage) -> None:
    queue = f"{sqlite_stage.queue},defualt,default"
    worker = sqlite_stage.worker("-q", queue, "--burst", "-p", "2")
    assert 0 == worker.wait()
    told = {line["queue"]: line.get("meant") for line in worker.lines("queue.unused")}
    assert {sqlite_stage.queue: None, "defualt": "default"} == told
    assert 2 == len(worker.lines("queue.unused"))  # once, not by each process
