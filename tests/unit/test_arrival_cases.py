"""Calls from bug reports about other libraries: the handler gets what was passed, or the call is refused."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

from qworker import INJECTED, App, Backoff, Context
from qworker.errors import InvalidArguments
from qworker.testing import run_until_idle


class Engine(BaseModel):
    name: str


class Remote(Engine):
    url: str


@dataclass
class Point:
    x: int


@dataclass
class Point3(Point):
    z: int


class Colour(Enum):
    RED = "r"


class Progress(BaseModel):
    model_config = ConfigDict(strict=True)
    day: date


def got(hint: Any, value: Any) -> Any:
    """What a worker's handler gets."""
    app = App(broker="sqlite://")
    handled: list[Any] = []

    def function(value: Any) -> None:
        handled.append(value)

    function.__annotations__["value"] = hint
    app.task(name="t")(function).enqueue(value)
    run_until_idle(app)
    [one] = handled
    return one


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Remote, Remote(name="a", url="https://x")),
        (Point3, Point3(1, 2)),
        (bytes | str, b"\xff"),
        (str | bytes, "data"),
        (Colour | str, "x"),
        (set[int] | list[int], [1]),
        (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
        (Decimal, Decimal("1.10")),
        (UUID, UUID(int=1)),
        (dict[int, str], {1: "a"}),
        (tuple[int, int], (1, 2)),
        (Progress, Progress(day=date(2026, 1, 1))),
    ],
    ids=str,
)
def test_what_arrives(hint: Any, value: Any) -> None:
    one = got(hint, value)
    assert (type(value), value) == (type(one), one)


def test_a_text_that_is_passed_for_bytes_is_its_utf8() -> None:
    assert got(bytes, "data") == b"data"


@pytest.mark.parametrize(
    ("hint", "value", "problem"),
    [
        (SecretStr, SecretStr("s3cret"), "a SecretStr can't be sent"),
        (Engine, Remote(name="a", url="https://x"), "a Remote would arrive as its base Engine"),
        (Point, Point3(1, 2), "a Point3 would arrive as its base Point"),
        (bytes | str, "data", "a str would arrive as bytes"),
        (str | bytes, b"data", "bytes would arrive as a str"),
        (set[int] | list[int], {1}, "a set would arrive as a list"),
        (Colour | str, Colour.RED, "a Colour would arrive as a str"),
        (Any, datetime(2026, 1, 1, tzinfo=UTC), "a datetime would arrive as a str: annotate it, or pass what JSON has"),
        (Any, Decimal("1.10"), "a Decimal would arrive as a str: annotate it"),
        (Any, b"abcd", "bytes would arrive as a str: annotate it"),
        (Any, {1, 2}, "a set would arrive as a list: annotate it"),
        (Any, (1, 2), "a tuple would arrive as a list: annotate it"),
        (Any, UUID(int=1), "a UUID would arrive as a str: annotate it"),
        (Any, Colour.RED, "a Colour would arrive as a str: annotate it"),
        (Any, {1: "a"}, "a key: an int would arrive as a str: annotate it"),
        (Any, float("nan"), "a float would arrive as a str: annotate it"),
    ],
    ids=str,
)
def test_what_is_refused(hint: Any, value: Any, problem: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        got(hint, value)
    assert str(caught.value).startswith(f"t: value: {problem}")


@pytest.mark.parametrize(
    ("kind", "state"),
    [(Progress, Progress(day=date(2026, 1, 1))), (list[tuple[int, int]], [(0, 1)])],
    ids=str,
)
def test_a_strict_state_is_found_by_the_next_attempt(kind: Any, state: Any) -> None:
    app, found = App(broker="sqlite://"), list[Any]()

    @app.task(state=kind, backoff=Backoff(base=0))
    async def copy(*, ctx: Context = INJECTED) -> None:
        found.append(ctx.state)
        if ctx.attempt == 1:
            await ctx.acheckpoint(state)
            raise OSError

    copy.enqueue()
    run_until_idle(app)
    assert [None, state] == found


def test_a_state_that_could_not_be_read_is_refused_where_it_is_saved() -> None:
    app, problems = App(broker="sqlite://"), list[str]()

    @app.task(state=dict[tuple[int, int], str])
    async def tiles(*, ctx: Context = INJECTED) -> None:
        with pytest.raises(InvalidArguments) as caught:
            await ctx.acheckpoint({(0, 1): "done"})
        problems.append(caught.value.problem)

    tiles.enqueue()
    run_until_idle(app)
    [problem] = problems
    assert problem.startswith("a state that can't be saved as JSON: state.[…].[key]: Input should be a valid")
