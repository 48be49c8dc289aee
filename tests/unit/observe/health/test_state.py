from typing import Any

import pytest

from qworker._routine import Polled, RequestMade
from qworker.engine.guard.vitals import Vitals
from qworker.events import LoopBlocked, PollFailed, RightMissing, WorkerStarted
from qworker.job import Job
from qworker.observe.health.state import WorkerState

STARTED = WorkerStarted(worker="w", broker="b", queues=("mail",), tasks=1, concurrency=1, lease=60)


class At:
    """A worker's state, at a time that the test sets."""

    def __init__(self, lease: float = 60.0) -> None:
        self.now = 100.0
        self.state = WorkerState(lease, lambda: self.now)

    def beat(self, **changes: Any) -> None:
        well = {"running": 0, "waiting": 0, "slots": 16, "polls_late": 0.0, "keeper_late": 0.0, "stopping": False}
        self.state.beat(Vitals(**{**well, **changes}))


@pytest.fixture
def at() -> At:
    return At()


@pytest.fixture
def working(at: At) -> At:
    at.state(STARTED)
    at.beat()
    at.state(Polled(queue="mail", messages=0))
    return at


def test_one_that_starts_is_alive_and_not_ready(at: At) -> None:
    at.now += 1000
    assert (None, "the worker is starting") == (at.state.live(), at.state.ready())
    at.state(STARTED)
    assert (None, "no queue has answered yet") == (at.state.live(), at.state.ready())
    at.state(Polled(queue="mail", messages=None))
    assert "no queue has answered yet" == at.state.ready()
    at.state(Polled(queue="mail", messages=2))
    assert (None, None) == (at.state.live(), at.state.ready())


@pytest.mark.parametrize(("lease", "patience"), [(2, 1), (60, 30), (3600, 30)])
def test_an_event_loop_that_stands_still(lease: float, patience: float) -> None:
    at = At(lease)
    at.state(STARTED)
    at.now += patience
    assert at.state.live() is None
    at.now += 0.1
    at.state(LoopBlocked(seconds=4.0, job=Job("j", "mail.send"), where="mail.py:9 in send"))
    reason = f"the event loop has not turned for {patience:.0f} s"
    assert f"{reason}: mail.send at mail.py:9 in send" == at.state.live()
    at.state(LoopBlocked(seconds=8.0, job=None, where="mail.py:9 in send"))
    assert f"{reason}: mail.py:9 in send" == at.state.live()
    at.beat()
    assert at.state.live() is None


def test_what_is_late(working: At) -> None:
    working.beat(polls_late=30.0, keeper_late=30.0)
    assert working.state.live() is None
    working.beat(polls_late=31.0)
    assert "no poll has ended that should have, 31 s ago" == working.state.live() == working.state.ready()
    working.beat(keeper_late=31.0)
    assert "the lease keeper has not looked at its leases for 31 s" == working.state.live()
    working.beat(polls_late=99.0, keeper_late=99.0, stopping=True)
    assert (None, "the worker is stopping") == (working.state.live(), working.state.ready())


def test_after_a_standstill_all_else_gets_its_turn_first(working: At) -> None:
    working.now += 100
    assert working.state.live() is not None
    working.beat(polls_late=99.0, keeper_late=99.0)
    assert working.state.live() is None
    working.now += 1
    working.beat(polls_late=100.0)
    assert "no poll has ended that should have, 100 s ago" == working.state.live()


def test_a_broker_that_fails_is_no_reason_to_restart(working: At) -> None:
    working.state(PollFailed(queue="mail", reason="no network", retry_in=1.0))
    working.state(Polled(queue="mail", messages=None))
    assert (None, "queue mail can't be polled: no network") == (working.state.live(), working.state.ready())
    working.state(Polled(queue="slow", messages=1))
    assert "queue mail can't be polled: no network" == working.state.ready()
    working.state(Polled(queue="mail", messages=0))
    assert working.state.ready() is None


def test_a_right_that_is_missing_until_it_is_used(working: At) -> None:
    working.state(RightMissing(queue="mail", right="update", reason="it takes Contributor"))
    assert "queue mail: no right to update: it takes Contributor" == working.state.ready()
    assert working.state.live() is None
    for event in (
        RequestMade(queue="mail", operation="update", result="denied", seconds=0.1),
        RequestMade(queue="mail", operation="delete", result="ok", seconds=0.1),
        RequestMade(queue="slow", operation="update", result="ok", seconds=0.1),
    ):
        working.state(event)
        assert working.state.ready() is not None
    working.state(RequestMade(queue="mail", operation="update", result="ok", seconds=0.1))
    assert working.state.ready() is None
