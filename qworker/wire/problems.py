"""Says in one line what is wrong with a value, and where; never with the value, nor with another's text about it.

A text of pydantic's own is repeated as far as it is of the type alone. That of a user's validator or serializer is not:
nobody knows whether it repeats the value.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, get_args

from pydantic_core import ErrorDetails, PydanticSerializationError
from pydantic_core.core_schema import ErrorType

_MOST: Final = 8
"""Problems that are told of one value."""
_HIDDEN: Final = "[…]"
_OWN: Final = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}
"""Kinds of errors whose texts are pydantic's."""
_QUOTING: Final = frozenset(
    {
        "bytes_invalid_encoding",
        "date_from_datetime_parsing",
        "date_parsing",
        "datetime_from_date_parsing",
        "datetime_object_invalid",
        "datetime_parsing",
        "get_attribute_error",
        "iteration_error",
        "json_invalid",
        "mapping_type",
        "time_delta_parsing",
        "time_parsing",
        "timezone_offset",
        "too_long",
        "too_short",
        "url_parsing",
        "url_syntax_violation",
        "uuid_parsing",
    }
)
"""Those of which only the first part is of the type: the rest comes from the value."""
_REFUSED: Final = "a validator of its type refused it"
_UNKNOWN_TYPE: Final = re.compile(r"Unable to serialize unknown type: <class '([\w.<>]+)'>")
_PLACE: Final = 2**63
"""Larger numbers are texts in pydantic's places."""
_SCALARS: Final = (str, bytes, int, float, bool, type(None))


def invalid(found: Sequence[ErrorDetails], values: Mapping[str, Any], known: Callable[[], AbstractSet[Any]]) -> str:
    """Return what pydantic found wrong with *values*; *known* returns the names that stand in the types themselves."""
    keys, whole = _keys_in(values)
    names = known() if keys or not whole else frozenset()

    def shown(part: int | str) -> str:
        hidden = part not in names and (not whole or part in keys)
        return _HIDDEN if hidden else str(part)

    problems = [
        f"{'.'.join(shown(part) if depth else str(part) for depth, part in enumerate(each['loc']))}: {_text_of(each)}"
        for each in found[:_MOST]
    ]
    if len(found) > _MOST:
        problems.append(f"and {len(found) - _MOST} more")
    return " ".join("; ".join(problems).split())


def unwritable(error: Exception) -> str:
    """Return why a value can't be written as JSON."""
    text = str(error)
    if (unknown := _UNKNOWN_TYPE.search(text)) is not None:
        return f"it holds a {unknown[1].rpartition('.')[2]}, which is no JSON"
    if "surrogates not allowed" in text:
        return "it holds half a character: surrogates not allowed"
    if "Circular reference" in text or "recursion" in text.lower():
        return "it is nested too deep, or contains itself"
    if isinstance(error, PydanticSerializationError):
        return "a serializer or validator of its type failed"
    return "a number is too large, or not one"


def _text_of(found: ErrorDetails) -> str:
    kind = found["type"]
    if kind not in _OWN:
        return _REFUSED
    if kind == "union_tag_invalid":  # its own text repeats the value
        return f"{found['ctx']['discriminator']} must be one of {found['ctx']['expected_tags']}"
    if kind == "no_such_attribute":
        return "an attribute that its type doesn't have"
    return re.split("[,:] ", found["msg"], maxsplit=1)[0] if kind in _QUOTING else found["msg"]


def _keys_in(value: Any) -> tuple[set[Any], bool]:
    """Return the keys of all mappings within a value, and whether it could be seen through."""
    keys, whole = set[Any](), True
    left, seen = deque([value]), set[int]()
    while left:
        each = left.popleft()
        if isinstance(each, _SCALARS) or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Mapping):
            keys.update(each)
            left.extend(each.values())
            whole = whole and all(map(_is_shown_as_it_is, each))
        elif isinstance(each, list | tuple | set | frozenset | deque):
            left.extend(each)
        else:
            whole = False
    return keys, whole


def _is_shown_as_it_is(key: Any) -> bool:
    """Say whether pydantic gives a key as a place as it is; of others it gives the repr."""
    return isinstance(key, str) or (isinstance(key, int) and -_PLACE <= key < _PLACE)


def names_in(schema: Any) -> AbstractSet[Any]:
    """Return the names of all properties within a JSON schema."""
    if isinstance(schema, Mapping):
        named = schema.get("properties", {})
        return {*(named if isinstance(named, Mapping) else ())}.union(*map(names_in, schema.values()))
    if isinstance(schema, list):
        return set[Any]().union(*map(names_in, schema))
    return frozenset()
