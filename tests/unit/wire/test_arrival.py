"""The rule: what the handler gets equals what was passed, or it is refused, with the name, and never with the value.

Annotations and values are drawn; *form* says what is equal, by other means than qworker's.
"""

import dataclasses
import typing
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from pydantic import BaseModel, ConfigDict

from qworker.errors import ConfigurationError, InvalidArguments
from qworker.job import Job
from qworker.wire.envelope import decode as read
from qworker.wire.envelope import encode as write
from qworker.wire.signature import Signature
from qworker.wire.states import States
from tampered_objects import tampered_objects
from types_of_all_sorts import CANARY, CANARY_NUMBER, typed_values

MANY = 8
"""Calls that are validated together."""
_LISTS = (list, tuple, deque)


def form(value: Any, *, lists: bool = False) -> Any:  # noqa: C901, PLR0911 — a table of types
    """Return what has to be equal of a value; with *lists*, any sequence is a list."""
    kind: Any = type(value)

    def inner(each: Any) -> Any:
        return form(each, lists=lists)

    if isinstance(value, Enum):
        return kind, value.name
    if isinstance(value, BaseModel):
        extra, private = value.__pydantic_extra__, value.__pydantic_private__
        fields = {name: inner(each) for name, each in value.__dict__.items() if name in kind.model_fields}
        return kind, fields, inner(extra), inner(private)
    if dataclasses.is_dataclass(value):
        return kind, {each.name: inner(getattr(value, each.name, None)) for each in dataclasses.fields(value)}
    if lists and isinstance(value, _LISTS):
        return list, [*map(inner, value)]
    if isinstance(value, Mapping):
        extra = getattr(value, "default_factory", None)
        return kind, extra, [(inner(key), inner(each)) for key, each in value.items()]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(inner(each)) for each in value)
    if isinstance(value, Sequence | deque) and not isinstance(value, str | bytes | bytearray | memoryview | range):
        return kind, [*map(inner, value)], getattr(value, "maxlen", None)
    if isinstance(value, datetime | time):
        return kind, value.replace(tzinfo=None, fold=0).isoformat(), value.utcoffset()
    if isinstance(value, Decimal):
        return kind, value.as_tuple()
    if isinstance(value, str | bytes | int):
        return kind, value
    if kind.__repr__ is object.__repr__:
        return kind, vars(value)
    return kind, repr(value)


def taking(hint: Any) -> Callable[..., None]:
    def function(value: Any) -> None: ...

    function.__annotations__["value"] = hint
    return function


def passed(hint: Any, value: Any) -> Any:
    """What the annotation makes of a value that a program passes."""

    class Adapted(BaseModel):
        model_config = ConfigDict(val_json_bytes="utf8")
        value: hint

    return Adapted(value=value).value


def admits_lists(hint: Any) -> bool:
    """Whether it, or a field of a class in it, is a Sequence."""
    waiting, seen = [hint], list[Any]()
    while waiting:
        one = waiting.pop()
        if "collections.abc.Sequence" in repr(one):
            return True
        if one not in seen:
            seen.append(one)
            waiting += [*typing.get_args(one), *(getattr(one, "__annotations__", None) or {}).values()]
    return False


def check_refusal(error: InvalidArguments, start: str) -> None:
    """It is one line that names what is refused; neither it nor an error that goes with it shows a value."""
    assert str(error).startswith(start)
    seen: BaseException | None = error
    while seen is not None:
        for text in (str(seen), repr(seen)):
            assert "\n" not in text
            assert CANARY not in text
            assert str(CANARY_NUMBER) not in text
        seen = seen.__cause__ or seen.__context__


@given(typed_values())
def test_an_argument_arrives_as_it_was_passed_or_is_refused(typed: tuple[Any, Any]) -> None:
    check_arrival(*typed)


@given(tampered_objects())
def test_an_object_that_nothing_validated_arrives_as_it_was_passed_or_is_refused(typed: tuple[Any, Any]) -> None:
    check_arrival(*typed)


def check_arrival(hint: Any, value: Any) -> None:
    try:
        signature = Signature("t", taking(hint))
    except ConfigurationError:  # a type that JSON can't carry
        return
    try:
        encoded = signature.encode([value], {})
    except InvalidArguments as error:
        check_refusal(error, "t: value")
        with pytest.raises(InvalidArguments) as caught:
            signature.encode_many([([value], {})] * MANY)
        check_refusal(caught.value, "t: call number 0: value")
        return
    assert [encoded] * MANY == signature.encode_many([([value], {})] * MANY)
    job = read(write(Job("j1", "t", *encoded)), message_id="m1")
    [got], _ = signature.decode(job.args, job.kwargs)
    assert form(passed(hint, value), lists=admits_lists(hint)) == form(got, lists=admits_lists(hint))


@given(typed_values())
def test_a_state_is_found_as_it_was_saved_or_is_refused(typed: tuple[Any, Any]) -> None:
    hint, value = typed
    try:
        states = States("t", hint)
    except ConfigurationError:
        return
    try:
        saved = states.encode(value)
    except InvalidArguments as error:
        check_refusal(error, "t: a state that can't be saved as JSON: state")
        return
    job = read(write(Job("j1", "t", state=saved)), message_id="m1")
    found = states.decode(job.state)
    expected = value if hint is None else passed(hint, value)
    assert form(expected, lists=admits_lists(hint)) == form(found, lists=admits_lists(hint))
