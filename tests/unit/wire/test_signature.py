import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, field_validator
from pydantic.errors import PydanticInvalidForJsonSchema

from qworker.context import INJECTED, Context
from qworker.errors import ConfigurationError, InvalidArguments, ValidatorFailed
from qworker.job import Job
from qworker.wire.envelope import decode as read
from qworker.wire.envelope import encode as write
from qworker.wire.signature import Signature

T = TypeVar("T")
MANY = 8
"""Calls that are validated together."""


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


@dataclass
class Point:
    x: float
    data: bytes = b""


class User(BaseModel):
    name: str
    id: UUID = Field(default_factory=uuid4)
    tags: set[str] = set()


class Renamed(BaseModel):
    inner: int = Field(alias="outer")


class Box(BaseModel, Generic[T]):
    content: T


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


def over_the_wire(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the handler is called with, after a whole trip; sent with others, it would be the same."""
    signature = Signature("t", function)
    encoded = signature.encode(args, kwargs)
    assert [encoded] * MANY == signature.encode_many([(args, kwargs)] * MANY)
    job = read(write(Job("j1", "t", *encoded)), message_id="m1")
    return signature.decode(job.args, job.kwargs)


def taking(hint: Any) -> Callable[..., None]:
    def function(value: Any) -> None: ...

    function.__annotations__["value"] = hint
    return function


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (datetime, datetime(2026, 11, 23, 5, 0, 0, 123456, tzinfo=UTC)),
        (date, date(2026, 11, 23)),
        (timedelta, timedelta(days=-1, microseconds=7)),
        (UUID, UUID(int=7)),
        (Colour, Colour.BLUE),
        (Level, Level.LOW),
        (bytes, b"\x00\xff text"),
        (bytes, b""),
        (Decimal, Decimal("0.10")),
        (Path, Path("a/b")),
        (Point, Point(1.5, b"\xff")),
        (list[Point], [Point(1), Point(2, b"x")]),
        (User, User(name="Zoë", tags={"a", "b"})),
        (User, User(name="default id")),
        (Renamed, Renamed(outer=3)),
        (Box[int], Box[int](content=3)),
        (Box[list[Colour]], Box[list[Colour]](content=[Colour.RED])),
        (dict[str, list[User]], {"x": [User(name="a")]}),
        (dict[int, str], {1: "one"}),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (int | str, "1"),
        (int | None, None),
        (Pet, Dog(kind="dog")),
        (float, float("inf")),
        pytest.param(int, 10**4000, id="a number of 4,000 digits"),
        (str, "\x00\x01\r\n\ufffe😀"),
        (Any, {"a": [1, None, True, 1.5, "x"]}),
    ],
    # Not the values: a set has another order, and a new id is another one, in each of several test processes.
    ids=lambda given: str(given) if isinstance(given, type) else "",
)
def test_round_trip(hint: Any, value: Any) -> None:
    assert ((value,), {}) == over_the_wire(taking(hint), value)


def test_not_a_number_round_trips() -> None:
    [number], _ = over_the_wire(taking(float), float("nan"))
    assert number != number  # noqa: PLR0124 — that is what makes it not a number


zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=zones), st.binary(), st.floats(allow_nan=False), st.integers())
def test_values_round_trip(moment: datetime, data: bytes, number: float, whole: int) -> None:
    def function(moment: datetime, data: bytes, number: float, whole: int) -> None: ...

    args, _ = over_the_wire(function, moment, data, number, whole)
    assert (moment, data, number, whole) == args
    assert moment.utcoffset() == args[0].utcoffset()


def test_how_arguments_were_passed_is_kept() -> None:
    def function(a: int, b: int = 2, *, c: int = 3) -> None: ...

    signature = Signature("t", function)
    assert ([1], {}) == signature.encode((1,), {})
    assert ([1], {"b": 5}) == signature.encode((1,), {"b": 5})
    assert ([], {"a": 1, "c": 9}) == signature.encode((), {"c": 9, "a": 1})
    assert ((1, 5), {"c": 9}) == over_the_wire(function, 1, b=5, c=9)


def test_a_default_is_the_workers_to_fill_in() -> None:
    def before(a: int, b: int = 2) -> None: ...

    def after(a: int, b: int = 3, c: int = 4) -> None: ...

    args, kwargs = Signature("t", before).encode((1,), {})
    assert ((1,), {}) == Signature("t", after).decode(args, kwargs)


def test_all_kinds_of_parameters() -> None:
    def function(first: int, /, second: int, *rest: int, flag: bool = False, **others: Colour) -> None: ...

    assert ((1, 2), {}) == over_the_wire(function, 1, 2)
    assert ((1, 2, 3, 4), {"flag": True}) == over_the_wire(function, 1, 2, 3, 4, flag=True)
    expected = ((1, 2, 3), {"first": Colour.RED, "other": Colour.BLUE})
    assert expected == over_the_wire(function, 1, 2, 3, first=Colour.RED, other=Colour.BLUE)
    assert ((1, 2), {}) == over_the_wire(function, 1, second=2)


def test_a_parameter_may_have_any_name() -> None:
    def function(self: int, json: int, /, copy: int, p0: int, *, schema: int) -> None: ...

    assert ((1, 2, 3, 4), {"schema": 5}) == over_the_wire(function, 1, 2, 3, 4, schema=5)
    assert ((1, 2, 3, 4), {"schema": 5}) == over_the_wire(function, 1, 2, schema=5, p0=4, copy=3)


def test_no_parameters() -> None:
    def function() -> None: ...

    assert ((), {}) == over_the_wire(function)


def test_lax_values_are_converted() -> None:
    assert ((3,), {}) == over_the_wire(taking(int), "3")
    assert ((User(name="a", id=UUID(int=1)),), {}) == over_the_wire(taking(User), {"name": "a", "id": UUID(int=1)})


def test_a_context_is_not_part_of_the_message() -> None:
    def function(
        to: str, *, ctx: Context = INJECTED, other: Context | None = None, text: "Context | None" = None
    ) -> None: ...

    signature = Signature("t", function)
    assert ("ctx", "other", "text") == signature.context_parameters
    assert "(to: str) -> None" != str(signature)
    assert str(signature).startswith("(to: str)")
    assert (["a"], {}) == signature.encode(("a",), {})
    with pytest.raises(InvalidArguments, match="unexpected keyword argument 'ctx'"):
        signature.decode(["a"], {"ctx": None})


def test_a_context_must_be_keyword_only() -> None:
    def function(ctx: Context, to: str) -> None: ...

    with pytest.raises(ConfigurationError, match=r"task t: the Context parameter 'ctx' must be keyword-only") as caught:
        Signature("t", function)
    assert "(…, *, ctx: Context = INJECTED)" in str(caught.value)


class Opaque:
    pass


@pytest.mark.parametrize("annotation", ["Missing", "Colour.missing", "1 +", "int | 'str'"])
def test_an_annotation_that_means_nothing(annotation: str) -> None:
    with pytest.raises(ConfigurationError, match="task t: an annotation can't be resolved"):
        Signature("t", taking(annotation))


def test_a_partial_has_the_annotations_of_its_function() -> None:
    def function(first: int, second: "Colour") -> "Missing": ...  # type: ignore[name-defined]  # noqa: F821 — the point

    assert ((Colour.RED,), {}) == over_the_wire(partial(function, 1), "red")


def test_a_type_that_is_not_json() -> None:
    with pytest.raises(
        ConfigurationError, match=r"task t: a parameter's type can't be sent as JSON: .*Opaque"
    ) as caught:
        Signature("t", taking(Opaque))
    assert "\n" not in str(caught.value)


SECRET = "s3cret-canary"


class Strict(BaseModel):
    word: str = Field(pattern="^a$")

    @field_validator("word")
    @classmethod
    def check(cls, word: str) -> str:
        raise ValueError("wrong\nin two lines")


class Closed(BaseModel, extra="forbid"):
    word: str


@pytest.mark.parametrize(
    ("hint", "value", "problem"),
    [
        (int, SECRET, "value: Input should be a valid integer"),
        (Colour, SECRET, "value: Input should be 'red' or 'blue'"),
        (Literal["a", "b"], SECRET, "value: Input should be 'a' or 'b'"),
        (datetime, SECRET, "value: Input should be a valid datetime"),
        (UUID, SECRET, "value: Input should be a valid UUID"),
        (Annotated[str, Field(max_length=3)], SECRET, "value: String should have at most 3"),
        (Annotated[str, Field(pattern="^x$")], SECRET, "value: String should match pattern"),
        (User, {"nom": SECRET}, "value.name: Field required"),
        (Strict, {"word": "a"}, "value.word: a validator of its type refused it"),
        (list[int], [1, SECRET], "value.1: Input should be a valid integer"),
        (Pet, {"kind": SECRET}, "value: 'kind' must be one of 'cat', 'dog'"),
        (Pet, SECRET, "value: "),
        (dict[str, int], {SECRET: "x"}, "value.[…]: Input should be a valid integer"),
        (dict[int, int], {SECRET: 1}, "value.[…].[key]: Input should be a valid integer"),
        (list[dict[str, User]], [{SECRET: {"nom": "x"}}], "value.0.[…].name: Field required"),
        (Closed, {"word": "a", SECRET: 1}, "value.[…]: Extra inputs are not permitted"),
        (int | User, {"nom": SECRET}, "value.int: Input should be a valid integer; value.User.name: Field required"),
    ],
    ids=str,
)
def test_an_error_says_where_and_never_the_value(hint: Any, value: Any, problem: str) -> None:
    signature = Signature("mail.send", taking(hint))
    for attempt in (signature.encode, signature.decode):
        with pytest.raises(InvalidArguments) as caught:
            attempt([value], {})
        assert str(caught.value).startswith(f"mail.send: {problem}")
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "key"),
    [(bytes, SECRET.encode()), (Path, Path(SECRET)), (tuple[str], (SECRET,)), (int, 10**30), (date, date(1999, 9, 9))],
    ids=str,
)
def test_a_key_that_is_no_text_is_not_shown_either(kind: Any, key: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"^t: value\.\[…\]: Input should be a valid integer") as caught:
        Signature("t", taking(dict[kind, int])).encode([{key: "x"}], {})
    assert not any(shown in str(caught.value) for shown in (SECRET, "000", "1999"))


def test_an_error_of_a_type_without_a_schema_names_parameters_only(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = Signature("t", taking(list[User]))

    def fail() -> None:
        raise PydanticInvalidForJsonSchema("no")

    monkeypatch.setattr(signature._codec._python, "json_schema", fail)
    with pytest.raises(InvalidArguments, match=r"t: value\.0\.\[…\]: Input should be a valid string"):
        signature.encode([[{"name": 1}]], {})


def test_all_problems_are_named() -> None:
    def function(a: int, b: int) -> None: ...

    with pytest.raises(InvalidArguments, match=r"t: a: Input should be .*; b: Input should be"):
        Signature("t", function).encode(("x",), {"b": "y"})


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2), {}, "too many positional arguments"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
        ((1,), {"b": SECRET}, "got an unexpected keyword argument 'b'"),
    ],
)
def test_arguments_that_do_not_fit(args: tuple[Any, ...], kwargs: dict[str, Any], problem: str) -> None:
    def function(a: int) -> None: ...

    for attempt in (Signature("t", function).encode, Signature("t", function).decode):
        with pytest.raises(InvalidArguments, match=problem + re.escape(": it takes (a: int)")) as caught:
            attempt(args, kwargs)
        assert SECRET not in str(caught.value)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["\ud800", nested(400), 10**4999], ids=["lone surrogate", "deep", "huge"])
@pytest.mark.parametrize("hint", [Any, str, int, list[Any]], ids=str)
def test_what_can_not_be_sent_can_not_be_read_either(value: Any, hint: Any) -> None:
    signature = Signature("t", taking(hint))
    for attempt in (signature.encode, signature.decode):
        with pytest.raises(InvalidArguments):
            attempt([value], {})
    with pytest.raises(InvalidArguments):
        signature.encode_many([([0], {})] * MANY + [([value], {})])


def test_calls_with_other_arguments_can_be_sent_together() -> None:
    def function(a: int, b: Annotated[int, Field(gt=0)] = 2, *, c: Any = None, ctx: Context = INJECTED) -> None: ...

    signature = Signature("t", function)
    calls: list[tuple[list[Any], dict[str, Any]]] = [
        ([1], {}),
        ([1, "7"], {}),
        ([], {"c": {"x": [None, 1.5]}, "a": 1}),
    ]
    assert [signature.encode(*call) for call in calls] * MANY == signature.encode_many(calls * MANY)
    for wrong in (([1, 0], {}), ([1], {"ctx": 1}), ([], {}), ([1, 2, 3], {}), ([1], {"a": 1}), ([1], {"c": (1,)})):
        with pytest.raises(InvalidArguments, match="t: call number 107: "):
            signature.encode_many([*calls * MANY, wrong], 107 - 3 * MANY)
        with pytest.raises(InvalidArguments, match="t: call number 1: "):
            signature.encode_many([calls[0], wrong])


def test_what_is_wrong_with_one_of_many_is_not_repeated() -> None:
    with pytest.raises(InvalidArguments) as caught:
        Signature("t", taking(int)).encode_many([(["s3cret"], {})] * MANY)
    assert caught.value.__context__ is None
    assert "s3cret" not in str(caught.value)


def test_an_object_that_is_not_json() -> None:
    with pytest.raises(InvalidArguments, match="can't be sent as JSON"):
        Signature("t", taking(Any)).encode([Opaque()], {})


class OneWay(BaseModel):
    inner: int = Field(serialization_alias="written", validation_alias="read")


@dataclass
class Named:
    names: dict[str, int]


@pytest.mark.parametrize("value", [{"a": {"\ud800": 1}}, {"b": Named({"\udfff": 1})}, {"\ude00\ud83d": 1}])
def test_a_key_with_half_a_character_is_refused(value: dict[str, Any]) -> None:
    def function(a: dict[str, int] | None = None, b: Named | None = None, **named: int) -> None: ...

    with pytest.raises(InvalidArguments, match="surrogates not allowed"):
        Signature("t", function).encode((), value)


def test_a_replacement_character_is_a_character() -> None:
    def function(*values: Any, **named: Any) -> None: ...

    value = {"\ufffd": [1, {"2": "\ufffd"}]}
    assert ((value,), {"\ufffd": 1}) == over_the_wire(function, value, **{"\ufffd": 1})
    assert (({"\ufffd": 1},), {}) == over_the_wire(taking(dict[str, int]), {"\ufffd": 1})


def test_what_the_worker_could_not_read_is_refused_at_once() -> None:
    with pytest.raises(InvalidArguments, match=r"read: Field required \(as it is read back from JSON\)"):
        Signature("t", taking(OneWay)).encode([OneWay.model_validate({"read": 1})], {})


def broken(value: Any) -> Any:
    raise KeyError(value)


class Code(Enum):
    FIVE = "5"
    LONG = SECRET


@pytest.mark.parametrize("hint", [int, list[int], dict[str, int], int | None, Any], ids=str)
def test_a_member_of_an_enum_is_no_int_because_it_is_annotated_as_one(hint: Any) -> None:
    def function(first: str, value: Any) -> None: ...

    function.__annotations__["value"] = hint
    signature = Signature("t", function)
    for code in Code:
        fine: Any
        value: Any
        fine, value = ([], [code]) if hint == list[int] else ({}, {"a": code}) if hint == dict[str, int] else (1, code)
        with pytest.raises(InvalidArguments, match=r"^t: value") as caught:
            signature.encode(["a", value], {})
        assert SECRET not in str(caught.value)
        with pytest.raises(InvalidArguments, match=r"^t: call number 7: value"):
            signature.encode_many([(["a", fine], {})] * 7 + [(["a", value], {})])


@pytest.mark.parametrize("when", [BeforeValidator, AfterValidator], ids=lambda each: each.__name__)
def test_a_validator_that_fails_in_another_way_refuses_a_call_and_fails_an_attempt(when: Any) -> None:
    def function(first: int, value: Any) -> None: ...

    function.__annotations__["value"] = Annotated[str, when(broken)]
    signature = Signature("t", function)
    problem = r"value: a validator of its type raised KeyError$"
    attempts = {
        signature.encode: InvalidArguments,
        signature.encode_json: InvalidArguments,
        signature.decode: ValidatorFailed,
    }
    for attempt, kind in attempts.items():
        with pytest.raises(kind, match="^t: " + problem) as caught:
            attempt([1, SECRET], {})
        assert caught.value.__context__ is None
    with pytest.raises(InvalidArguments, match="^t: call number 0: " + problem):
        signature.encode_many([([1, SECRET], {})] * MANY)
