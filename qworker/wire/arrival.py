"""Makes quick checks, from a type's schema, that a value comes back from JSON as it was sent.

pydantic takes an object of a model or a dataclass as it is, whatever has been assigned to its fields. So a check looks
at the exact type of each part, and at all that a validator would look at when the value is read. A check that says yes
spares reading the value back; one that says no only means that nothing less can tell. It knows the schemas that are
listed here, with the settings that are listed here, and says no of all others.
"""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Flag
from math import isfinite
from operator import attrgetter, itemgetter
from types import MemberDescriptorType
from typing import Any, Final
from uuid import UUID

from pydantic_core import SchemaSerializer, SchemaValidator, TzInfo

from qworker.wire.certainty import Schema
from qworker.wire.sameness import is_json

Check = Callable[[Any], bool]
"""Says whether a value is sure to arrive as it is."""
_Kinds = dict[type, Check | None]
"""The exact types of which a value may be, each with the check of its values where the type alone isn't enough."""

_SHAPES: Final = 256
"""Combinations of fields' types that are remembered of one class."""
_COMMON: Final = frozenset({"type", "metadata", "ref"})
_NUMBER: Final = frozenset({"gt", "ge", "lt", "le", "multiple_of"})
_SIZE: Final = frozenset({"min_length", "max_length"})
_ALIASES: Final = frozenset({"validation_alias", "serialization_alias"})
_SETTINGS: Final[dict[str, frozenset[str]]] = {
    "any": frozenset(),
    "none": frozenset(),
    "bool": frozenset(),
    "int": _NUMBER,
    "float": _NUMBER,
    "str": _SIZE | {"pattern"},
    "date": frozenset(),
    "decimal": frozenset(),
    "uuid": frozenset(),
    "datetime": frozenset({"microseconds_precision"}),
    "time": frozenset({"microseconds_precision"}),
    "enum": frozenset({"cls", "members", "sub_type"}),
    "literal": frozenset({"expected"}),
    "nullable": frozenset({"schema"}),
    "default": frozenset({"schema", "default", "default_factory", "default_factory_takes_data", "copy_default"}),
    "definition-ref": frozenset({"schema_ref"}),
    "union": frozenset({"choices"}),
    "list": _SIZE | {"items_schema"},
    "set": _SIZE | {"items_schema"},
    "frozenset": _SIZE | {"items_schema"},
    "tuple": _SIZE | {"items_schema", "variadic_item_index"},
    "dict": _SIZE | {"keys_schema", "values_schema"},
    "model": frozenset({"cls", "schema", "config", "frozen", "generic_origin"}),
    "model-fields": frozenset({"fields", "model_name", "computed_fields"}),
    "model-field": frozenset({"schema", "frozen"}) | _ALIASES,
    "dataclass": frozenset({"cls", "schema", "config", "fields", "frozen", "slots", "generic_origin"}),
    "dataclass-args": frozenset({"fields", "dataclass_name", "computed_fields"}),
    "dataclass-field": frozenset({"name", "schema", "kw_only", "init", "frozen"}),
    "named-tuple": frozenset({"cls", "fields"}),
    "named-tuple-field": frozenset({"name", "schema"}),
}
"""The settings of each schema that a check knows. Computed fields are none: they are not written."""
_CONFIG: Final = frozenset(
    {
        "title",
        "extra_fields_behavior",
        "from_attributes",
        "hide_input_in_errors",
        "loc_by_alias",
        "ser_json_bytes",
        "ser_json_inf_nan",
        "serialize_by_alias",
        "val_json_bytes",
        "validate_assignment",
        "validate_by_alias",
        "validate_by_name",
        "validate_default",
    },
)
"""The settings of a class that change nothing in how its objects are written and read: here are no bytes, nor NaN."""
_KEYS: Final = frozenset({"str", "int"})
_APART: Final = frozenset({"none", "bool", "int", "str"})
"""Types of which each is another kind of JSON value."""
_ATOMS: Final = (str, int, bool, type(None))


def arrival_check(schema: Schema, definitions: Mapping[str, Schema]) -> Check:
    """Return a check of a schema's values; *definitions* are the schemas that it refers to by name.

    The check may only be asked once the value has been written as JSON: it trusts that no value contains itself.
    """
    try:
        kinds = _Types(definitions).of(schema)
    except _UnsureError:
        return _never

    def check(value: Any) -> bool:
        try:
            inner = kinds.get(type(value), _never)
            return inner is None or inner(value)
        except Exception:  # noqa: BLE001 — an object that was never initialized, or that is odd in other ways
            return False

    return check


def _never(_: Any) -> bool:
    return False


class _UnsureError(Exception):
    """A type of which nothing is known."""


