from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

from qworker.errors import ConfigurationError, InvalidArguments
from qworker.job import Job
from qworker.wire.envelope import decode as read
from qworker.wire.envelope import encode as write
from qworker.wire.states import States

SECRET = "s3cret-canary"


class Progress(BaseModel):
    page: int
    seen: set[datetime] = set()


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    day: date


def next_attempt(states: States, state: Any) -> Any:
    """What the next attempt finds, after a whole trip."""
    job = read(write(Job("j1", "t", state=states.encode(state))), message_id="m1")
    return states.decode(job.state)


@pytest.mark.parametrize("state", [None, 3, 2.5, "x", [1, {"a": None}], {"\ufffd": [True]}])
def test_without_a_type_it_is_any_json_value(state: Any) -> None:
    assert state == next_attempt(States("t"), state)


@pytest.mark.parametrize(
    "state",
    [object(), "\ud800", {"\ud800": 1}, {"x": print}, float("nan"), [float("inf")], (1, 2), {1: 2}, date(2026, 1, 1)],
    ids=lambda state: type(state).__name__,
)
def test_what_json_would_change_is_refused(state: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"t: a state that can't be saved as JSON: state") as caught:
        States("t").encode(state)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (Progress, Progress(page=3, seen={datetime(2027, 1, 1, tzinfo=UTC)})),
        (Strict, Strict(day=date(2026, 1, 1))),
        (bytes, b"\xff\x00"),
        (dict[str, bytes], {"a": b"\xff"}),
        (set[int], {1, 2}),
        (int | None, None),
        (float, float("inf")),
    ],
    ids=str,
)
def test_the_next_attempt_finds_what_was_saved(kind: Any, state: Any) -> None:
    found = next_attempt(States("t", kind), state)
    assert (type(state), state) == (type(found), found)


def test_there_is_none_before_the_first() -> None:
    assert States("t", Progress).decode(None) is None


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (Progress, {"page": SECRET}),
        (dict[tuple[str, int], str], {(SECRET, 1): "done"}),
        (SecretStr, SecretStr(SECRET)),
        (bytes | str, "s3cretcanary"),
        (Progress, Progress.model_construct(page=SECRET)),
    ],
    ids=str,
)
def test_a_state_that_could_not_be_read_again_is_refused(kind: Any, state: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"t: a state that can't be saved as JSON: state") as caught:
        States("t", kind).encode(state)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_saved_state_that_does_not_fit_is_told_without_it() -> None:
    with pytest.raises(InvalidArguments, match=r"t: its saved state doesn't fit: state\.page: Input should") as caught:
        States("t", Progress).decode({"page": SECRET})
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_what_is_no_type() -> None:
    with pytest.raises(ConfigurationError, match="task t: state must be a type that pydantic can check"):
        States("t", 7)
