"""Draws annotations of all sorts with values that fit them, nearly fit them, or don't.

All texts and bytes hold CANARY, and all big numbers CANARY_NUMBER, so that a leak is found.
"""

import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar, Union
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    StrictBytes,
    StrictInt,
    StringConstraints,
    computed_field,
    field_serializer,
    field_validator,
)
from typing_extensions import TypedDict

CANARY = "s3cret"
CANARY_NUMBER = 4815162342
T = TypeVar("T")
Row = NewType("Row", int)


class Text(str):
    """A text of a program's own."""

    __slots__ = ()


class Whole(int):
    """A number of a program's own."""


class Records(list[Any]):
    """A list of a program's own."""


class Colour(Enum):
    RED = "r"
    ONE = 1


class Name(StrEnum):
    RED = "r"


class Level(IntEnum):
    LOW = 1


class Pair(NamedTuple):
    a: int
    b: Any = None


class Entry(TypedDict, total=False):
    a: int
    b: Any


class Engine(BaseModel):
    name: str
    spare: Any = None


class Remote(Engine):
    url: str = "x"


class Open(BaseModel, extra="allow"):
    a: int = 0


class Aliased(BaseModel):
    a: int = Field(alias="b")


class OneWay(BaseModel):
    a: int = Field(validation_alias="in", serialization_alias="out")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: Any = Field(default=None, alias="b")


class Computed(BaseModel):
    a: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.a


class Hiding(BaseModel):
    a: Any = Field(default=None, exclude=True)


class Private(BaseModel):
    a: int = 0
    _b: Any = PrivateAttr(default=None)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    a: Any = None
    day: date | None = None
    pair: tuple[int, ...] = ()


class Rounded(BaseModel):
    a: float

    @field_serializer("a")
    def rounded(self, value: float) -> int:
        return round(value)


class Doubled(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def doubled(cls, value: int) -> int:
        return 2 * value


class Chatty(BaseModel):
    a: Any

    @field_validator("a")
    @classmethod
    def refuse(cls, value: Any) -> Any:
        raise ValueError(f"no:\n{value!r}")


class Rude(BaseModel):
    a: Any

    @field_validator("a")
    @classmethod
    def fail(cls, value: Any) -> Any:
        raise KeyError(value)


class ChattyOut(BaseModel):
    a: Any

    @field_serializer("a")
    def refuse(self, value: Any) -> Any:
        raise ValueError(f"no:\n{value!r}")


class Box(BaseModel, Generic[T]):
    content: T


class Frozen(BaseModel, frozen=True):
    a: int


class Numbers(RootModel[list[int]]):
    pass


@dataclass
class Point:
    x: int
    y: Any = None


@dataclass
class Point3(Point):
    z: int = 0


@dataclass(eq=False)
class Bare:
    x: Any


@dataclass
class Counted:
    x: int
    count: int = field(init=False, default=7)


@dataclass(frozen=True, slots=True)
class Slotted:
    x: Any


class Opaque:
    def __repr__(self) -> str:
        return f"Opaque({CANARY})"


def private(value: Any) -> Private:
    made = Private(a=1)
    made._b = value
    return made


def recounted(count: int) -> Counted:
    made = Counted(1)
    made.count = count
    return made


numbers = st.integers(-3, 3) | st.integers(0, 9).map(lambda n: CANARY_NUMBER * 10**9 + n)
reals = st.floats() | st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf")])
texts = st.one_of(
    st.text(max_size=3).map(lambda text: CANARY + text),
    st.sampled_from([" r ", "r", "1", "1.0", "true", "null", "", "cmVk", "\ud800", "2026-01-01", "P1D", "R"]),
)
data = st.binary(max_size=3).map(lambda some: CANARY.encode() + some) | st.sampled_from([b"", b"r", b"1", b"cmVk"])
zones = st.one_of(
    st.none(),
    st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), timezone(timedelta(minutes=-61), "x")]),
    st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds))),
)
moments = st.one_of(
    st.datetimes(timezones=zones),
    st.builds(
        lambda fold: datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold), st.integers(0, 1)
    ),
)
decimals = st.decimals().filter(lambda number: not number.is_snan()) | st.sampled_from(
    [Decimal("1.10"), Decimal("-0"), Decimal("NaN"), Decimal("1E+3")]
)

LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, numbers),
    (float, reals),
    (bool, st.booleans()),
    (str, texts),
    (bytes, data),
    (None, st.none()),
    (complex, st.complex_numbers()),
    (Decimal, decimals),
    (Fraction, st.fractions()),
    (datetime, moments),
    (date, st.dates()),
    (time, st.times(timezones=zones)),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Path, texts.map(lambda text: Path(text.replace("\0", "")))),
    (PurePosixPath, texts.map(lambda text: PurePosixPath(text.replace("\0", "")))),
    (re.Pattern, st.sampled_from([re.compile("a"), re.compile("a", re.IGNORECASE), re.compile(b"a")])),
    (re.Pattern[str], st.sampled_from([re.compile("a"), re.compile("a", re.IGNORECASE)])),
    (IPv4Address, st.ip_addresses(v=4)),
    (Colour, st.sampled_from(Colour)),
    (Name, st.sampled_from(Name)),
    (Level, st.sampled_from(Level)),
    (Literal["r", 1, True, Colour.RED], st.sampled_from(["r", 1, True, Colour.RED])),
    (ByteSize, numbers | st.just("1 GB")),
    (SecretStr, texts.map(SecretStr)),
    (SecretBytes, data.map(SecretBytes)),
    (Json[Any], st.just("[1, 1.0]")),  # type: ignore[misc]
    (Row, numbers),
    (StrictInt, numbers),
    (Rude, texts.map(lambda text: {"a": text})),
    (Rude, texts.map(lambda text: Rude.model_construct(a=text))),
    (StrictBytes, data),
    (Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)], texts),
    (Annotated[int, Field(ge=-9)], numbers),
    (Annotated[int, AfterValidator(lambda value: value + 1)], numbers),
    (Annotated[Any, BeforeValidator(lambda value: f"{value}!")], texts),
    (Annotated[Any, AfterValidator(lambda value: [value])], numbers),
    (Annotated[float, PlainSerializer(int)], reals),
    (Any, st.nothing()),
    (object, st.nothing()),
    (Pair, st.builds(Pair, numbers, texts)),
    (Entry, st.fixed_dictionaries({}, optional={"a": numbers, "b": data})),
    (Engine, st.builds(Engine, name=texts, spare=data | numbers)),
    (Engine, st.builds(Remote, name=texts)),
    (Engine, st.builds(Engine.model_construct, name=numbers | texts)),
    (Open, st.fixed_dictionaries({}, optional={"b": numbers | moments}).map(Open.model_validate)),
    (Aliased, st.builds(Aliased, b=numbers)),
    (OneWay, numbers.map(lambda number: OneWay.model_validate({"in": number}))),
    (ByName, st.builds(ByName, a=numbers | texts)),
    (Computed, st.builds(Computed, a=numbers)),
    (Hiding, st.builds(Hiding, a=st.none() | texts)),
    (Private, st.builds(private, st.none() | texts)),
    (Strict, st.builds(Strict, a=numbers, day=st.dates(), pair=st.just((1, 2)))),
    (Rounded, st.builds(Rounded, a=reals)),
    (Doubled, st.builds(Doubled, a=st.integers(-3, 3))),
    (Chatty, texts.map(lambda text: {"a": text})),
    (Chatty, texts.map(lambda text: Chatty.model_construct(a=text))),
    (ChattyOut, st.builds(ChattyOut, a=texts)),
    (Frozen, st.builds(Frozen, a=numbers)),
    (Numbers, st.lists(st.integers(0, 3), max_size=2).map(Numbers)),
    (Box[int], numbers.map(lambda number: Box[int](content=number))),
    (Box, texts.map(lambda text: Box[Any](content=text))),
    (Point, st.builds(Point, numbers, texts | data)),
    (Point, st.builds(Point3, numbers)),
    (Point, st.builds(Point, texts)),
    (Bare, st.builds(Bare, texts | reals)),
    (Counted, st.builds(recounted, st.just(7) | numbers)),
    (Slotted, st.builds(Slotted, numbers | moments)),
]
"""Annotations, and values that fit them, or that a program may take to fit."""

