"""No value is shown: not by an error, nor by what goes with it, nor by a repr."""

import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, field_serializer, field_validator

from qworker import INJECTED, App, Context
from qworker.cli.enqueue.job_lines import BadLine, Batch, Options
from qworker.cli.enqueue.lines import Line
from qworker.events import JobStarted
from qworker.job import Job
from qworker.testing import make_context, run_until_idle

CANARY = "s3cret"


class Chatty(BaseModel):
    a: str

    @field_validator("a")
    @classmethod
    def refuse(cls, value: str) -> str:
        raise ValueError(f"no:\n{value}")


class Rude(BaseModel):
    a: str

    @field_validator("a")
    @classmethod
    def fail(cls, value: str) -> str:
        raise KeyError(value)


class ChattyOut(BaseModel):
    a: str

    @field_serializer("a")
    def refuse(self, value: str) -> str:
        raise RuntimeError(f"no:\n{value}")


HINTS: list[tuple[Any, Any]] = [
    (int, CANARY),
    (list[int], [1, CANARY]),
    (dict[str, int], {CANARY: "x"}),
    (dict[bytes, int], {CANARY.encode(): "x"}),
    (Chatty, {"a": CANARY}),
    (Rude, {"a": CANARY}),
    (ChattyOut, {"a": CANARY}),
    (Any, {CANARY: {CANARY}}),
    (Any, (CANARY,)),
    (str, CANARY * 20_000),
    (str, f"{CANARY}\ud800"),
]


def taking(hint: Any) -> Callable[..., None]:
    def function(value: Any) -> None: ...

    function.__annotations__["value"] = hint
    return function


def task(hint: Any) -> Any:
    return App(broker="sqlite://").task(name="t")(taking(hint))


def chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *chain(error.__cause__), *chain(error.__context__)]


def check(refused: Callable[[], object], kind: type[Exception] = Exception) -> None:
    with pytest.raises(kind) as caught:
        refused()
    for error in chain(caught.value):
        assert CANARY not in f"{error} {error!r} {''.join(traceback.format_exception_only(error))}"
        assert "\n" not in str(error)


@pytest.mark.parametrize(("hint", "value"), HINTS)
def test_an_argument_that_is_refused(hint: Any, value: Any) -> None:
    refusing = task(hint)
    check(lambda: refusing.enqueue(value))
    check(lambda: refusing.enqueue(value=value))
    check(lambda: refusing.enqueue_many([(value,)] * 9))
    check(lambda: refusing.enqueue_many([{"value": value}] * 2))


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, CANARY),
        (list[int], [1, CANARY]),
        (dict[str, int], {CANARY: "x"}),
        (dict[bytes, int], {CANARY: "x"}),
        (bytes, CANARY),
        (Chatty, {"a": CANARY}),
        (Rude, {"a": CANARY}),
        (ChattyOut, {"a": CANARY}),
        (str, f"{CANARY}\ud800"),
    ],
)
def test_a_line_that_is_refused(hint: Any, value: Any) -> None:
    app = App(broker="sqlite://")
    app.task(name="t")(taking(hint))
    line = Line(1, json.dumps({"args": [value]}).encode())
    check(lambda: Batch().add(line, app, Options("t")), BadLine)


@pytest.mark.parametrize(("hint", "value"), [pair for pair in HINTS if pair[0] is not str])
def test_a_state_that_is_refused(hint: Any, value: Any) -> None:
    app = App(broker="sqlite://")

    @app.task(state=hint)
    async def saving(*, ctx: Context = INJECTED) -> None:
        await ctx.acheckpoint(value)

    saving.enqueue()
    events = run_until_idle(app, raise_failures=False).events
    assert CANARY not in repr(events)
    assert "a state that can't be saved as JSON: state" in repr(events)
    check(lambda: make_context(saving, state=value))


@pytest.mark.parametrize(
    "headers", [{CANARY: 1}, {"a": {CANARY}}, [CANARY], {"a": CANARY * 9_000}, {CANARY * 9_000: ""}]
)
def test_headers_that_are_refused(headers: Any) -> None:
    check(lambda: task(int).using(headers=headers).enqueue(1))


@pytest.mark.parametrize("calls", [CANARY, [CANARY], [{CANARY}], [{1: CANARY}], [CANARY.encode()] * 9])
def test_calls_that_are_none(calls: Any) -> None:
    check(lambda: task(int).enqueue_many(calls))


def test_reprs() -> None:
    job = Job("j1", "t", args=[CANARY], kwargs={"a": CANARY}, state=CANARY, headers={"a": CANARY})
    sending = task(str).using(headers={"a": CANARY})
    for shown in (job, JobStarted(job=job, queue="default", attempt=1), sending, sending.enqueue(CANARY), task(str)):
        assert CANARY not in repr(shown)
