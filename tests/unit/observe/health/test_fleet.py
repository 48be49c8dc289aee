import os
from collections.abc import Callable
from typing import Any

import pytest

from qworker.events import JobSucceeded
from qworker.job import Job
from qworker.observe.health.fleet import Fleet, Line
from qworker.observe.health.reporter import Reporter
from qworker.observe.health.reports import REPORT_FD, Report, Samples, pack, unpack
from qworker.observe.health.samples import samples_of
from qworker.observe.health.state import WorkerState
from qworker.observe.metrics import Metrics
from waiting import until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(clock: Clock) -> Fleet:
    return Fleet(Metrics(), clock)


def report(line: Line, live: str | None = None, ready: str | None = None, **samples: float) -> None:
    found: Samples = {(name, ()): value for name, value in samples.items()}
    data = pack(Report(live, ready, found))
    assert len(data) == os.write(line.fds[0], data)


async def heard(line: Line, number: int = 1) -> None:
    await until(lambda: line.report is not None)


def value_of(fleet: Fleet, name: str) -> float:
    answer = fleet.metrics("")
    assert answer is not None
    return next(float(line.split()[-1]) for line in answer[0].decode().splitlines() if line.startswith(f"{name} "))


def test_a_report_is_the_same_after_its_way() -> None:
    key = ("jobs_total", (("outcome", "ok\n"), ("task", "ä")))
    sent = Report("stuck", None, {key: 3.0, ("running", ()): 1.0}, (key,))
    assert 1 == pack(sent).count(b"\n")
    assert sent == unpack(pack(sent))


async def test_processes_come_and_go_and_no_counter_goes_back(fleet: Fleet) -> None:
    first, second = fleet.open_line(), fleet.open_line()
    for number, line in enumerate((first, second)):
        line.started(number)
        report(line, qworker_leases_lost_total=2.0, qworker_jobs_running=1.0)
        await heard(line)
    assert (4, 2) == (value_of(fleet, "qworker_leases_lost_total"), value_of(fleet, "qworker_jobs_running"))
    report(first, qworker_leases_lost_total=3.0)  # on its way when the process dies
    first.close()
    assert (5, 1) == (value_of(fleet, "qworker_leases_lost_total"), value_of(fleet, "qworker_jobs_running"))
    third = fleet.open_line()
    third.started(3)
    report(third, qworker_leases_lost_total=1.0)
    await heard(third)
    assert 6 == value_of(fleet, "qworker_leases_lost_total")
    for line in (second, third):
        line.close()
    assert (6, 0) == (value_of(fleet, "qworker_leases_lost_total"), value_of(fleet, "qworker_jobs_running"))


async def test_alive_and_ready_are_all_together(fleet: Fleet, clock: Clock) -> None:
    assert (None, "no worker process has started yet") == (fleet.live(), fleet.ready())
    first, second = fleet.open_line(), fleet.open_line()
    first.started(11)
    report(first)
    await heard(first)
    assert (None, None) == (fleet.live(), fleet.ready()), "another may be on its way"
    second.started(22)
    report(second, live="the event loop stands still", ready="the worker is starting")
    await heard(second)
    assert "worker 22: the event loop stands still" == fleet.live()
    assert "worker 22: the worker is starting" == fleet.ready()
    second.close()
    assert (None, None) == (fleet.live(), fleet.ready())
    clock.now += 31
    assert "worker 11: nothing was heard for 31 s" == fleet.live() == fleet.ready()
    first.close()


async def test_one_that_never_reports(fleet: Fleet, clock: Clock) -> None:
    line = fleet.open_line()
    line.started(11)
    clock.now += 120
    assert fleet.live() is None
    clock.now += 1
    assert "worker 11: nothing was heard since its start, 121 s ago" == fleet.live()
    line.close()


async def test_a_process_that_could_not_be_started_leaves_nothing_open(fleet: Fleet) -> None:
    line = fleet.open_line()
    line.close()
    for fd in line.fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert {REPORT_FD: str(line.fds[0])} == line.environment


async def test_what_a_worker_counts_arrives(fleet: Fleet) -> None:
    """Only what has changed is sent, and the rest is remembered."""
    metrics = Metrics(("mail.send",))
    line = fleet.open_line()
    line.started(os.getpid())
    reporter = _reporter(line, lambda: samples_of(metrics.registry))
    reporter._report()
    metrics.note_lengths({"mail": 3})
    metrics(JobSucceeded(job=Job("j", "mail.send"), queue="mail", attempt=1, seconds=0.1))
    reporter._report()
    metrics.note_lengths({})
    reporter.start()
    reporter.stop()
    assert not reporter.is_alive()
    line._read()
    assert samples_of(metrics.registry) == line.samples
    line.close()


async def test_a_reporter_ends_when_nobody_listens() -> None:
    read, write = os.pipe()
    os.close(read)
    reporter = Reporter(write, WorkerState(60), dict)
    reporter.start()
    reporter.join(10)
    assert not reporter.is_alive()


def _reporter(line: Line, samples: Callable[[], Any]) -> Reporter:
    return Reporter(os.dup(line.fds[0]), WorkerState(60), samples)


async def test_without_the_extra_there_are_no_metrics() -> None:
    fleet = Fleet(None)
    line = fleet.open_line()
    line.started(1)
    report(line)
    await heard(line)
    assert (None, None, None) == (fleet.live(), fleet.ready(), fleet.metrics(""))
    line.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"no JSON",
        b"[]",
        b"[1]",
        b"5",
        b"\xff",
        b"[" * 5000,
        b"[null,null,[[1]],[]]",
        b'[null,null,[["a",5,1]],[]]',
    ],
)
async def test_what_is_no_report_is_left_out(fleet: Fleet, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """One line tells of any number of them."""
    line = fleet.open_line()
    line.started(11)
    for _ in range(100):
        os.write(line.fds[0], said + b"\n")
        line._read()
    assert line.report is None
    report(line)
    await heard(line)
    assert fleet.live() is None
    [told] = caplog.messages
    assert told.startswith("a worker process reported what is no report: worker 11: ")
    line.close()


async def test_a_line_without_an_end_is_not_kept(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    line = fleet.open_line()
    line.started(11)
    for _ in range(200):
        os.write(line.fds[0], b"x" * 32_768)
        line._read()
        assert len(line._unfinished) <= (4 << 20) + 65_536
    os.write(line.fds[0], b"\n")
    report(line)
    await heard(line)
    assert fleet.live() is None
    assert ["a worker process reported what is no report: worker 11: a line too long"] == caplog.messages
    line.close()
