"""Finds where a value that came back from JSON differs from the one that was sent.

Equal means: the same type, and the same contents, all the way down. So ``1``, ``1.0`` and ``True`` differ, and so do an
enum's member and its value. Where Python leaves it open:

- a model is its fields, extra and private attributes; a dataclass the fields that its own ``==`` would compare;
- a datetime is its fields and its offset from UTC, however its time zone is called;
- a number that isn't one (NaN) equals another;
- anything else is equal if its own ``==`` says so; without one, if ``copy.copy`` would copy the same.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import zip_longest
from operator import eq
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

_DEEPEST: Final = 250
"""Levels that are compared; a message has no more than 200."""
_CLASSES: Final = 512
"""Classes that it is remembered of how they are compared."""
_MISSING: Final = object()
_CHANGED: Final = "it would arrive changed"
_UNKNOWN: Final = "nothing tells whether it arrives unchanged: {} has no == that says so"
_HIDDEN: Final = "[…]"
"""Stands for a mapping's key or a set's element, which may be a secret."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two values differ, and how; never with a value."""

    what: str
    path: tuple[str, ...] = ()
    """From the outside in."""
    retyped: bool = False
    """Whether another type arrives, by no fault of a class."""

    def within(self, part: str) -> "Difference":
        """Return the same, seen from outside of a part."""
        return Difference(self.what, (part, *self.path), self.retyped)


Comparer = Callable[[Any, Any, bool, int], Difference | None]


def difference(sent: Any, received: Any, *, lists: bool = False) -> Difference | None:
    """Return a difference, or None if there is none; with *lists*, a list may stand for any other sequence."""
    try:
        return _find(sent, received, lists, 0)
    except Exception:  # noqa: BLE001 — an object's own methods may raise anything
        return Difference(_UNKNOWN.format(_a(type(sent))))


def all_same(pairs: Iterable[tuple[Any, Any]], *, lists: bool = False) -> bool:
    """Say whether no pair of values has a difference."""
    try:
        return all(_find(sent, received, lists, 0) is None for sent, received in pairs)
    except Exception:  # noqa: BLE001 — the same
        return False


def is_json(value: Any) -> bool:
    """Say whether a value is of JSON's own types, to its last part, and so arrives as it is."""
    kind = type(value)
    if kind is list:
        return _ATOMS.issuperset(map(type, value)) or all(map(is_json, value))
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        return _ATOMS.issuperset(map(type, value.values())) or all(map(is_json, value.values()))
    return kind in _ATOMS or (kind is float and math.isfinite(value))


def _find(sent: Any, received: Any, lists: bool, depth: int) -> Difference | None:  # noqa: FBT001 — handed down
    if sent is received:
        return None
    kind = type(sent)
    if kind is not type(received):
        return _of_types(sent, received, lists, depth)
    if (same := _SAME.get(kind)) is not None:
        return None if same(sent, received) else Difference(_CHANGED)
    if depth > _DEEPEST:
        return Difference("it is nested too deep, or contains itself")
    compare = _OF_KINDS.get(kind) or _comparer_of(kind)  # type: ignore[arg-type]  # a class can be hashed
    return compare(sent, received, lists, depth + 1)


def _of_types(sent: Any, received: Any, lists: bool, depth: int) -> Difference | None:  # noqa: FBT001
    kind, into = type(sent), type(received)
    if lists and into is list and isinstance(sent, Sequence) and not isinstance(sent, str | bytes):
        return _of_sequences(sent, received, lists, depth + 1)
    if kind is int and into is float and sent == received:  # as type checkers see it, and only where it says float
        return None
    if (
        into in _LEAVES
        and isinstance(sent, into)
        and not isinstance(sent, Enum)
        and not getattr(sent, "__dict__", None)
    ):
        return None if _SAME[into](sent, received) else Difference(_CHANGED)
    if isinstance(sent, _SECRETS):
        return _secret(kind)
    if issubclass(kind, into) and into not in _JSON:
        return Difference(f"{_a(kind, into)} would arrive as its base {_name(into, kind)}: annotate what is passed")
    return Difference(f"{_a(kind, into)} would arrive as {_a(into, kind)}", retyped=True)


