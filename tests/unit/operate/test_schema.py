import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, PlainValidator

from doubles import ScriptedBroker
from qworker import INJECTED, App, Context, InvalidArguments
from qworker.operate.schema import schema_of
from qworker.wire.envelope import decode, encode


class Person(BaseModel):
    name: str
    friends: list["Person"] = []


class Arguments(BaseModel):
    """Named as qworker names its own."""

    n: int


def plain(a: int, b: str = "x") -> None: ...
def names_only(*, a: int, b: int = 2) -> None: ...
def places_only(a: int, b: int = 2, /, c: int = 3) -> None: ...
def needs_two_places(a: int = 1, /, b: int = 2) -> None: ...
def rest(a: int, *more: int, b: int = 2) -> None: ...
def others(a: int, /, **more: int) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...
def nothing(*, ctx: Context = INJECTED) -> None: ...
def person(who: Person, arguments: Arguments | None = None) -> None: ...


CALLS: list[tuple[list[Any], dict[str, Any]]] = [
    ([], {}),
    ([1], {}),
    ([1, "x"], {}),
    ([1, 2], {}),
    ([1, 2, 3], {}),
    ([1, 2, 3, 4], {}),
    ([], {"a": 1}),
    ([], {"b": 1}),
    ([1], {"a": 1}),
    ([1], {"b": 2}),
    ([1], {"b": "y"}),
    ([1], {"c": 2}),
    ([1, 2], {"b": 2}),
    ([1, 2], {"c": 2}),
    ([], {"a": 1, "b": 2}),
    ([], {"a": 1, "b": "y", "c": 3}),
    ([{"name": "Ada"}], {}),
    ([{"name": "Ada", "friends": [{"name": 1}]}], {}),
    ([], {"who": {"name": "Ada", "friends": [{"name": "Grace"}]}, "arguments": {"n": 1}}),
    ([], {"who": {"name": "Ada"}, "arguments": {"n": "one"}}),
]


@pytest.mark.parametrize(
    "function",
    [plain, names_only, places_only, needs_two_places, rest, others, anything, nothing, person],
    ids=lambda function: function.__name__,
)
def test_it_admits_what_a_worker_accepts(function: Callable[..., None]) -> None:
    app = App(broker=ScriptedBroker())
    task = app.task(function)
    app.task(name="another")(person)
    validator = Draft202012Validator(schema_of([task, *app.tasks.values()]))
    accepted = 0
    for args, kwargs in CALLS:
        try:
            task.signature.decode(args, kwargs)
            fits = True
        except InvalidArguments:
            fits = False
        message = {"task": task.name, "args": args, "kwargs": kwargs}
        assert fits == validator.is_valid(message), message
        accepted += validator.is_valid(message)
    assert 0 < accepted


def test_what_need_not_be_said_may_be_left_out() -> None:
    app = App(broker=ScriptedBroker())
    validator = Draft202012Validator(schema_of([app.task(name="n")(nothing), app.task(name="p")(plain)]))
    assert validator.is_valid({"task": "n"})
    assert validator.is_valid({"task": "n", "another key": 1})
    assert validator.is_valid({"task": "p", "args": [1]})
    wrong: Any
    for wrong in (
        {},
        [],
        {"task": "m"},
        {"task": "p"},
        {"task": "n", "v": 2},
        {"task": "n", "id": ""},
        {"task": "n", "headers": {"a": 1}},
    ):
        assert not validator.is_valid(wrong), wrong


def test_what_a_producer_sends_fits() -> None:
    app = App(broker=ScriptedBroker())

    @app.task(name="all/of~it %")
    def task(at: datetime, data: bytes, number: float = 1.5, *, who: Person | None = None) -> None: ...

    job = task.using(ttl=5, headers={"a": "b"}).enqueue(datetime(2026, 1, 1), b"\xff\xfe", who=Person(name="Ada"))  # noqa: DTZ001
    fields = {key: value for key, value in _fields(job).items() if value is not None}
    schema = schema_of(app.tasks.values())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(fields)
    app.close()


def _fields(job: Any) -> dict[str, Any]:
    text = encode(job)
    assert job.id == decode(text, message_id="m").id
    fields: dict[str, Any] = json.loads(text)
    return fields


def test_it_is_for_people_too() -> None:
    app = App(broker=ScriptedBroker())

    @dataclass
    class Size:
        width: int

    @app.task(name="resize")
    def resize(
        path: Annotated[str, Field(description="Where it is.")], size: Size | None = None, way: str = "up"
    ) -> None:
        """Make it larger."""

    definition = schema_of(app.tasks.values())["$defs"]["task:resize"]
    assert "Make it larger." == definition["description"]
    assert {
        "path": {"type": "string", "description": "Where it is."},
        "size": {"anyOf": [{"$ref": "#/$defs/Size"}, {"type": "null"}], "default": None},
        "way": {"type": "string", "default": "up"},
    } == definition["properties"]["kwargs"]["properties"]


def test_a_type_without_a_schema_is_said_to_be_anything() -> None:
    app = App(broker=ScriptedBroker())

    @app.task(name="odd")
    def odd(value: Annotated[Any, PlainValidator(lambda value: value)], other: float = float("inf")) -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema = schema_of(app.tasks.values())
    assert Draft202012Validator(schema).is_valid({"task": "odd", "args": [{"x": [1]}]})
    assert "default" not in schema["$defs"]["task:odd"]["properties"]["kwargs"]["properties"]["other"]
