"""Turns named values into JSON and back, and proves that what comes back equals what was passed.

It is the one way by which a program's values get into messages. "Passed" is the value as its annotation validates it:
``"5"`` for an ``int`` is 5.
"""

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, SchemaSerializer, from_json, to_json
from pydantic_core.core_schema import CoreConfig
from typing_extensions import TypedDict

from qworker.errors import ConfigurationError
from qworker.wire.arrival import arrival_check
from qworker.wire.certainty import Schema, admits_lists, has_bytes, is_certain
from qworker.wire.problems import invalid, names_in, unwritable
from qworker.wire.sameness import Difference, all_same, difference

CONFIG: Final = ConfigDict(
    arbitrary_types_allowed=False,
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="strings",
)
"""How values are read from JSON, and written as JSON."""
_FROM_PYTHON: Final = CONFIG | ConfigDict(val_json_bytes="utf8")
"""How a program's values are read: a text that is passed for bytes is no Base64."""
_record_of: Final[Any] = TypedDict  # a type checker wants its keys spelt out
_REPLACED: Final = b"\xef\xbf\xbd"
"""U+FFFD: pydantic writes it for half a character in a key, and says nothing."""
_MEANINGLESS: Final = {
    "validation_alias": "an alias: drop it, the value has a name",
    "serialization_alias": "an alias: drop it, the value has a name",
    "serialization_exclude": "exclude: drop it, the value would never arrive",
}
Record = dict[str, Any]
"""Values by name."""