class _Types:
    """Finds the types of which a schema's values may be. Raises _UnsureError."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._found: dict[str, _Kinds] = {}
        """By reference."""

    def of(self, schema: Schema) -> _Kinds:  # noqa: C901, PLR0911, PLR0912 — a table of kinds
        """Return the types, each with its check."""
        kind = schema["type"]
        _demand(kind in _SETTINGS and _settings(schema) <= _SETTINGS[kind])
        match kind:
            case "any":
                return {**dict.fromkeys(_ATOMS), float: isfinite, list: is_json, dict: is_json}
            case "none" | "bool" | "date" | "uuid":
                return {_TYPES[kind]: None}
            case "int" | "str":
                return {_TYPES[kind]: _limits(schema)}
            case "float":
                return {float: _both(isfinite, _limits(schema))}
            case "decimal":
                return {Decimal: lambda value: value.is_finite()}
            case "datetime" | "time":
                return {_TYPES[kind]: _is_utc}
            case "enum":
                return _enum(schema)
            case "literal":
                return _literal(schema["expected"])
            case "nullable":
                return self.of(schema["schema"]) | {type(None): None}
            case "default":
                return self.of(schema["schema"])
            case "union":
                return self._union(schema["choices"])
            case "definition-ref":
                return self._definition(schema["schema_ref"])
            case "list" | "set" | "frozenset":
                return {_TYPES[kind]: _both(_sized(schema), self._each(schema["items_schema"]))}
            case "tuple":
                return {tuple: self._tuple(schema)}
            case "dict":
                return {dict: self._dict(schema)}
            case "model":
                return {schema["cls"]: self._model(schema)}
            case "dataclass":
                return {schema["cls"]: self._dataclass(schema)}
            case "named-tuple":
                return {schema["cls"]: self._named_tuple(schema)}
            case _:
                raise _UnsureError

    def _each(self, schema: Schema) -> Check:
        """Return a check of many values, one of whose elements is described."""
        kinds = self.of(schema)
        types, checks = frozenset(kinds), [*kinds.values()]
        if checks == [None] * len(checks):
            return lambda values: types.issuperset(map(type, values))
        if len(checks) == 1 and (only := checks[0]) is not None:
            return lambda values: types.issuperset(map(type, values)) and all(map(only, values))

        def check(values: Collection[Any]) -> bool:
            found = ((kinds.get(type(value), _never), value) for value in values)
            return all(inner is None or inner(value) for inner, value in found)

        return check

    def _named_tuple(self, schema: Schema) -> Check:
        cls, fields = schema["cls"], schema["fields"]
        _demand(cls.__new__.__module__ == f"namedtuple_{cls.__name__}")  # or else it may do anything
        _demand(all(_knows(each, "named-tuple-field") for each in fields))
        return _fields([self.of(each["schema"]) for each in fields])

    def _tuple(self, schema: Schema) -> Check:
        items = schema["items_schema"]
        if schema.get("variadic_item_index") is None:
            _demand(not _settings(schema) & _SIZE)
            return _fields([*map(self.of, items)])
        _demand(len(items) == 1)
        return _both(_sized(schema), self._each(items[0]))

    def _dict(self, schema: Schema) -> Check:
        _demand(schema["keys_schema"]["type"] in _KEYS)
        size, keys, values = _sized(schema), self._each(schema["keys_schema"]), self._each(schema["values_schema"])
        return _both(size, lambda value: keys(value) and values(value.values()))

    def _union(self, choices: Sequence[Any]) -> _Kinds:
        _demand(all(isinstance(each, Mapping) and each["type"] in _APART for each in choices))
        found: dict[type, Check | None] = {}
        for each in choices:
            for kind, check in self.of(each).items():
                _demand(kind not in found)
                found[kind] = check
        return found

    def _definition(self, ref: str) -> _Kinds:
        if ref not in self._found:
            schema = self._definitions[ref]
            _demand("cls" in schema)
            self._found[ref] = {schema["cls"]: self._later(ref)}  # for a class that holds itself
            self._found[ref] = self.of(schema)
        return self._found[ref]

    def _later(self, ref: str) -> Check:
        def check(value: Any) -> bool:
            inner = self._found[ref][type(value)]
            return inner is None or inner(value)

        return check

    def _model(self, schema: Schema) -> Check:
        inner = schema["schema"]
        _demand(_knows(inner, "model-fields") and _is_common(schema))
        fields = inner["fields"]
        _demand(all(_knows(each, "model-field") for each in fields.values()) and _are_read_back(schema, fields))
        values_of, size = _getter(itemgetter, [*fields]), len(fields)
        check_values = _fields([self.of(each["schema"]) for each in fields.values()])

        def check(value: Any) -> bool:
            values = value.__dict__
            return (
                len(values) == size
                and check_values(values_of(values))
                and value.__pydantic_extra__ is None
                and value.__pydantic_private__ is None
            )

        return check

    def _dataclass(self, schema: Schema) -> Check:
        cls, inner = schema["cls"], schema["schema"]
        _demand(_knows(inner, "dataclass-args") and _is_common(schema))
        fields = inner["fields"]
        names = [each["name"] for each in fields]
        _demand(all(_knows(each, "dataclass-field") and each.get("init", True) for each in fields))
        _demand(cls.__getattribute__ is object.__getattribute__ and all(_is_stored(cls, name) for name in names))
        _demand({*names} == {each.name for each in dataclasses.fields(cls)})
        values_of = _getter(attrgetter, names)
        check_values = _fields([self.of(each["schema"]) for each in fields])
        return lambda value: check_values(values_of(value))


_TYPES: Final[dict[str, type]] = {
    "none": type(None),
    "bool": bool,
    "int": int,
    "str": str,
    "date": date,
    "uuid": UUID,
    "datetime": datetime,
    "time": time,
    "list": list,
    "set": set,
    "frozenset": frozenset,
}


def _demand(condition: bool) -> None:  # noqa: FBT001 — as with assert
    if not condition:
        raise _UnsureError


def _settings(schema: Schema) -> frozenset[str]:
    """Return the settings that a schema has, apart from those that mean nothing."""
    return frozenset(name for name, value in schema.items() if value is not None and value is not False) - _COMMON


def _knows(schema: Schema, kind: str) -> bool:
    return schema["type"] == kind and _settings(schema) <= _SETTINGS[kind]


def _is_common(schema: Schema) -> bool:
    """Say whether a class's configuration changes nothing in how its objects are written and read."""
    config = schema.get("config") or {}
    return _CONFIG.issuperset(config) and config.get("extra_fields_behavior") != "allow"


