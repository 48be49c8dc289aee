import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import fields
from datetime import timedelta
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from doubles import ScriptedBroker, message
from qworker import App, Backoff, Reject, Snooze
from qworker._routine import LeaseRenewed, Polled, RequestMade
from qworker.engine.guard.vitals import Vitals
from qworker.errors import BrokerUnavailable
from qworker.events import (
    JobEvent,
    JobPoisoned,
    JobStarted,
    JobStuck,
    JobSucceeded,
    LeaseLost,
    LoopBlocked,
    MessagePoisoned,
    ProcessDied,
    RenewalFailed,
)
from qworker.job import Job, utc_now
from qworker.observe.health.samples import text_of_all
from qworker.observe.metrics import _OUTCOMES, UNKNOWN, Metrics
from qworker.outcome import Failure
from qworker.testing import arun_until_idle
from qworker.wire.envelope import encode
from waiting import until

JOB = Job("j1", "mail.send")
FAILURE = Failure("ValueError", "no")


def parsed(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return what a parser of Prometheus's text finds, without what is 0: by name, and the labels' values."""
    text = text_of_all(metrics.registry, (), "")[0].decode()
    return {
        (sample.name.removeprefix("qworker_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.value
    }


def told(*events: Any, tasks: Iterable[str] = ("mail.send",)) -> dict[tuple[str, ...], float]:
    metrics = Metrics(tuple(tasks))
    for event in events:
        metrics(event)
    return parsed(metrics)


def test_jobs_are_counted_by_task_and_outcome() -> None:
    for kind, outcome in _OUTCOMES.items():
        known: dict[str, Any] = {
            "job": JOB,
            "queue": "mail",
            "attempt": 1,
            "seconds": 0.0,
            "max_attempts": 5,
            "deliveries": 1,
        }
        known |= {"after": 1, "failure": FAILURE, "reason": "", "action": "delete", "poison_queue": "mail-poison"}
        event = kind(**{each.name: known[each.name] for each in fields(kind) if each.name in known})
        assert 2 == told(event, event)["jobs_total", outcome, "mail.send"]


def test_every_end_of_a_job_has_an_outcome() -> None:
    not_ends: tuple[Any, ...] = JobStarted, JobStuck
    assert set(get_args(JobEvent)).difference(not_ends) == set(_OUTCOMES)


def test_durations_and_delays() -> None:
    early = Job("j1", "mail.send", enqueued_at=utc_now() - timedelta(seconds=20))
    found = told(
        JobStarted(job=early, queue="mail", attempt=1),
        JobStarted(job=early, queue="mail", attempt=2),
        JobStarted(job=Job("j2", "mail.send", enqueued_at=early.enqueued_at, releases=1), queue="mail", attempt=1),
        JobStarted(job=Job("j3", "mail.send"), queue="mail", attempt=1),
        JobSucceeded(job=early, queue="mail", attempt=1, seconds=0.3),
        JobPoisoned(job=early, queue="mail", attempt=1, poison_queue="p", failure=FAILURE, seconds=0.0),
    )
    assert 1 == found["job_delay_seconds_count", "mail.send"] == found["job_delay_seconds_bucket", "30.0", "mail.send"]
    assert ("job_delay_seconds_bucket", "10.0", "mail.send") not in found
    assert 20 == pytest.approx(found["job_delay_seconds_sum", "mail.send"], abs=5)
    assert 1 == found["job_duration_seconds_count", "mail.send"]
    assert 0.3 == found["job_duration_seconds_sum", "mail.send"]


def test_a_producer_whose_clock_is_ahead_waits_for_nothing() -> None:
    ahead = Job("j1", "mail.send", enqueued_at=utc_now() + timedelta(seconds=20))
    found = told(JobStarted(job=ahead, queue="mail", attempt=1))
    assert 1 == found["job_delay_seconds_bucket", "0.01", "mail.send"]


def test_a_task_that_is_not_the_apps_gets_no_label() -> None:
    metrics = Metrics(("mail.send",))
    for number in range(1000):
        metrics(LeaseLost(job=Job("j", f"made.up{number}"), queue="mail", attempt=1, reason=""))
    found = parsed(metrics)
    assert 1000 == found["jobs_total", "lost", UNKNOWN] == found["leases_lost_total",]
    assert {"mail.send", UNKNOWN} == set(metrics._of_task)


def test_what_may_be_counted_is_there_before_the_first() -> None:
    """Prometheus doesn't see that a counter rose which was not there before."""
    text = text_of_all(Metrics(("mail.send",)).registry, (), "")[0].decode()
    assert 'qworker_jobs_total{outcome="poisoned",task="mail.send"} 0.0' in text


def test_the_rest() -> None:
    renewal = RenewalFailed(queue="mail", message_id="m", reason="", retry_in=1.0, denied=False)
    found = told(
        LeaseRenewed(queue="mail"),
        LeaseRenewed(queue="mail"),
        renewal,
        Polled(queue="mail", messages=3),
        Polled(queue="mail", messages=0),
        Polled(queue="mail", messages=0),
        Polled(queue="mail", messages=None),
        RequestMade(queue="mail", operation="get", result="ok", seconds=0.02),
        RequestMade(queue="mail", operation="delete", result="busy", seconds=0.02),
        MessagePoisoned(message_id="m", queue="q", dequeue_count=1, poison_queue="p", failure=FAILURE),
        LoopBlocked(seconds=1.0, job=None, where="somewhere"),
        ProcessDied(pid=1, how="exit code 1", restart_in=1.0),
    )
    assert {
        ("lease_renewals_total", "ok"): 2,
        ("lease_renewals_total", "failed"): 1,
        ("polls_total", "mail", "messages"): 1,
        ("polls_total", "mail", "empty"): 2,
        ("polls_total", "mail", "failed"): 1,
        ("messages_received_total", "mail"): 3,
        ("broker_requests_total", "get", "ok"): 1,
        ("broker_requests_total", "delete", "busy"): 1,
        ("messages_poisoned_total",): 1,
        ("loop_blocked_total",): 1,
        ("process_deaths_total",): 1,
    } == {key: value for key, value in found.items() if key[0].endswith("_total")}
    assert 1 == found["broker_request_seconds_bucket", "0.025", "get"]


def test_gauges() -> None:
    metrics = Metrics()
    metrics.note(Vitals(running=3, waiting=2, slots=16, polls_late=0, keeper_late=0, stopping=False))
    metrics.note_lengths({"mail": 7, "mail-poison": 1})
    metrics.note_lengths({"mail": 8})
    assert {
        ("jobs_running",): 3,
        ("jobs_waiting",): 2,
        ("slots",): 16,
        ("workers",): 1,
        ("queue_length", "mail"): 8,
    } == parsed(metrics)


async def test_a_worker_in_another_program() -> None:
    """All facts come from the worker's own events."""
    app = App(broker="sqlite://")

    @app.task(name="do", max_attempts=2, backoff=Backoff(base=0))
    async def do(what: str) -> None:
        match what:
            case "fail":
                raise ValueError
            case "reject":
                raise Reject("no")

    await do.aenqueue_many([("succeed",), ("fail",), ("reject",)])
    await app.broker.queue("default").put("no job")
    metrics = Metrics(app.tasks, CollectorRegistry())
    async with app.worker(listeners=[metrics], burst=True) as worker:
        await worker.stop_requested()
        vitals, lengths = worker.vitals(), await worker.lengths()
    found = parsed(metrics)
    assert {"succeeded": 1, "retried": 1, "poisoned": 2} == {
        key[1]: value for key, value in found.items() if key[0] == "jobs_total"
    }
    assert 4 == found["job_duration_seconds_count", "do"]
    assert 3 == found["job_delay_seconds_count", "do"]
    assert 1 == found["messages_poisoned_total",]
    assert 5 == found["messages_received_total", "default"]
    assert (4, 3) == (found["broker_requests_total", "delete", "ok"], found["broker_requests_total", "put", "ok"])
    assert {"default": 0, "default-poison": 3} == lengths
    assert vitals is not None
    assert (16, True) == (vitals.slots, vitals.stopping)


async def test_renewals_and_failures_of_requests() -> None:
    broker = ScriptedBroker()
    queue = broker.queue("default")
    queue.will("get", BrokerUnavailable("gone"), [message(encode(Job("j1", "wait")))])
    queue.will("update", BrokerUnavailable("gone"))
    app = App(broker=broker)
    metrics = Metrics(("wait",))

    @app.task(name="wait")
    async def wait() -> None:
        await until(lambda: ("lease_renewals_total", "ok") in parsed(metrics))

    async with app.worker(listeners=[metrics], lease=2):
        await until(lambda: ("jobs_total", "succeeded", "wait") in parsed(metrics))
    found = parsed(metrics)
    assert 1 == found["broker_requests_total", "get", "unreachable"] == found["polls_total", "default", "failed"]
    assert 1 == found["broker_requests_total", "update", "unreachable"] == found["lease_renewals_total", "failed"]
    assert found["broker_requests_total", "update", "ok"] == found["lease_renewals_total", "ok"]


async def test_without_a_listener_for_them_no_routine_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(broker="sqlite://")

    def never(**_: Any) -> None:
        raise AssertionError("made for nobody")

    for module in ("get.fetcher.Polled", "guard.requests.RequestMade", "worker.LeaseRenewed"):
        monkeypatch.setattr(f"qworker.engine.{module}", never)

    @app.task(name="snooze")
    async def snooze() -> None:
        raise Snooze(after=60)

    await snooze.aenqueue()
    await arun_until_idle(app)


def test_an_event_costs_little() -> None:
    metrics = Metrics(("mail.send",))
    event = JobSucceeded(job=JOB, queue="mail", attempt=1, seconds=0.1)
    best = min(_time(metrics, event) for _ in range(5))
    assert best < 25e-6, "a few microseconds, and room for a slow machine"


def _time(metrics: Metrics, event: JobSucceeded) -> float:
    began = time.perf_counter()
    for _ in range(1000):
        metrics(event)
    return (time.perf_counter() - began) / 1000


def test_nothing_of_it_is_imported_unless_asked_for() -> None:
    code = (
        "import sys, qworker, qworker.cli, qworker.engine.worker, qworker.observe.logs;"
        "print(*{'prometheus_client', 'qworker.observe.metrics', 'qworker.health'} & set(sys.modules))"
    )
    assert "\n" == subprocess.check_output([sys.executable, "-c", code], text=True)


def test_jobs_that_run_are_counted_by_task() -> None:
    """Twice begun, as one whose lease was lost and that was received again, it runs once."""
    started = [JobStarted(job=Job(f"j{n}", "mail.send"), queue="mail", attempt=1) for n in (1, 2, 2, 3)]
    ended = JobSucceeded(job=Job("j1", "mail.send"), queue="mail", attempt=1, seconds=0.1)
    other = JobSucceeded(job=Job("j9", "mail.send"), queue="mail", attempt=1, seconds=0.1)
    assert 3 == told(*started)["task_jobs_running", "mail.send"]
    assert 2 == told(*started, ended, other)["task_jobs_running", "mail.send"]
