import dataclasses
import json
import logging
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from qworker import events
from qworker.job import Job
from qworker.observe import log_setup, logs
from qworker.outcome import Failure
from qworker.settings import LogFormat, LogLevel
from running import ROOT

JOB = Job("j1", "mail.send", args=["a secret"])
WHY = Failure("ValueError", "no", "Traceback (most recent call last):\n  …\nValueError: no\n", "mail.py:3 in send")
ONE = {"task": "mail.send", "attempt": 2, "queue": "mail", "job": "j1"}
FAILED = {"error": "ValueError: no", "at": "mail.py:3 in send", "traceback": WHY.traceback}
COMMON: dict[str, Any] = {"job": JOB, "queue": "mail", "attempt": 2}

LINES = [
    (events.JobStarted(**COMMON), "debug", "job.started", ONE),
    (
        events.JobStarted(**COMMON, alone=True),
        "warning",
        "job.started_alone",
        ONE | {"reason": "workers were lost with it, and this is its last attempt"},
    ),
    (events.JobSucceeded(**COMMON, seconds=0.12345), "info", "job.succeeded", ONE | {"seconds": 0.123}),
    (
        events.JobRetried(**COMMON, max_attempts=5, after=10, failure=WHY, seconds=1.0),
        "warning",
        "job.retried",
        ONE | {"attempt": "2/5", "retry_in": "10s"} | FAILED,
    ),
    (
        events.JobSnoozed(**COMMON, after=60, reason="not ready"),
        "info",
        "job.snoozed",
        ONE | {"back_in": "60s", "reason": "not ready"},
    ),
    (events.JobReleased(**COMMON, reason="stop"), "info", "job.released", ONE | {"reason": "stop"}),
    (
        events.TaskUnknown(**COMMON, deliveries=3, after=2, failure=Failure("UnknownTask", "unknown task 'mail.send'")),
        "warning",
        "task.unknown",
        ONE
        | {
            "deliveries": "3/100",
            "retry_in": "2s",
            "error": "UnknownTask: unknown task 'mail.send'",
            "hint": "'qworker run mail' may know it: apps that share a queue hand each other's jobs back; "
            "give each a queue of its own",
        },
    ),
    (events.JobExpired(**COMMON), "warning", "job.expired", ONE),
    (
        events.JobPoisoned(**COMMON, poison_queue="mail-poison", failure=WHY),
        "error",
        "job.poisoned",
        ONE | {"moved_to": "mail-poison"} | FAILED,
    ),
    (
        events.MessagePoisoned(
            message_id="m1",
            queue="mail",
            dequeue_count=1,
            poison_queue="mail-poison",
            failure=Failure("InvalidEnvelope", "it is not JSON"),
        ),
        "error",
        "message.poisoned",
        {
            "message": "m1",
            "queue": "mail",
            "moved_to": "mail-poison",
            "error": "InvalidEnvelope: it is not JSON",
            "traceback": "",
        },
    ),
    (events.LeaseLost(**COMMON, reason="gone"), "error", "lease.lost", ONE | {"reason": "gone"}),
    (
        events.SettleFailed(**COMMON, action="delete", reason="503"),
        "error",
        "settle.failed",
        ONE | {"action": "delete", "reason": "503"},
    ),
    (events.JobStuck(**COMMON, seconds=7.0), "error", "job.stuck", ONE | {"seconds": 7.0}),
    (
        events.BundleSplit(message_id="b1", queue="mail", jobs=87, dequeue_count=3),
        "warning",
        "bundle.split",
        {"jobs": 87, "reason": "its delivery 2 was not finished", "queue": "mail", "bundle": "b1"},
    ),
    (
        events.LoopBlocked(seconds=1.5, job=JOB, where="mail.py:9 in send"),
        "warning",
        "loop.blocked",
        {"task": "mail.send", "job": "j1", "at": "mail.py:9 in send", "seconds": 1.5},
    ),
    (
        events.LoopBlocked(seconds=1.5, job=None, where="x.py:1 in y"),
        "warning",
        "loop.blocked",
        {"at": "x.py:1 in y", "seconds": 1.5},
    ),
    (
        events.PollFailed(queue="mail", reason="503", retry_in=0.25),
        "error",
        "poll.failed",
        {"queue": "mail", "reason": "503", "retry_in": "0.2s"},
    ),
    (
        events.PollRecovered(queue="mail", seconds=61.0),
        "info",
        "poll.recovered",
        {"queue": "mail", "after": "61.0s"},
    ),
    (
        events.QueueThrottled(queue="mail", rate=94.6),
        "warning",
        "queue.throttled",
        {"queue": "mail", "rate": "95/s"},
    ),
    (
        events.QueueUnthrottled(queue="mail", seconds=61.2),
        "info",
        "queue.unthrottled",
        {"queue": "mail", "after": "61s"},
    ),
    (
        events.RightMissing(queue="mail", right="update", reason="403"),
        "error",
        "right.missing",
        {"queue": "mail", "to": "update", "reason": "403"},
    ),
    (
        events.RenewalFailed(queue="mail", message_id="m1", reason="503", retry_in=5, denied=False),
        "warning",
        "renewal.failed",
        {"queue": "mail", "reason": "503", "retry_in": "5.0s", "message": "m1"},
    ),
    (
        events.RenewalFailed(queue="mail", message_id="m1", reason="403", retry_in=5, denied=True),
        "error",
        "renewal.failed",
        {"queue": "mail", "reason": "403", "retry_in": "5.0s", "message": "m1"},
    ),
    (
        events.WorkerStarted(
            worker="host:1",
            broker="sqlite:///x.db",
            queues=("mail", "default"),
            tasks=3,
            concurrency=16,
            lease=60,
        ),
        "info",
        "worker.started",
        {
            "broker": "sqlite:///x.db",
            "queues": "mail,default",
            "tasks": 3,
            "concurrency": 16,
            "lease": "60s",
            "worker": "host:1",
        },
    ),
    (
        events.WorkerStopping(worker="host:1", reason="SIGTERM", running=2, grace=25.0),
        "info",
        "worker.stopping",
        {"reason": "SIGTERM", "running": 2, "grace": "25s", "worker": "host:1"},
    ),
    (
        events.WorkerStopped(worker="host:1", succeeded=1, failed=2, released=3),
        "info",
        "worker.stopped",
        {"succeeded": 1, "failed_attempts": 2, "released": 3, "worker": "host:1"},
    ),
    (
        events.QueueUnused(queue="mial", near="mail"),
        "warning",
        "queue.unused",
        {
            "queue": "mial",
            "meant": "mail",
            "reason": "no task of the app uses it: only using(queue=…) or another program puts jobs there",
        },
    ),
    (
        events.SupervisorStarted(processes=2, reload=False),
        "info",
        "supervisor.started",
        {"processes": 2, "reload": False},
    ),
    (
        events.ProcessDied(pid=7, how="exit code 1", restart_in=1.0),
        "error",
        "process.died",
        {"pid": 7, "how": "exit code 1", "restart_in": "1s"},
    ),
    (events.Reloading(files=("a.py", "b.py")), "info", "reloading", {"files": "a.py, b.py"}),
    (
        events.HealthServed(port=9000, metrics=True),
        "info",
        "health.served",
        {"port": 9000, "at": "/live /ready /metrics"},
    ),
    (
        events.HealthServed(port=9000, metrics=False),
        "info",
        "health.served",
        {"port": 9000, "at": "/live /ready /metrics", "metrics": "none: pip install 'qworker-azure[metrics]'"},
    ),
]


