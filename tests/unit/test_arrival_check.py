"""The quick check, for classes that it knows: yes for what a program makes, no for what it spoils."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, field_validator
from pydantic.alias_generators import to_camel

from qworker.wire.arrival import arrival_check


class Status(Enum):
    NEW = "new"


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    sku: str
    price: float = Field(default=1.0, ge=0)


class Order(BaseModel):
    id: UUID
    at: datetime
    day: date
    amount: Decimal
    status: Status = Status.NEW
    lines: list[Line] = []
    tags: dict[str, Any] = {}
    note: Annotated[str, Field(max_length=9)] | None = None
    parent: "Order | None" = None


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str


@dataclass(slots=True)
class Point:
    x: int
    names: list[str] = field(default_factory=list)


class Pair(NamedTuple):
    a: int
    b: Line


class Validated(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def doubled(cls, value: int) -> int:
        return 2 * value


class Private(BaseModel):
    a: int
    _b: int = PrivateAttr(default=0)


@dataclass
class Computing:
    a: int

    def __post_init__(self) -> None:
        self.a += 1


class Hot(BaseModel):
    model_config = ConfigDict(str_to_lower=True)
    a: str


class Remote(Line):
    url: str = ""


def check_of(hint: Any) -> Callable[[Any], bool]:
    schema: Any = TypeAdapter(hint).core_schema
    if schema["type"] != "definitions":
        return arrival_check(schema, {})
    return arrival_check(schema["schema"], {each["ref"]: each for each in schema["definitions"]})


def order(**fields: Any) -> Order:
    made = Order(id=UUID(int=1), at=datetime(2026, 1, 1, tzinfo=UTC), day=date(2026, 1, 1), amount=Decimal("1.10"))
    made.__dict__.update(fields)
    return made


def spoiled(made: Any, name: str, value: Any) -> Any:
    object.__setattr__(made, name, value)
    return made


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Line, Line(sku="a")),
        (Order, order()),
        (Order, order(lines=[Line(sku="a", price=0)], tags={"a": [1, None]}, note="x", parent=order())),
        (Order | None, None),
        (list[Order], [order(), order()]),
        (dict[str, Line], {"a": Line(sku="a")}),
        (Camel, Camel.model_validate({"firstName": "a"})),
        (Point, Point(1, ["a"])),
        (tuple[Point, ...], (Point(1),)),
        (Any, {"a": [1.5]}),
    ],
    ids=str,
)
def test_what_plain_classes_hold_is_sure(hint: Any, value: Any) -> None:
    assert check_of(hint)(value)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Line, Remote(sku="a")),
        (Line, Line.model_construct(sku=1)),
        (Line, Line.model_construct(sku="a", price=1)),
        (Line, Line.model_construct(sku="a", price=-1.0)),
        (Line, Line.model_construct(sku="a", price=float("nan"))),
        (Line, Line.model_construct(price=1.0)),
        (Line, Line.__new__(Line)),
        (Line, spoiled(Line(sku="a"), "other", 1)),
        (Line, spoiled(Line(sku="a"), "__pydantic_extra__", {"other": 1})),
        (Line, spoiled(Line(sku="a"), "__pydantic_private__", {"_other": 1})),
        (Order, order(at=datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")))),
        (Order, order(day=datetime(2026, 1, 1, tzinfo=UTC))),
        (Order, order(amount=Decimal("NaN"))),
        (Order, order(amount=1)),
        (Order, order(status="new")),
        (Order, order(lines=(Line(sku="a"),))),
        (Order, order(lines=[Remote(sku="a")])),
        (Order, order(tags={1: 1})),
        (Order, order(tags={"a": {1}})),
        (Order, order(note="0123456789")),
        (Order, order(parent=order(day=None))),
        (list[Line], [Line(sku="a"), Remote(sku="a")]),
        (Point, Point("1")),  # type: ignore[arg-type]
        (Point, Point(1, [1])),  # type: ignore[list-item]
        (Pair, Pair(True, Line(sku="a"))),
        (Any, (1,)),
    ],
    ids=str,
)
def test_what_does_not_fit_a_field_is_not_sure(hint: Any, value: Any) -> None:
    assert not check_of(hint)(value)


@pytest.mark.parametrize(
    ("hint", "value"),
    [(Validated, Validated(a=1)), (Private, Private(a=1)), (Computing, Computing(1)), (Hot, Hot(a="a"))],
    ids=str,
)
def test_a_class_that_may_make_another_value_when_it_is_read_is_not_sure(hint: Any, value: Any) -> None:
    assert not check_of(hint)(value)