class Refused(Exception):
    """A value that can't be sent, or can't be read; its text names the value and says why, and never shows it."""

    def __init__(self, problem: str, number: int = 0, *, unknown: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.unknown = unknown
        """Whether a validator failed for another reason than the value, so that another time it may pass."""
        self.number = number
        """Of many records, the one that it is in: 0, 1, 2 …"""


class Codec:
    """Turns records of named values into JSON and back. A name may be missing in a record.

    Raises ConfigurationError for a type that JSON can't carry.
    """

    def __init__(self, hints: Mapping[str, Any]) -> None:
        self.hints: Mapping[str, Any] = {name: _as_list(hint) for name, hint in hints.items()}
        """The type of each value."""
        self._record = self._record_type(_FROM_PYTHON)
        try:
            self._python: TypeAdapter[Record] = TypeAdapter(self._record)
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise ConfigurationError(str(error).partition(". ")[0].splitlines()[0]) from None
        schema = self._python.core_schema
        # Not the adapter's own: the outermost configuration is the one that holds for bytes and values of any type.
        self._serializer = SchemaSerializer(schema, CoreConfig(ser_json_bytes="base64", ser_json_inf_nan="strings"))
        fields = _fields_of(schema)
        self._doubtful = {name: admits_lists(field) for name, field in fields.items() if not is_certain(field)}
        """The values whose types don't say that they arrive, and whether a list may stand for another sequence."""
        definitions = _definitions_of(schema)
        self._checks = {name: arrival_check(fields[name], definitions) for name in self._doubtful}
        self._untyped = frozenset(name for name, field in fields.items() if field["type"] == "any")
        """The values of any type, which arrive as JSON has them."""
        self._has_bytes = has_bytes(schema)

    def encode(self, values: Mapping[str, Any]) -> Record:
        """Return a record as JSON has it. Raises Refused."""
        try:
            valid = self._python.validator.validate_python(values)
        except ValidationError as error:
            problem = invalid(_errors(error), values, self._known_names)
        except Exception as error:  # noqa: BLE001 — a validator of the program's own may raise anything
            problem = _failed(self._python.validator.validate_python, values, error)
        else:
            return self._written(valid)
        raise Refused(problem)  # out here: pydantic's error, with the values in it, is not even its context

    def encode_json(self, values: Mapping[str, Any]) -> Record:
        """Do the same for a record that comes as JSON. Raises Refused."""
        return self._written(self.decode(values))

    def encode_many(self, records: Sequence[Mapping[str, Any]]) -> list[Record]:
        """Do the same for many records, in a third of the time. Raises Refused, with the number of one of them."""
        try:
            valid = self._many_python.validate_python(records)
        except ValidationError as error:
            errors = _errors(error)
            number = int(errors[0]["loc"][0])
            of_one: Any = [each | {"loc": each["loc"][1:]} for each in errors if each["loc"][0] == number]
            problem = invalid(of_one, records[number], self._known_names)
        except Exception:  # noqa: BLE001 — the same
            return self._one_by_one(records)
        else:
            return self._all_written(valid)
        raise Refused(problem, number)

    def _one_by_one(self, records: Sequence[Mapping[str, Any]]) -> list[Record]:
        encoded, number = [], 0
        try:
            for number, record in enumerate(records):  # noqa: B007 — it is for the error
                encoded.append(self.encode(record))
        except Refused as refused:
            problem = refused.problem
        else:
            return encoded
        raise Refused(problem, number)

    def _all_written(self, valid: list[Record]) -> list[Record]:
        try:
            text = self._many_python.dump_json(valid, by_alias=True, round_trip=True, warnings="error")
            sent: list[Record] = from_json(text)
            if _REPLACED not in text:
                doubtful = [name for name, check in self._checks.items() if not _all_pass(check, valid, name)]
                if not doubtful:
                    return sent
                received = self._many_json.validate_json(text)
                if all(self._all_same(valid, received, name) for name in doubtful):
                    return sent
        except Exception:  # noqa: BLE001, S110 — of validators, too; it may be that only all of them are too much
            pass
        return [self._written(record, number) for number, record in enumerate(valid)]

    def decode(self, values: Mapping[str, Any]) -> Record:
        """Return a record of JSON values as their types want them. Raises Refused."""
        unknown = False
        try:
            return self._json.validate_json(to_json(values))
        except ValidationError as error:
            problem = invalid(_errors(error), values, self._known_names)
        except ValueError as error:
            problem = f"it can't be read as JSON: {unwritable(error)}"
        except Exception as error:  # noqa: BLE001 — the same
            problem, unknown = _failed(lambda part: self._json.validate_json(to_json(part)), values, error), True
        raise Refused(problem, unknown=unknown)

    def _written(self, valid: Record, number: int = 0) -> Record:
        """Return a valid record as JSON has it. Raises Refused."""
        text = b""
        try:
            text, as_typed = self._text_of(valid)
            sent: Record = from_json(text)
            doubtful = self._doubtful_of(valid) if as_typed and _REPLACED not in text else [*valid]
            if not doubtful:
                return sent
            if (found := self._difference(valid, self._json.validate_json(text), doubtful)) is None:
                return sent
            problem = found
        except ValidationError as error:
            problem = f"{invalid(_errors(error), from_json(text), self._known_names)} (as it is read back from JSON)"
        except ValueError as error:
            problem = self._unwritable(valid, error)
        except Exception as error:  # noqa: BLE001 — a validator of the program's own may raise anything
            problem = _failed(lambda part: self._json.validate_json(self._text_of(part)[0]), valid, error)
        raise Refused(problem, number)

    def _text_of(self, valid: Record) -> tuple[bytes, bool]:
        """Return a record as JSON, and whether all its values are of the types that they should have.

        pydantic takes any enum's member for an int, and gives its value, whatever that is.
        """
        try:
            return self._serializer.to_json(valid, by_alias=True, round_trip=True, warnings="error"), True
        except ValueError:
            return self._serializer.to_json(valid, by_alias=True, round_trip=True, warnings=False), False

    def _doubtful_of(self, valid: Record) -> list[str]:
        """Return the names of the values that have to be read back and compared."""
        return [name for name, check in self._checks.items() if name in valid and not check(valid[name])]

    def _all_same(self, valid: Sequence[Record], received: Sequence[Record], name: str) -> bool:
        pairs = ((one[name], other.get(name)) for one, other in zip(valid, received, strict=True) if name in one)
        return all_same(pairs, lists=self._doubtful[name])

    def _difference(self, valid: Record, received: Record, doubtful: Iterable[str]) -> str | None:
        """Return how a value would not arrive as it is, or None."""
        for name in doubtful:
            lists = self._doubtful.get(name, False)
            if (found := difference(valid[name], received.get(name), lists=lists)) is not None:
                return f"{'.'.join((name, *found.path))}: {self._explained(name, found)}"
        return None

    def _explained(self, name: str, found: Difference) -> str:
        if not found.retyped:
            return found.what
        if name in self._untyped:
            return f"{found.what}: annotate it, or pass what JSON has"
        return f"{found.what}: annotate exactly what is passed"

    def _unwritable(self, valid: Record, error: ValueError) -> str:
        """Name the value that can't be written as JSON, and say why."""
        for name, value in valid.items():
            try:
                from_json(self._serializer.to_json({name: value}, by_alias=True, round_trip=True, warnings=False))
            except ValueError as its_own:
                return f"{name}: can't be sent as JSON: {unwritable(its_own)}"
        return f"can't be sent as JSON: {unwritable(error)}"

    def _known_names(self) -> frozenset[Any]:
        """Return the names of values and of fields within them, as far as they can be told."""
        try:
            return frozenset(self.hints) | names_in(self._python.json_schema())
        except PydanticUserError:  # a type that has no schema
            return frozenset(self.hints)

    def _record_type(self, config: ConfigDict) -> Any:
        record: Any = _record_of("Record", dict(self.hints), total=False)
        record.__pydantic_config__ = config | ConfigDict(extra="forbid")
        return record

    @cached_property
    def _json(self) -> TypeAdapter[Record]:
        return TypeAdapter(self._record_type(CONFIG)) if self._has_bytes else self._python

    @cached_property
    def _many_python(self) -> TypeAdapter[list[Record]]:
        return TypeAdapter(list[self._record], config=_FROM_PYTHON)  # type: ignore[name-defined]

    @cached_property
    def _many_json(self) -> TypeAdapter[list[Record]]:
        if not self._has_bytes:
            return self._many_python
        records: Any = list[self._record_type(CONFIG)]  # type: ignore[misc]
        return TypeAdapter(records, config=CONFIG)


def _failed(read: Callable[[Record], Any], values: Mapping[str, Any], error: Exception) -> str:
    """Name the value whose validator failed, and how; its text may repeat the value."""
    for name, value in values.items():
        try:
            read({name: value})
        except ValidationError:
            continue
        except Exception as its_own:  # noqa: BLE001 — the same
            return f"{name}: a validator of its type raised {type(its_own).__name__}"
    return f"a validator raised {type(error).__name__}"


def _all_pass(check: Callable[[Any], bool], records: Iterable[Record], name: str) -> bool:
    return all(map(check, [record[name] for record in records if name in record]))


def _errors(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_input=False)


def _definitions_of(schema: Schema) -> dict[str, Schema]:
    """Return the schemas that others refer to."""
    return {each["ref"]: each for each in schema["definitions"]} if schema["type"] == "definitions" else {}


def _fields_of(schema: Schema) -> dict[str, Schema]:
    """Return the schemas of a record's values."""
    inner = schema["schema"] if schema["type"] == "definitions" else schema
    fields: dict[str, Schema] = inner["fields"]
    for name, field in fields.items():
        for setting, what in _MEANINGLESS.items():
            if field.get(setting):
                raise ConfigurationError(f"{name!r} has {what}")
        if field["schema"]["type"] == "default":
            raise ConfigurationError(f"{name!r} has a default in its annotation: write it behind, as in '= …'")
    return {name: field["schema"] for name, field in fields.items()}


def _as_list(hint: Any) -> Any:
    """Return a type of which an Iterable is a list: what pydantic makes of it can be read only once, and fails late."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Iterable or origin is Iterable:
        return list[arguments[0] if arguments else Any]  # type: ignore[misc]
    inner = tuple(map(_as_list, arguments[:1] if origin is Annotated else arguments))
    if inner == arguments[: len(inner)]:
        return hint
    if origin is Annotated:
        return Annotated[(*inner, *hint.__metadata__)]
    if origin in {typing.Union, types.UnionType}:
        return typing.Union[inner]  # noqa: UP007 — its parts are known only now
    return origin[inner] if origin in {list, tuple, dict} else hint