@pytest.mark.parametrize(("event", "level", "name", "fields"), LINES, ids=lambda given: type(given).__name__)
def test_the_line_of_each_event(event: events.Event, level: str, name: str, fields: dict[str, object]) -> None:
    assert (level, name, fields) == logs.line_of(event)


def test_each_event_has_a_line_here() -> None:
    assert set(typing.get_args(events.Event)) == {type(event) for event, *_ in LINES}


def test_the_page_on_operating_has_each_line_with_its_levels() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    table = page.partition("| line | level |")[2].partition("\n\n")[0].splitlines()[2:]
    listed: dict[str, str] = {}
    for row in table:
        names, levels = row.split("|")[1:3]
        listed |= dict.fromkeys(re.findall(r"`([\w.]+)`", names), levels)
    written = {(name, level) for _, level, name, _ in LINES}
    assert {name for name, _ in written} == set(listed)
    assert [] == [(name, level) for name, level in written if level not in listed[name]]


def test_the_ids_come_last() -> None:
    _, _, fields = logs.line_of(events.JobSucceeded(**COMMON, seconds=1.0))
    assert ["task", "attempt", "seconds", "queue", "job"] == list(fields)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin as a program does, and leave logging and warnings as they were."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    yield
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)


def configure(level: LogLevel, log_format: LogFormat) -> None:
    """Have no handlers of pytest's: to qworker they are those of a program that has set up logging itself."""
    logging.getLogger().handlers.clear()
    log_setup.configure(level, log_format)


