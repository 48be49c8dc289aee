import re
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, PrivateAttr, SecretBytes, SecretStr

from qworker.wire.sameness import all_same, difference, is_json

NAN = float("nan")
Pair = namedtuple("Pair", ["a", "b"])  # noqa: PYI024 — one without types


class Colour(Enum):
    RED = "r"


class Name(StrEnum):
    RED = "r"


class Level(IntEnum):
    LOW = 1


class Rights(Flag):
    READ = 1
    WRITE = 2


class Engine(BaseModel):
    name: Any
    _spare: int = PrivateAttr(default=0)


class Remote(Engine):
    url: str = ""


class Open(BaseModel, extra="allow"):
    pass


@dataclass
class Point:
    x: Any
    cache: Any = field(default=None, compare=False)


@dataclass(eq=False)
class Bare:
    x: Any


@dataclass(frozen=True, slots=True)
class Slotted:
    x: Any


class Plain:
    def __init__(self, x: Any) -> None:
        self.x = x


class WithSlots:
    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x


class Rude:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


class Moment(datetime):
    pass


def spare(engine: Engine) -> Engine:
    engine._spare = 7
    return engine


NAIVE = datetime.fromisoformat("2026-01-01")
BERLIN = ZoneInfo("Europe/Berlin")
TWICE = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
"""An hour that is there twice; == finds no other datetime equal to it."""
AN_HOUR, TWO_HOURS = timezone(timedelta(hours=1)), timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (1, 1),
        (NAN, float("nan")),
        (complex(NAN, 1), complex(NAN, 1)),
        (Decimal("NaN"), Decimal("NaN")),
        ([1, "a", None, 1.5, True, b"x"], [1, "a", None, 1.5, True, b"x"]),
        ({"a": [NAN]}, {"a": [float("nan")]}),
        ({1, "a", (2, 3)}, {(2, 3), "a", 1}),
        (frozenset({frozenset({1})}), frozenset({frozenset({1})})),
        (deque([1], maxlen=3), deque([1], maxlen=3)),
        (defaultdict(list, a=[1]), defaultdict(list, a=[1])),
        (OrderedDict(a=1), OrderedDict(a=1)),
        (Counter("aab"), Counter("aab")),
        (Pair(1, "b"), Pair(1, "b")),
        (Colour.RED, Colour.RED),
        (Rights.READ | Rights.WRITE, Rights(3)),
        (Engine(name="a"), Engine(name="a")),
        (spare(Engine(name="a")), spare(Engine(name="a"))),
        (Open.model_validate({"a": 1}), Open.model_validate({"a": 1})),
        (Point(1, cache=1), Point(1, cache=2)),
        (Bare([1]), Bare([1])),
        (Slotted(1), Slotted(1)),
        (Plain([1]), Plain([1])),
        (WithSlots([1]), WithSlots([1])),
        (SimpleNamespace(a=1), SimpleNamespace(a=1)),
        (SecretStr("a"), SecretStr("a")),
        (re.compile("a"), re.compile("a")),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), "Z"))),
        (TWICE, TWICE.replace(tzinfo=TWO_HOURS)),
        (TWICE.replace(fold=1), TWICE.replace(tzinfo=AN_HOUR)),
        (Moment(2026, 1, 1), NAIVE),
        (1, 1.0),  # where the annotation says float
    ],
)
def test_what_is_the_same(sent: Any, received: Any) -> None:
    assert difference(sent, received) is None
    assert all_same([(sent, received)])


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (1, True),
        (True, 1),
        (1.0, 1),
        (2**53 + 1, float(2**53)),
        (0.0, -0.0),
        ([1.0, 0.0], [1.0, -0.0]),
        ({"a": 0.0}, {"a": -0.0}),
        ({0.0: 1}, {-0.0: 1}),
        (Engine(name=0.0), Engine(name=-0.0)),
        (Slotted(-0.0), Slotted(0.0)),
        ("1", 1),
        (None, "None"),
        (b"a", "a"),
        (bytearray(b"a"), b"a"),
        ([1], [True]),
        ([1], (1,)),
        ((1,), [1]),
        ([1], [1, 2]),
        ({"a": 1.0}, {"a": 1}),
        ({1: "a"}, {"1": "a"}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({1}, {True}),
        ({1}, {2}),
        ({1}, frozenset({1})),
        ({1}, [1]),
        (deque([1], maxlen=3), deque([1])),
        (deque([1]), deque([True])),
        (defaultdict(list, {"a": [1]}), defaultdict(None, {"a": [1]})),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (OrderedDict(a=1), OrderedDict(a=True)),
        (Pair(1, 2), (1, 2)),
        (Pair(1, 2.0), Pair(1, 2)),
        (Colour.RED, "r"),
        (Name.RED, "r"),
        (Level.LOW, 1),
        (Remote(name="a"), Engine(name="a")),
        (Engine(name=1), Engine(name=True)),
        (Engine(name="a"), Engine.model_construct()),
        (Engine.model_construct(), Engine(name="a")),
        (spare(Engine(name="a")), Engine(name="a")),
        (Open.model_validate({"a": 1}), Open()),
        (Point(1), Point(2)),
        (Point((1,)), Point([1])),
        (Bare(1), Bare(2)),
        (Slotted(1), Slotted(True)),
        (Plain(1), Plain("1")),
        (WithSlots(1), WithSlots(2)),
        (SecretStr("a"), SecretStr("**********")),
        (SecretStr("a"), "**********"),
        (SecretBytes(b"a"), SecretBytes(b"*")),
        (re.compile("a", re.IGNORECASE), re.compile("a")),
        (Decimal("1.10"), Decimal("1.1")),
        (Decimal(1), 1),
        (NAIVE, date(2026, 1, 1)),
        (NAIVE, NAIVE.replace(tzinfo=UTC)),
        (datetime(2026, 1, 1, 1, tzinfo=AN_HOUR), datetime(2026, 1, 1, tzinfo=UTC)),
        (time(1, tzinfo=BERLIN), time(1)),
        (iter([1]), iter([2])),
        ((each for each in [1]), (each for each in [1])),
        (Rude(), Rude()),
        (print, "print"),
    ],
)
def test_what_is_not_the_same(sent: Any, received: Any) -> None:
    assert difference(sent, received) is not None
    assert not all_same([(1, 1), (sent, received)])