def _are_read_back(model: Schema, fields: Mapping[str, Schema]) -> bool:
    """Say whether each field is read by the name by which it is written, which no other field has."""
    names = {name: each.get("serialization_alias") for name, each in fields.items()}
    aliased = any(names.values())
    return (
        all(each.get("validation_alias") == names[name] for name, each in fields.items())
        and len({alias or name for name, alias in names.items()}) == len(names)
        and not (aliased and (model.get("config") or {}).get("validate_by_alias") is False)
    )


def _is_stored(cls: type, name: str) -> bool:
    """Say whether an attribute is the object's own, and not computed by its class."""
    found = inspect.getattr_static(cls, name, None)
    return isinstance(found, MemberDescriptorType) or not hasattr(type(found), "__get__")


def _getter(make: Callable[..., Any], names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what takes the values of so many names from an object, always as a tuple."""
    match names:
        case []:
            return lambda _: ()
        case [name]:
            get = make(name)
            return lambda value: (get(value),)
        case _:
            found: Callable[[Any], tuple[Any, ...]] = make(*names)
            return found


def _fields(kinds: Sequence[_Kinds]) -> Check:
    """Return a check of a tuple, each of whose values is of other types."""
    known: dict[tuple[type, ...], list[tuple[int, Check]]] = {}
    """What is to be looked at, apart from the types, for each combination of types."""

    def check(values: tuple[Any, ...]) -> bool:
        shape = tuple(map(type, values))
        checks = known.get(shape)
        if checks is None:
            if len(shape) != len(kinds) or not all(kind in of for kind, of in zip(shape, kinds, strict=True)):
                return False
            found = enumerate(of[kind] for kind, of in zip(shape, kinds, strict=True))
            checks = [(number, inner) for number, inner in found if inner is not None]
            if len(known) < _SHAPES:
                known[shape] = checks
        for number, inner in checks:  # noqa: SIM110 — a generator would cost as much again
            if not inner(values[number]):
                return False
        return True

    return check


def _both(*checks: Check | None) -> Check:
    """Return a check that asks several, in their order."""
    match [check for check in checks if check is not None]:
        case [only]:
            return only
        case [one, other]:
            return lambda value: one(value) and other(value)
    return lambda _: True


def _limits(schema: Schema) -> Check | None:
    """Return a check of a number's or a text's limits."""
    return SchemaValidator(schema).isinstance_python if _settings(schema) else None


def _sized(schema: Schema) -> Check | None:
    least, most = schema.get("min_length") or 0, schema.get("max_length")
    if most is not None:
        return lambda value: least <= len(value) <= most
    return (lambda value: len(value) >= least) if least else None


def _is_utc(value: Any) -> bool:
    """Say whether a moment has no time zone, or is in UTC; pydantic has a class of its own for that."""
    zone = value.tzinfo
    return zone is None or zone is UTC or (type(zone) is TzInfo and not zone.utcoffset(None))


def _enum(schema: Schema) -> _Kinds:
    """Return an enum, if each of its members is written as a value that is read as that member."""
    cls, members = schema["cls"], schema["members"]
    _demand(not issubclass(cls, Flag) and {type(each.value) for each in members} in ({str}, {int}))
    write, read = SchemaSerializer(schema).to_json, SchemaValidator(schema).validate_json
    try:
        _demand(all(read(write(each)) is each for each in members))
    except Exception:  # noqa: BLE001 — a class's own methods may raise anything
        raise _UnsureError from None
    return {cls: None}


def _literal(expected: Sequence[Any]) -> _Kinds:
    """Return the types of a Literal's values, each with those of its type."""
    _demand(set(map(type, expected)) <= {*_ATOMS})
    of_types = {kind: frozenset(each for each in expected if type(each) is kind) for kind in map(type, expected)}
    return {kind: values.__contains__ for kind, values in of_types.items()}