def _of_sequences(
    sent: Sequence[Any],
    received: Sequence[Any],
    lists: bool,  # noqa: FBT001
    depth: int,
) -> Difference | None:
    if _alike(sent, received) and sent == received:
        return None
    if len(sent) != len(received):
        return Difference(_CHANGED)
    for number, (one, other) in enumerate(zip(sent, received, strict=True)):
        if (found := _find(one, other, lists, depth)) is not None:
            return found.within(str(number))
    return None


def _of_tuples(sent: Any, received: Any, lists: bool, depth: int) -> Difference | None:  # noqa: FBT001
    return _of_sequences(tuple(tuple.__iter__(sent)), tuple(tuple.__iter__(received)), lists, depth)


def _of_mappings(
    sent: Mapping[Any, Any],
    received: Mapping[Any, Any],
    lists: bool,  # noqa: FBT001
    depth: int,
) -> Difference | None:
    if _alike(sent, received) and _alike(sent.values(), received.values()) and sent == received:
        return None
    if len(sent) != len(received):
        return Difference(_CHANGED)
    for (key, value), (other_key, other) in zip(sent.items(), received.items(), strict=True):
        if (found := _find(key, other_key, lists, depth)) is not None:
            what = "half a character, surrogates not allowed" if _is_broken(key) else found.what
            return Difference(f"a key: {what}", retyped=found.retyped)
        if (found := _find(value, other, lists, depth)) is not None:
            return found.within(_HIDDEN)
    return None


def _of_sets(
    sent: AbstractSet[Any],
    received: AbstractSet[Any],
    lists: bool,  # noqa: FBT001
    depth: int,
) -> Difference | None:
    others = {each: each for each in received}
    if len(sent) != len(others):
        return Difference(_CHANGED)
    for each in sent:
        if each not in others:
            return Difference(_CHANGED, (_HIDDEN,))
        if (found := _find(each, others[each], lists, depth)) is not None:
            return found.within(_HIDDEN)
    return None


def _of_others(sent: Any, received: Any, *_: Any) -> Difference | None:
    if bool(sent == received):
        return None
    return _secret(type(sent)) if isinstance(sent, _SECRETS) else Difference(_CHANGED)


def _of_models(sent: BaseModel, received: BaseModel, lists: bool, depth: int) -> Difference | None:  # noqa: FBT001
    # Not by getattr: a model's attributes may be anything, its fields are in its dictionary.
    mine, others = sent.__dict__, received.__dict__
    for name, one in mine.items():
        other = others.get(name, _MISSING)
        kind = type(one)
        if kind in _FLAT and kind is type(other) and one == other and (one or kind is not float):  # 0.0 == -0.0
            continue
        if (found := _find(one, other, lists, depth)) is not None and name in type(sent).model_fields:
            return found.within(name)
    if not others.keys() <= mine.keys():  # it was made without some of its fields
        return Difference(_CHANGED)
    if (found := _find(sent.__pydantic_extra__, received.__pydantic_extra__, lists, depth)) is not None:
        return found
    if _find(sent.__pydantic_private__, received.__pydantic_private__, lists, depth) is not None:
        return Difference(f"private attributes of {_a(type(sent))} would not arrive")
    return None


def _of_dataclasses(sent: Any, received: Any, lists: bool, depth: int) -> Difference | None:  # noqa: FBT001
    cls: Any = type(sent)
    for name in _compared(cls):
        one, other = getattr(sent, name, _MISSING), getattr(received, name, _MISSING)
        kind = type(one)
        if kind in _FLAT and kind is type(other) and one == other and (one or kind is not float):  # 0.0 == -0.0
            continue
        if (found := _find(one, other, lists, depth)) is not None:
            return found.within(name)
    return None


@lru_cache(_CLASSES)
def _compared(kind: Any) -> tuple[str, ...]:
    """Return the fields of a dataclass that its own == compares."""
    return tuple(field.name for field in fields(kind) if field.compare)


def _of_states(sent: Any, received: Any, lists: bool, depth: int) -> Difference | None:  # noqa: FBT001
    """Compare what copy.copy and pickle would take."""
    mine, others = sent.__reduce_ex__(_PROTOCOL), received.__reduce_ex__(_PROTOCOL)
    if isinstance(mine, str) or isinstance(others, str):
        return None if mine == others else Difference(_CHANGED)
    for number, (part, other) in enumerate(zip_longest(mine, others)):
        is_content = number in _CONTENTS and part is not None and other is not None
        one, another = ([*part], [*other]) if is_content else (part, other)
        if (found := _find(one, another, lists, depth)) is not None:
            return Difference(found.what, retyped=found.retyped)
    return None