def test_a_list_may_stand_for_another_sequence() -> None:
    for sent in ((1, (2,)), deque([1, (2,)]), [1, deque([2])]):
        assert difference(sent, [1, [2]], lists=True) is None
        assert difference({"a": sent}, {"a": [1, [2]]}, lists=True) is None
    for other in ("12", b"12", {1: 2}, {1, 2}):
        assert difference(other, [1, 2], lists=True) is not None
    assert difference((1,), [2], lists=True) is not None
    assert difference([1], (1,), lists=True) is not None


def test_what_contains_itself_has_an_end() -> None:
    one: list[Any] = []
    one.append(one)
    other: list[Any] = []
    other.append(other)
    assert difference(one, other) is not None


SECRET = "s3cret-canary"


@pytest.mark.parametrize(
    ("sent", "received", "path", "what"),
    [
        (Engine(name=[1, {SECRET: 1}]), Engine(name=[1, {SECRET: "1"}]), "name.1.[…]", "an int would arrive as a str"),
        (Point({SECRET}), Point({"x"}), "x.[…]", "it would arrive changed"),
        ({"a": {1: SECRET}}, {"a": {"1": SECRET}}, "[…]", "a key: an int would arrive as a str"),
        ({SECRET + "\ud800": 1}, {SECRET + "?": 1}, "", "a key: half a character, surrogates not allowed"),
        ([Remote(name=1)], [Engine(name=1)], "0", "a Remote would arrive as its base Engine: annotate what is passed"),
        (Level.LOW, 1, "", "a Level would arrive as an int"),
        (None, SECRET, "", "None would arrive as a str"),
        (b"a", SECRET, "", "bytes would arrive as a str"),
        (spare(Engine(name=1)), Engine(name=1), "", "private attributes of an Engine would not arrive"),
        (Rude(), Rude(), "", "nothing tells whether it arrives unchanged: a Rude has no == that says so"),
        (SecretStr(SECRET), SecretStr("*"), "", "a SecretStr can't be sent: its text would stand in the message"),
    ],
)
def test_a_difference_says_where_and_never_the_value(sent: Any, received: Any, path: str, what: str) -> None:
    found = difference(sent, received)
    assert found is not None
    assert path == ".".join(found.path)
    assert found.what.startswith(what)
    assert SECRET not in repr(found)


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "a", [], {}, [1, [None]], {"a": {"b": [1.5]}}])
def test_what_is_json(value: Any) -> None:
    assert is_json(value)


@pytest.mark.parametrize(
    "value",
    [NAN, float("inf"), (1,), {1: 1}, [(1,)], {"a": {1}}, Name.RED, [Level.LOW], {Name.RED: 1}, OrderedDict(), b""],
)
def test_what_is_not_json(value: Any) -> None:
    assert not is_json(value)


def test_a_shift_by_seconds_is_seen() -> None:
    old = datetime(1850, 1, 1, tzinfo=BERLIN)
    assert timedelta(seconds=3208) == old.utcoffset()
    assert difference(old, old.replace(tzinfo=timezone(timedelta(minutes=53)))) is not None
