"""Tells from a type's schema whether each of its values comes back from JSON as it was sent.

Where it says so, nothing need be compared. It says so only of what is listed here: a model, say, may be of a subclass,
and a dataclass may hold anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_origin

_COMMON: Final = frozenset({"type", "metadata", "ref"})
_NUMBER: Final = _COMMON | {"gt", "ge", "lt", "le", "multiple_of"}
_SIZED: Final = _COMMON | {"min_length", "max_length"}
_CERTAIN: Final[dict[str, frozenset[str]]] = {
    "none": _COMMON,
    "bool": _COMMON,
    "int": _NUMBER,
    "float": _NUMBER,
    "str": _SIZED | {"pattern"},
    "nullable": _COMMON | {"schema"},
    "union": _COMMON | {"choices"},
    "list": _SIZED | {"items_schema"},
    "set": _SIZED | {"items_schema"},
    "frozenset": _SIZED | {"items_schema"},
    "tuple": _SIZED | {"items_schema", "variadic_item_index"},
    "dict": _SIZED | {"keys_schema", "values_schema"},
}
"""Kinds of schemas, and the settings with which they are certain: none that makes validation stricter from JSON than
from Python, that changes a text again, or that writes it in another way."""
_KEYS: Final = frozenset({"str", "int"})
_APART: Final = frozenset({"none", "bool", "int", "str"})
"""Types of which each is another kind of JSON value."""
Schema = Mapping[str, Any]


def is_certain(schema: Schema) -> bool:  # noqa: PLR0911 — a table of kinds
    """Say whether all values of a schema come back as they were."""
    kind = schema["type"]
    settings = {name for name, value in schema.items() if value is not None and value is not False}
    if not _CERTAIN.get(kind, frozenset()).issuperset(settings):
        return False
    match kind:
        case "nullable":
            return is_certain(schema["schema"])
        case "list" | "set" | "frozenset":
            return "items_schema" in settings and is_certain(schema["items_schema"])
        case "tuple":
            return all(map(is_certain, schema["items_schema"]))
        case "dict":
            if not {"keys_schema", "values_schema"} <= settings:
                return False
            keys, values = schema["keys_schema"], schema["values_schema"]
            return keys["type"] in _KEYS and is_certain(keys) and is_certain(values)
        case "union":
            choices = schema["choices"]
            return all(isinstance(each, Mapping) and each["type"] in _APART and is_certain(each) for each in choices)
        case _:
            return True


def admits_lists(schema: Schema) -> bool:
    """Say whether a Sequence of any kind is somewhere in a schema: it may be a tuple here, and arrives as a list."""
    classes = (each["cls"] for each in _parts(schema) if each.get("type") == "is-instance")
    return any((get_origin(kind) or kind) is Sequence for kind in classes)


def has_bytes(schema: Schema) -> bool:
    """Say whether bytes are somewhere in a schema."""
    return any(each.get("type") == "bytes" for each in _parts(schema))


def _parts(schema: Any) -> Iterator[Schema]:
    """Yield a schema and all the schemas within it."""
    if isinstance(schema, Mapping):
        yield schema
        for name, value in schema.items():
            if name not in {"metadata", "config"} and isinstance(value, Mapping | list | tuple):
                yield from _parts(value)
    elif isinstance(schema, list | tuple):
        for each in schema:
            yield from _parts(each)
