import json
from datetime import UTC, datetime
from types import MappingProxyType
from typing import get_args

import pytest

from qworker.engine.run.child import Checkpoint, ChildCall
from qworker.engine.run.child_wire import Said, Saved, pack, unpack
from qworker.engine.run.runner import TimedOut
from qworker.errors import BrokerBusy, LeaseLost, MessageTooLarge, QworkerError
from qworker.job import Job
from qworker.outcome import (
    Expired,
    Failed,
    Failure,
    Lost,
    Outcome,
    Rejected,
    Released,
    RetryAsked,
    Snoozed,
    Succeeded,
    Unknown,
)

NOON = datetime(2027, 1, 1, 12, 0, 0, 123000, tzinfo=UTC)
JOB = Job(
    "j1",
    "t",
    [1, "naïve \ud800"],
    {"a": None},
    NOON,
    60,
    NOON,
    2,
    {"page": [7]},
    MappingProxyType({"trace": "x"}),
    begun=True,
)
FAILURE = Failure("ValueError", "half a pair \udc80", "Traceback …", "tasks.py:1 in t")
SAID: list[Said] = [
    ChildCall("tasks", "t", "tasks", JOB, "work", 3, NOON),
    ChildCall("tasks", "t", "tasks", Job("j2", "t"), "work", 1, None),
    Checkpoint({"page": [1, 2.5, "x"]}),
    Saved(None),
    Succeeded(),
    Failed(FAILURE),
    RetryAsked(FAILURE, 7),
    RetryAsked(FAILURE, None),
    Snoozed(5, "not yet"),
    Rejected(FAILURE),
    Expired(),
    Released("stop"),
    Unknown(FAILURE, 3),
    Lost(),
]


@pytest.mark.parametrize("said", SAID, ids=lambda said: type(said).__name__)
def test_round_trip(said: Said) -> None:
    assert said == unpack(pack(said))
    assert type(said).__name__ == json.loads(pack(said))[0]


def test_every_outcome_can_be_said() -> None:
    assert set(get_args(Outcome)) <= {type(said) for said in SAID}


@pytest.mark.parametrize("error", [MessageTooLarge(70_000, 65_536), LeaseLost("m1"), BrokerBusy("busy", 3.0)])
def test_an_error_arrives_with_its_class_text_and_data(error: QworkerError) -> None:
    arrived = unpack(pack(Saved(error)))
    assert isinstance(arrived, Saved)
    assert (type(error), str(error), vars(error)) == (type(arrived.error), str(arrived.error), vars(arrived.error))


def test_an_error_of_the_engines_own_arrives_as_the_public_one_that_it_is() -> None:
    arrived = unpack(pack(Saved(TimedOut("too long"))))
    assert isinstance(arrived, Saved)
    assert (QworkerError, "too long") == (type(arrived.error), str(arrived.error))