_PROTOCOL: Final = 4
_CONTENTS: Final = frozenset({3, 4})
"""The parts of a reduced object that are iterators: a list's elements, a mapping's items."""


def _secret(kind: type) -> Difference:
    return Difference(
        f"{_a(kind)} can't be sent: its text would stand in the message for all to read; pass a reference to it, "
        "or annotate the text itself if that may be read",
    )


def _alike(sent: Collection[Any], received: Collection[Any]) -> bool:
    """Say whether both have values of the same types, one by one, all of which == tells apart: most are so.

    It takes 0.0 for -0.0.
    """
    kinds = [*map(type, sent)]
    return _FLAT.issuperset(kinds) and kinds == [*map(type, received)] and not (float in kinds and 0.0 in sent)


def _is_broken(text: Any) -> bool:
    """Say whether a text has a lone surrogate, for which pydantic writes another character in a key."""
    return isinstance(text, str) and any("\ud800" <= each <= "\udfff" for each in text)


def _same_number(sent: float, received: float) -> bool:
    if math.isnan(sent):
        return math.isnan(received)
    return sent == received and math.copysign(1, sent) == math.copysign(1, received)


def _same_complex(sent: complex, received: complex) -> bool:
    return _same_number(sent.real, received.real) and _same_number(sent.imag, received.imag)


def _same_decimal(sent: Decimal, received: Decimal) -> bool:
    return sent.as_tuple() == received.as_tuple()  # 1.10 is not 1.1, and NaN is NaN


def _same_moment(sent: Any, received: Any) -> bool:
    """Say whether both are the same on clock and calendar, and as far from UTC: not by ==, which depends on fold."""
    return bool(
        sent.utcoffset() == received.utcoffset()
        and (sent.tzinfo is None) == (received.tzinfo is None)
        and sent.replace(tzinfo=None) == received.replace(tzinfo=None),
    )


_JSON: Final = frozenset({str, int, bool, type(None), float, list, dict})
_SAME: Final[dict[type, Callable[[Any, Any], bool]]] = {
    str: eq,
    int: eq,
    bool: eq,
    bytes: eq,
    float: _same_number,
    complex: _same_complex,
    Decimal: _same_decimal,
    datetime: _same_moment,
    time: _same_moment,
    date: eq,
    timedelta: eq,
    UUID: eq,
}
_TEXT: Final = frozenset({str})
_ATOMS: Final = frozenset({str, int, bool, type(None)})
_FLAT: Final = frozenset({str, int, bool, float, bytes, date, timedelta, UUID, type(None)})
_LEAVES: Final = frozenset({bytes, Decimal, datetime, time, date, timedelta, UUID})
"""Types that may stand for their subclasses: those of another library, say, where the annotation is of Python's."""
_OF_KINDS: Final[dict[type, Comparer]] = {
    dict: _of_mappings,
    list: _of_sequences,
    tuple: _of_sequences,
    set: _of_sets,
    frozenset: _of_sets,
}


@lru_cache(_CLASSES)
def _comparer_of(kind: Any) -> Comparer:
    """Return what compares objects of a class."""
    if issubclass(kind, BaseModel):
        return _of_models
    if is_dataclass(kind):
        return _of_dataclasses
    if issubclass(kind, tuple) and not kind.__dictoffset__:  # a named tuple: it can hold nothing else
        return _of_tuples
    # A container's own == would say that 1 is True.
    return _of_states if issubclass(kind, _CONTAINERS) or kind.__eq__ is object.__eq__ else _of_others


_CONTAINERS: Final = (list, tuple, dict, set, frozenset, deque)
_SECRETS: Final = (SecretStr, SecretBytes, Secret)


def _name(kind: type, beside: type | None = None) -> str:
    """Return a class's name, with its module where another has the same."""
    name = "None" if kind is type(None) else kind.__qualname__.rpartition("<locals>.")[2]
    if beside is not None and beside is not kind and beside.__qualname__ == kind.__qualname__:
        return f"{kind.__module__}.{name}"
    return name


def _a(kind: type, beside: type | None = None) -> str:
    name = _name(kind, beside)
    if name in {"None", "bytes"}:
        return name
    return f"{'an' if name[:1] in 'aeiouAEIO' else 'a'} {name}"