def test_routine_events_are_dropped_before_they_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "json")
    log = logs.EventLog()
    started, succeeded = events.JobStarted(**COMMON), events.JobSucceeded(**COMMON, seconds=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "line_of", pytest.fail)
        log(started)
        log(succeeded)
        logging.getLogger().setLevel("INFO")
        log(started)
    log(events.JobStarted(**COMMON, alone=True))
    logging.getLogger().setLevel("DEBUG")
    log(started)
    log(succeeded)
    logged = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert ["job.started_alone", "job.started", "job.succeeded"] == logged


def test_as_json_a_failure_has_its_traceback_on_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logs.EventLog()(events.JobRetried(**COMMON, max_attempts=5, after=10, failure=WHY, seconds=1.0))
    [line] = capsys.readouterr().err.splitlines()
    fields = json.loads(line)
    assert ("job.retried", "warning", WHY.traceback) == (fields["event"], fields["level"], fields["traceback"])
    assert fields["timestamp"].endswith("Z")
    assert "a secret" not in line


@pytest.mark.parametrize(("level", "shown"), [("info", 1), ("debug", 4)])
def test_for_people_a_traceback_is_shown_only_when_debugging(
    level: LogLevel, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(level, "console")
    logs.EventLog()(events.JobPoisoned(**COMMON, poison_queue="mail-poison", failure=WHY))
    lines = capsys.readouterr().err.splitlines()
    assert shown == len(lines)
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} \[error    \] job\.poisoned  ", lines[0])
    assert "at='mail.py:3 in send'" in lines[0]


def test_auto_is_json_where_no_terminal_reads(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "auto")
    structlog.get_logger().info("hello", n=1)
    assert {"event": "hello", "n": 1, "level": "info"}.items() <= json.loads(capsys.readouterr().err).items()


def test_auto_is_for_people_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    configure("info", "auto")
    structlog.get_logger().info("hello")
    assert "\x1b[" in capsys.readouterr().err


def test_levels_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "json")
    structlog.get_logger().info("no")
    logging.getLogger("library").info("no")
    logging.getLogger("library").warning("yes %s", 1)
    assert ["yes 1"] == [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]


def test_the_sdk_is_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "json")
    logging.getLogger("azure.core.pipeline.policies.http_logging_policy").info("Request URL: https://…sig=canary")
    logging.getLogger("azure.core.exceptions").critical("a body that it can't read")
    assert "" == capsys.readouterr().err


UNBEARABLE: dict[str, object] = {
    "control": "\x1b[31m\r\n\x85" + "x" * 100_000 + "end",
    "wide": "\N{GRINNING FACE}" * 2_000,
    "quotes": '"' * 2_000,
    "backslashes": "\\" * 1_100,
    "newlines": "\n" * 1_000,
    "separators": "\u2028" * 300,
    "a list": list(range(1_000)),
    "a tree": {"a": ["b\u2028c"]},
    "bytes": b"\x1b" * 1_000,
    "a circle": [],
}
circle: list[object] = [None]
circle[0] = UNBEARABLE["a circle"] = circle


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("value", UNBEARABLE.values(), ids=UNBEARABLE.keys())
def test_a_field_is_one_line_of_bounded_length(
    log_format: LogFormat, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", log_format)
    structlog.get_logger().info("two\nlines", field=value)
    [line] = capsys.readouterr().err.splitlines()
    assert len(line.encode("utf-8", "backslashreplace")) < 2_048 + 150
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", line)


def test_what_is_short_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    fields = {"text": "é" * 1_000, "tree": {"a": [1, None, "é"]}, "none": None, "yes": True}
    structlog.get_logger().info("hello", **fields)
    assert fields.items() <= json.loads(capsys.readouterr().err).items()


def test_of_a_long_field_both_ends_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    structlog.get_logger().info("hello", text="ab" * 1_500 + "cd" * 1_500)
    text = json.loads(capsys.readouterr().err)["text"]
    assert re.fullmatch("(ab)+a? … d?(cd)+", text)
    assert 2_000 < len(text) <= 2_046


def test_nothing_in_a_traceback_looks_like_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "console")
    forged = dataclasses.replace(WHY, traceback="Traceback\n12:00:00.000 [info     ] forged \x1b[2J\u2028x\ry")
    logs.EventLog()(events.JobPoisoned(**COMMON, poison_queue="mail-poison", failure=forged))
    structlog.get_logger().error("failed", exc_info=ValueError("it\n12:00:00.000 [info     ] is forged"))
    lines = capsys.readouterr().err.splitlines()
    assert ["job.poisoned", "failed"] == [line.split("] ")[1].split(" ")[0] for line in lines if line[0] != " "]
    assert "    12:00:00.000 [info     ] forged \\x1b[2J\\u2028x\\ry" in lines
    assert "    12:00:00.000 [info     ] is forged" in lines


