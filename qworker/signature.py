"""A task's signature: what its arguments look like as Python values, and as JSON."""

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter
from typing import Any, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic_core import ErrorDetails, PydanticSerializationError, from_json, to_json
from typing_extensions import TypedDict

from qworker.context import Context
from qworker.errors import ConfigurationError, InvalidArguments

_JSON: Final = ConfigDict(
    arbitrary_types_allowed=False,
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="strings",
)
_call_of: Final[Any] = TypedDict  # a type checker wants its keys spelt out
_MANY: Final = 8
"""Calls that are worth to be looked at together."""
Encoded = tuple[list[Any], dict[str, Any]]
"""A call's positional and keyword arguments, as JSON values."""
_NAMED: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class Signature:
    """Checks and converts a task's arguments, in the producer and again in the worker.

    A parameter annotated with Context is the worker's to fill in and never part of a message.
    Raises ConfigurationError for a function whose parameters can't be sent as JSON.
    """

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        self._task = task
        hints = _type_hints(task, function)
        parameters = inspect.signature(function).parameters.values()
        self.context_parameters = tuple(p.name for p in parameters if _is_context(hints.get(p.name)))
        self._signature = inspect.Signature([p for p in parameters if p.name not in self.context_parameters])
        self._check_context_parameters(parameters)
        self._hints = {name: hints.get(name, Any) for name in self._signature.parameters}
        self.model = _arguments_model(task, self._signature, self._hints)
        """What arguments look like, with the parameters' names as aliases."""
        self._names = {f"p{number}": name for number, name in enumerate(self._signature.parameters)}
        self._plain = _Plain.of(self._signature)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters that a message's arguments are for, by name."""
        return self._signature.parameters

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Encoded:
        """Validate a call's arguments and return them as JSON values. Raises InvalidArguments."""
        text, problem = self._as_json(self._bind(args, kwargs))
        if text is None:  # raised out here, so that pydantic's error, with the values in it, is not even its context
            raise InvalidArguments(self._task, problem)
        return self._as_passed(from_json(text), len(args))

    def encode_many(self, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[Encoded]:
        """Do the same for many calls, in a third of the time.

        Raises InvalidArguments without saying which call it is, and perhaps for no reason: encode() tells.
        """
        if self._plain is None or len(calls) < _MANY:
            return [self.encode(args, kwargs) for args, kwargs in calls]
        text, problem = self._all_as_json([self._bind(args, kwargs) for args, kwargs in calls])
        if text is None:
            raise InvalidArguments(self._task, problem)
        encoded = zip(from_json(text)["calls"], calls, strict=True)
        return [self._plain.as_passed(values, len(args)) for values, (args, _) in encoded]

    def decode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Validate JSON values and return them as the function wants them. Raises InvalidArguments."""
        values = self._bind(args, kwargs)
        if self._plain is not None:
            with suppress(ValidationError, PydanticSerializationError):  # which the model puts better
                return self._plain.pass_on(self._call.validate_json(to_json(values)))
        try:
            valid = self.model.model_validate_json(to_json(values))
        except ValidationError as error:
            raise InvalidArguments(self._task, self._one_line(error, values)) from None
        except PydanticSerializationError as error:
            raise InvalidArguments(self._task, f"an argument can't be read as JSON: {error}") from None
        wanted = {self._names[field]: getattr(valid, field) for field in valid.model_fields_set}
        bound = inspect.BoundArguments(self._signature, wanted)
        return bound.args, bound.kwargs

    def _as_json(self, values: Mapping[str, Any]) -> tuple[str | None, str]:
        """Return valid values as JSON, or what is wrong with them."""
        try:
            valid = self.model.model_validate(values)
            text = valid.model_dump_json(by_alias=True, include=valid.model_fields_set)
            _check_keys(valid, text)
            self.model.model_validate_json(text)  # what the worker could not read is refused here already
        except ValidationError as error:
            return None, self._one_line(error, values)
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            return None, f"an argument can't be sent as JSON: {error}"
        return text, ""

    def _all_as_json(self, calls: Sequence[Mapping[str, Any]]) -> tuple[str | None, str]:
        """Return the valid values of many calls as JSON, or what may be wrong with them."""
        try:
            text = self._calls.model_validate({"calls": calls}).model_dump_json(by_alias=True)
            self._calls.model_validate_json(text)
        except (ValidationError, PydanticSerializationError):  # with the values in them
            return None, "an argument is not valid"
        return (text, "") if "\ufffd" not in text else (None, "an argument may have a lone surrogate in a key")

    @cached_property
    def _call_type(self) -> Any:
        """A call as a dictionary: to make a model's object of it costs more than to validate it."""
        call: Any = _call_of("Call", self._hints, total=False)
        call.__pydantic_config__ = _JSON | ConfigDict(extra="forbid")
        return call

    @cached_property
    def _call(self) -> TypeAdapter[dict[str, Any]]:
        return TypeAdapter(self._call_type)

    @cached_property
    def _calls(self) -> type[BaseModel]:
        """Many calls as a model."""
        call: Any = self._call_type
        # The outermost configuration is the one that holds for values of any type.
        return create_model("Calls", __config__=_JSON, calls=(list[call], ...))

    def _as_passed(self, values: dict[str, Any], positional: int) -> Encoded:
        """Split values by name as the caller did: what came with a name keeps it, so that a parameter may move."""
        if self._plain is not None:
            return self._plain.as_passed(values, positional)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            if name not in values:
                continue
            if parameter.kind is Parameter.VAR_POSITIONAL:
                args += values[name]
            elif parameter.kind is Parameter.VAR_KEYWORD:
                kwargs |= values[name]
            elif len(args) < positional and parameter.kind is not Parameter.KEYWORD_ONLY:
                args.append(values[name])
            else:
                kwargs[name] = values[name]
        return args, kwargs

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's values by the names of their parameters. Raises InvalidArguments."""
        if self._plain is not None and (values := self._plain.bind(args, kwargs)) is not None:
            return values
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidArguments(self._task, f"{error}: it takes {self}") from None

    def _check_context_parameters(self, parameters: typing.Iterable[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name in self.context_parameters and parameter.kind is not Parameter.KEYWORD_ONLY:
                raise ConfigurationError(
                    f"task {self._task}: the Context parameter {parameter.name!r} must be keyword-only: "
                    f"put it behind a '*', as in (…, *, {parameter.name}: Context = INJECTED)",
                )

    def _one_line(self, error: ValidationError, values: Mapping[str, Any]) -> str:
        """Name each problem and where it is; never a value, nor a key of a mapping, which may be a secret."""
        hidden = _keys_in(values) - self._known_names()
        problems = []
        for found in error.errors(include_url=False, include_input=False):
            where = ".".join("[…]" if part in hidden else str(part) for part in found["loc"])
            problems.append(": ".join(filter(None, (where, _message(found)))))
        return " ".join("; ".join(problems).split())

    def _known_names(self) -> set[Any]:
        """Return the names of parameters and of models' fields, as far as they can be told."""
        try:
            return _properties_in(self.model.model_json_schema())
        except PydanticUserError:  # a type that has no schema
            return {*self._signature.parameters}

    def __str__(self) -> str:
        return str(self._signature)


@dataclass(frozen=True, slots=True)
class _Plain:
    """The parameters of a function that takes no *args, no **kwargs and none by position only.

    Most do, and what inspect.Signature does for all of them costs as much as the validation.
    """

    positional: tuple[str, ...]
    names: frozenset[str]
    required: frozenset[str]

    @classmethod
    def of(cls, signature: inspect.Signature) -> Self | None:
        """Return a signature's plain form, if it has one."""
        parameters = signature.parameters.values()
        if any(p.kind not in {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY} for p in parameters):
            return None
        return cls(
            tuple(p.name for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD),
            frozenset(signature.parameters),
            frozenset(p.name for p in parameters if p.default is Parameter.empty),
        )

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a call's values by name, or None if there is something wrong with the call."""
        if len(args) > len(self.positional):
            return None
        values = dict(zip(self.positional, args, strict=False))
        if kwargs:
            if not (self.names.issuperset(kwargs) and values.keys().isdisjoint(kwargs)):
                return None
            values.update(kwargs)
        return values if self.required <= values.keys() else None

    def as_passed(self, values: dict[str, Any], positional: int) -> Encoded:
        """Split values by name as the caller did, who passed so many by position."""
        return [values.pop(name) for name in self.positional[:positional]], values

    def pass_on(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return values as they are to be passed: by position as far as that goes, as a decorator may expect."""
        args = []
        for name in self.positional:
            if name not in values:
                break
            args.append(values.pop(name))
        return tuple(args), values


def _type_hints(task: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # noqa: BLE001 — a text as an annotation is code, and may fail in any way
        raise ConfigurationError(f"task {task}: an annotation can't be resolved: {error}") from None


def _is_context(hint: Any) -> bool:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return Context in typing.get_args(hint)
    return hint is Context


def _arguments_model(task: str, signature: inspect.Signature, hints: Mapping[str, Any]) -> type[BaseModel]:
    # The fields are p0, p1, … with the parameters' names as aliases: a parameter may have any name, "json" too.
    fields: dict[str, Any] = {
        f"p{number}": _field(parameter, hints[parameter.name])
        for number, parameter in enumerate(signature.parameters.values())
    }
    try:
        return create_model("Arguments", __config__=_JSON, **fields)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        reason = str(error).partition(". ")[0].splitlines()[0]
        raise ConfigurationError(f"task {task}: a parameter's type can't be sent as JSON: {reason}") from None


def _field(parameter: Parameter, hint: Any) -> tuple[Any, Any]:
    if parameter.kind is Parameter.VAR_POSITIONAL:
        hint = tuple[hint, ...]
    elif parameter.kind is Parameter.VAR_KEYWORD:
        hint = dict[str, hint]
    required = parameter.default is Parameter.empty and parameter.kind in _NAMED
    return hint, Field(... if required else None, alias=parameter.name)


def _keys_in(value: Any) -> set[Any]:
    """Return the keys of all mappings within a value."""
    if isinstance(value, Mapping):
        return set(value).union(*map(_keys_in, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return set[Any]().union(*map(_keys_in, value))
    return set()


def _properties_in(schema: Any) -> set[Any]:
    """Return the names of all properties within a JSON schema."""
    if isinstance(schema, Mapping):
        named = schema.get("properties", {})
        return set(named if isinstance(named, Mapping) else ()).union(*map(_properties_in, schema.values()))
    if isinstance(schema, list):
        return set[Any]().union(*map(_properties_in, schema))
    return set()


def _check_keys(valid: BaseModel, text: str) -> None:
    """Raise UnicodeEncodeError for a lone surrogate in a key: pydantic writes U+FFFD instead, and says nothing."""
    if "\ufffd" in text:
        json.dumps(valid.model_dump(), ensure_ascii=False, skipkeys=True, default=str).encode()


def _message(found: ErrorDetails) -> str:
    if found["type"] == "union_tag_invalid":  # its own text repeats the value
        return f"{found['ctx']['discriminator']} must be one of {found['ctx']['expected_tags']}"
    return found["msg"]
