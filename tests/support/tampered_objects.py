"""Draws classes of models, dataclasses and named tuples, and objects of them that nothing has validated.

Any field may hold anything, be missing, or stand beside something that is no field.
"""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Union
from uuid import UUID

from hypothesis import reject
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticSchemaGenerationError,
    PydanticUserError,
    create_model,
)
from pydantic.alias_generators import to_camel

from types_of_all_sorts import Colour, Level, Name, Typed, anything, decimals, moments, numbers, reals, texts, types

_FIELDS: list[Typed] = [
    (int, numbers),
    (str, texts),
    (float, reals),
    (bool, st.booleans()),
    (None, st.none()),
    (Any, anything),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, moments),
    (time, st.times()),
    (Decimal, decimals),
    (Colour, st.sampled_from(Colour)),
    (Name, st.sampled_from(Name)),
    (Level, st.sampled_from(Level)),
    (Literal["r", 1, True], st.sampled_from(["r", 1, True])),
    (int | str | None, numbers | texts),
    (Annotated[int, Field(ge=0)] | bool, numbers | st.booleans()),
    (Annotated[int, Field(ge=0, multiple_of=2)], numbers),
    (Annotated[float, Field(lt=1)], reals),
    (Annotated[str, Field(max_length=1)], texts),
    (Annotated[str, Field(pattern="^r")], texts),
    (Annotated[str, Field(strict=True)], texts),
    (list[int], st.lists(numbers, max_size=2)),
    (Annotated[list[str], Field(max_length=1)], st.lists(texts, max_size=2)),
    (tuple[int, str], st.tuples(numbers, texts)),
    (tuple[float, ...], st.lists(reals, max_size=2).map(tuple)),
    (set[int], st.sets(numbers, max_size=2)),
    (dict[str, float], st.dictionaries(texts, reals, max_size=2)),
    (dict[int, Any], st.dictionaries(numbers, anything, max_size=2)),
]
_CONFIGS = [
    ConfigDict(),
    ConfigDict(extra="forbid", frozen=True),
    ConfigDict(extra="allow"),
    ConfigDict(alias_generator=to_camel),
    ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=False),
    ConfigDict(str_strip_whitespace=True, str_to_lower=True),
    ConfigDict(use_enum_values=True),
    ConfigDict(strict=True),
    ConfigDict(revalidate_instances="always"),
    ConfigDict(coerce_numbers_to_str=True),
]
_NAMES = ("a", "b_c", "d")


class Tree(BaseModel):
    """A model that contains itself."""

    a: int = 0
    inner: "Tree | None" = None
    others: list["Tree"] = []


@dataclasses.dataclass
class Chain:
    """A dataclass that contains itself."""

    a: int
    inner: "Chain | None" = None


def _put(made: Any, name: str, value: Any) -> None:
    object.__setattr__(made, name, value)


def _drop(made: Any, name: str, _: Any) -> None:
    object.__delattr__(made, name)


def _add(made: Any, _: str, value: Any) -> None:
    object.__setattr__(made, "no_field", value)


def _swap(made: Any, name: str, _: Any) -> None:
    made.__dict__[name] = made.__dict__.pop(name)


def _contain_itself(made: Any, name: str, _: Any) -> None:
    object.__setattr__(made, name, [made])


def _extend(made: Any, _: str, value: Any) -> None:
    object.__setattr__(made, "__pydantic_extra__", {"no_field": value})


def _hide(made: Any, _: str, value: Any) -> None:
    object.__setattr__(made, "__pydantic_private__", {"_no_field": value})


_TAMPERINGS: list[Callable[[Any, str, Any], None]] = [_put, _put, _drop, _add, _swap, _contain_itself, _extend, _hide]


def _model(names: tuple[str, ...], fields: list[Typed], config: ConfigDict, *, required: bool) -> Any:
    default = ... if required else None
    of: Any = {name: (hint, default) for name, (hint, _) in zip(names, fields, strict=True)}
    try:
        return create_model("Drawn", __config__=config, **of)
    except (PydanticSchemaGenerationError, PydanticUserError):
        reject()  # a type that not even pydantic takes


def _dataclass(names: tuple[str, ...], fields: list[Typed], *, slots: bool, required: bool) -> Any:
    of: Any = [
        (name, hint) if required else (name, hint, dataclasses.field(default=None))
        for name, (hint, _) in zip(names, fields, strict=True)
    ]
    return dataclasses.make_dataclass("Drawn", of, slots=slots, frozen=slots)


def _named_tuple(names: tuple[str, ...], fields: list[Typed]) -> Any:
    return NamedTuple("Drawn", [(name, hint) for name, (hint, _) in zip(names, fields, strict=True)])


def _empty(cls: Any) -> Any:
    if issubclass(cls, BaseModel):
        made = cls.model_construct()
        made.__dict__.clear()
        return made
    return object.__new__(cls)


@st.composite
def _classes(draw: st.DrawFn, inner: st.SearchStrategy[Typed]) -> Typed:
    fields = draw(st.lists(inner, min_size=1, max_size=len(_NAMES)))
    names, required = _NAMES[: len(fields)], draw(st.booleans())
    kind = draw(st.sampled_from(["model", "model", "dataclass", "named tuple"]))
    if kind == "model":
        cls = _model(names, fields, draw(st.sampled_from([_CONFIGS[0], *_CONFIGS])), required=required)
    elif kind == "dataclass":
        cls = _dataclass(names, fields, slots=draw(st.booleans()), required=required)
    else:
        cls = _named_tuple(names, fields)
    return cls, _objects(cls, {name: values for name, (_, values) in zip(names, fields, strict=True)})


@st.composite
def _objects(draw: st.DrawFn, cls: Any, fields: dict[str, st.SearchStrategy[Any]]) -> Any:
    values = {name: draw(strategy) for name, strategy in fields.items()}
    kind: Any = type("Drawn", (cls,), {}) if draw(st.integers(0, 9)) == 9 else cls  # one in ten
    tampered = draw(st.booleans())
    name = draw(st.sampled_from([*fields]))
    if issubclass(cls, tuple):
        return kind._make((values | ({name: draw(anything)} if tampered else {})).values())
    made = _empty(kind)
    for each, value in values.items():
        object.__setattr__(made, each, value)
    if tampered:
        with suppress(AttributeError, KeyError):  # of slots
            draw(st.sampled_from(_TAMPERINGS))(made, name, draw(anything))
    return made


def _around(of: Typed) -> st.SearchStrategy[Typed]:
    hint: Any
    hint, values = of
    return st.sampled_from(
        [
            of,
            of,
            (list[hint], st.lists(values, max_size=2)),
            (tuple[hint, ...], st.lists(values, max_size=2).map(tuple)),
            (dict[str, hint], st.dictionaries(texts, values, max_size=2)),
            (Union[hint, None], values | st.none()),  # noqa: UP007
        ]
    )


_leaves = st.one_of(st.sampled_from(_FIELDS), st.sampled_from(_FIELDS), st.sampled_from(_FIELDS), types)
_selves: list[Typed] = [
    (cls, _objects(cls, {"a": numbers, "inner": st.none() | st.builds(cls, a=numbers)})) for cls in (Tree, Chain)
]
_drawn = st.recursive(_leaves, lambda inner: _classes(inner.flatmap(_around)), max_leaves=4)


@st.composite
def tampered_objects(draw: st.DrawFn) -> tuple[Any, Any]:
    """Draw an annotation with a class in it, and a value."""
    hint, values = draw((_classes(_drawn.flatmap(_around)) | st.sampled_from(_selves)).flatmap(_around))
    return hint, draw(values)