def test_an_exception_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        int("x")
    except ValueError:
        structlog.get_logger().exception("it failed")
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["exception"].endswith("literal for int() with base 10: 'x'")


def test_a_queue_that_keeps_failing_is_told_of_twice_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("qworker.observe.logs.time.monotonic", lambda: now)
    configure("info", "json")
    log = logs.EventLog()
    failed = events.PollFailed(queue="mail", reason="503", retry_in=4.0)
    for now in (1000.0, 1004.0, 1029.0, 1031.0):  # noqa: B007 — read by the clock above
        log(failed)
    log(dataclasses.replace(failed, queue="other"))
    log(events.PollRecovered(queue="mail", seconds=31.0))
    log(failed)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [("poll.failed", "mail")] * 2 + [
        ("poll.failed", "other"),
        ("poll.recovered", "mail"),
        ("poll.failed", "mail"),
    ] == [(line["event"], line["queue"]) for line in told]


def test_renewals_of_a_queue_that_keep_failing_are_told_of_twice_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("qworker.observe.logs.time.monotonic", lambda: now)
    configure("info", "json")
    log = logs.EventLog()
    failed = events.RenewalFailed(queue="mail", message_id="m1", reason="503", retry_in=5.0, denied=False)
    for now in (1000.0, 1005.0, 1029.0, 1031.0):  # noqa: B007 - read by the clock above
        log(failed)
        log(dataclasses.replace(failed, message_id="m2"))
    log(dataclasses.replace(failed, queue="other"))
    log(events.PollFailed(queue="mail", reason="503", retry_in=4.0))
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [
        ("renewal.failed", "mail"),
        ("renewal.failed", "mail"),
        ("renewal.failed", "other"),
        ("poll.failed", "mail"),
    ] == [(line["event"], line["queue"]) for line in told]


def test_that_all_access_is_denied_is_told_of_once_for_all_queues(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("qworker.observe.logs.time.monotonic", lambda: now)
    configure("info", "json")
    log = logs.EventLog()
    poll = events.PollFailed(queue="mail", reason="403", retry_in=5.0, lasting=True, everywhere=True)
    renewal = events.RenewalFailed(
        queue="mail", message_id="m1", reason="403", retry_in=5.0, denied=True, everywhere=True
    )
    for now in (1000.0, 1015.0, 1029.0, 1031.0):  # noqa: B007 — read by the clock above
        for failed in (poll, dataclasses.replace(poll, queue="other"), renewal):
            log(failed)
    log(events.PollRecovered(queue="mail", seconds=31.0))
    log(poll)
    told = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert ["poll.failed", "poll.failed", "poll.recovered", "poll.failed"] == told


def test_an_unknown_task_is_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages may name any number of tasks: above level debug, so many lines and no more."""
    configure("info", "json")
    log = logs.EventLog()
    for number in range(300):
        for deliveries in (1, 2):
            job = Job("j1", f"nobodys.task{number}")
            failure = Failure("UnknownTask", "unknown")
            log(events.TaskUnknown(job=job, queue="mail", attempt=1, deliveries=deliveries, after=2, failure=failure))
    told = [json.loads(line)["task"] for line in capsys.readouterr().err.splitlines()]
    assert [f"nobodys.task{number}" for number in range(100)] == told