odd = st.one_of(
    texts.map(Text),
    numbers.map(Whole),
    st.lists(numbers, max_size=2).map(Records),
    st.just(Opaque()),
    st.just(print),
    data.map(bytearray),
    data.map(lambda some: memoryview(some)),  # noqa: PLW0108 — for mypy
    st.builds(SimpleNamespace, a=texts),
    st.just(range(3)),
    st.just(int),
)
leaf_values = st.one_of([values for _, values in LEAVES])
anything = st.recursive(
    leaf_values | odd,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.lists(inner, max_size=2).map(tuple),
        st.lists(inner, max_size=2).map(deque),
        st.dictionaries(texts | numbers | st.booleans() | st.dates(), inner, max_size=2),
        st.sets(texts | numbers | st.booleans() | data, max_size=2),
        st.frozensets(texts | numbers, max_size=2),
    ),
    max_leaves=4,
)
Typed = tuple[Any, st.SearchStrategy[Any]]
_hashable = (int, str, bytes, bool, float, date, UUID, Colour, Name, Level, datetime, Frozen, Decimal)


def _leaf(of: Typed) -> Typed:
    hint, values = of
    return hint, anything if hint in {Any, object} else values


leaves = st.sampled_from(LEAVES).map(_leaf)
keys = st.sampled_from([leaf for leaf in LEAVES if leaf[0] in _hashable])


def _many(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, max_size=2)


def _sized(make: Callable[[Any], Any], kind: Any) -> Callable[[Typed], Typed]:
    return lambda of: (kind[of[0]], _many(of[1]).map(make))


def _mapped(make: Callable[[Any], Any], kind: Any) -> Callable[[tuple[Typed, Typed]], Typed]:
    return lambda of: (kind[of[0][0], of[1][0]], st.dictionaries(of[0][1], of[1][1], max_size=2).map(make))


def _wider(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return st.one_of(
        inner.map(_sized(list, list)),
        inner.map(lambda of: (tuple[of[0], ...], _many(of[1]).map(tuple))),  # type: ignore[valid-type]
        inner.map(_sized(deque, deque)),
        inner.flatmap(lambda of: st.sampled_from([list, tuple, deque]).map(lambda make: _sized(make, Sequence)(of))),
        keys.map(_sized(set, set)),
        keys.map(_sized(frozenset, frozenset)),
        st.tuples(keys, inner).map(_mapped(dict, dict)),
        st.tuples(keys, inner).map(_mapped(OrderedDict, OrderedDict)),
        st.tuples(keys, inner).map(_mapped(dict, Mapping)),
        st.tuples(keys, inner).map(_mapped(lambda made: defaultdict(list, made), defaultdict)),
        st.tuples(inner, inner).map(lambda of: (tuple[of[0][0], of[1][0]], st.tuples(of[0][1], of[1][1]))),  # type: ignore[misc]
        st.tuples(inner, inner).map(lambda of: (Union[of[0][0], of[1][0]], of[0][1] | of[1][1])),  # noqa: UP007
        inner.map(lambda of: (Union[of[0], None], of[1] | st.none())),  # noqa: UP007
        inner.map(lambda of: (Annotated[of[0], Field(description="x")], of[1])),
    )


types = st.recursive(leaves, _wider, max_leaves=4)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    """Draw an annotation, and a value: mostly one that fits."""
    hint, values = draw(types)
    return hint, draw(st.one_of(values, values, values, anything))
