"""A task's signature: what its arguments look like as Python values, and as JSON."""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from inspect import Parameter
from typing import Any, Final, Self

from pydantic import BaseModel, Field, create_model

from qworker.context import context_in, state_type_of
from qworker.errors import ConfigurationError, InvalidArguments, ValidatorFailed
from qworker.wire.codec import CONFIG, Codec, Refused

_MANY: Final = 8
"""Calls that are worth to be looked at together."""
Call = tuple[Sequence[Any], Mapping[str, Any]]
"""A call's positional and keyword arguments."""
Encoded = tuple[list[Any], dict[str, Any]]
"""A call's positional and keyword arguments, as JSON values."""
_NAMED: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_SHOWN: Final = (int, float, type(None), Enum)
"""Types of defaults that are shown: a text may be a secret, read from the environment."""


class Signature:
    """Checks and converts a task's arguments, in the producer and again in the worker.

    A parameter annotated with Context is the worker's to fill in and never part of a message.
    Raises ConfigurationError for a function whose parameters can't be sent as JSON.
    """

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        self._task = task
        parameters = _parameters_of(function)
        hints = _type_hints(task, function, parameters)
        contexts = {name: found for name in parameters if (found := context_in(hints.get(name))) is not None}
        self.context_parameters = tuple(contexts)
        self.state_types = [kind for found in contexts.values() if (kind := state_type_of(found)) is not None]
        """What its Contexts say that checkpoints save, as in Context[Resources, State]."""
        self._check_context_parameters(parameters.values())
        self._signature = inspect.Signature([p for p in parameters.values() if p.name not in self.context_parameters])
        self._codec = _codec(task, self._signature, hints)
        self._plain = _Plain.of(self._signature)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters that a message's arguments are for, by name."""
        return self._signature.parameters

    @cached_property
    def model(self) -> type[BaseModel]:
        """What arguments look like, with the parameters' names as aliases."""
        # The fields are p0, p1, … with the parameters' names as aliases: a parameter may have any name, "json" too.
        fields: dict[str, Any] = {
            f"p{number}": (self._codec.hints[name], Field(... if _is_required(parameter) else None, alias=name))
            for number, (name, parameter) in enumerate(self.parameters.items())
        }
        return create_model("Arguments", __config__=CONFIG, **fields)

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Encoded:
        """Validate a call's arguments and return them as JSON values. Raises InvalidArguments.

        It refuses whatever would not arrive as it was passed.
        """
        try:
            return self._as_passed(self._codec.encode(self._bind(args, kwargs)), len(args))
        except Refused as refused:
            problem = refused.problem
        raise InvalidArguments(self._task, problem)

    def encode_json(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Encoded:
        """Do the same for arguments that come as JSON values: a text is Base64 where bytes are wanted."""
        try:
            return self._as_passed(self._codec.encode_json(self._bind(args, kwargs)), len(args))
        except Refused as refused:
            problem = refused.problem
        raise InvalidArguments(self._task, problem)

    def encode_many(self, calls: Sequence[Call], first: int = 0) -> list[Encoded]:
        """Do the same as encode for many calls, in a third of the time; *first* is the first one's number.

        Raises InvalidArguments, with the number of a call that is wrong.
        """
        number = 0
        try:
            if self._plain is None or len(calls) < _MANY:
                encoded = []
                for number, (args, kwargs) in enumerate(calls):  # noqa: B007 — it is for the error
                    encoded.append(self.encode(args, kwargs))
                return encoded
            records = []
            for number, (args, kwargs) in enumerate(calls):  # noqa: B007 — the same
                records.append(self._bind(args, kwargs))
            sent = self._codec.encode_many(records)
            return [self._plain.as_passed(values, len(args)) for values, (args, _) in zip(sent, calls, strict=True)]
        except InvalidArguments as error:
            problem = error.problem
        except Refused as refused:
            number, problem = refused.number, refused.problem
        raise InvalidArguments(self._task, f"call number {first + number}: {problem}")

    def decode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Validate JSON values and return them as the function wants them.

        Raises InvalidArguments, or ValidatorFailed.
        """
        try:
            values = self._codec.decode(self._bind(args, kwargs))
        except Refused as refused:
            kind, problem = ValidatorFailed if refused.unknown else InvalidArguments, refused.problem
        else:
            if self._plain is not None:
                return self._plain.pass_on(values)
            bound = inspect.BoundArguments(self._signature, values)
            return bound.args, bound.kwargs
        raise kind(self._task, problem)

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's values by the names of their parameters; if they don't fit it, only those that have names."""
        try:
            return dict(self._bind(args, kwargs))
        except InvalidArguments:
            return dict(kwargs)

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
            problem = str(error)
        raise InvalidArguments(self._task, f"{problem}: it takes {self}")

    def _check_context_parameters(self, parameters: Iterable[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name in self.context_parameters and parameter.kind is not Parameter.KEYWORD_ONLY:
                raise ConfigurationError(
                    f"task {self._task}: the Context parameter {parameter.name!r} must be keyword-only: "
                    f"put it behind a '*', as in (…, *, {parameter.name}: Context = INJECTED)",
                )

    def __str__(self) -> str:
        shown = [_shown(parameter) for parameter in self.parameters.values()]
        return " ".join(str(self._signature.replace(parameters=shown)).split())


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


def _parameters_of(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    if sys.version_info >= (3, 14):  # where an annotation is code that is run when it is asked for
        import annotationlib  # noqa: PLC0415 — there is none before

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF).parameters
    return inspect.signature(function).parameters


def _type_hints(task: str, function: Callable[..., Any], parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the types of parameters; that of the returned value may be known to type checkers alone."""
    found = {name: p.annotation for name, p in parameters.items() if p.annotation is not Parameter.empty}
    owner = types.SimpleNamespace(__annotations__=found)
    try:
        return typing.get_type_hints(owner, globalns=_globals_of(function), include_extras=True)
    except Exception as error:  # noqa: BLE001 — a text as an annotation is code, and may fail in any way
        raise ConfigurationError(f"task {task}: an annotation can't be resolved: {error}") from None


def _globals_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the names that a function's annotations may use."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, partial | types.MethodType):
        inner = inspect.unwrap(inner.func if isinstance(inner, partial) else inner.__func__)
    found: dict[str, Any] = getattr(inner, "__globals__", {})
    return found


def _codec(task: str, signature: inspect.Signature, hints: Mapping[str, Any]) -> Codec:
    try:
        return Codec({name: _hint(p, hints.get(name, Any)) for name, p in signature.parameters.items()})
    except ConfigurationError as error:
        reason = str(error)
    raise ConfigurationError(f"task {task}: a parameter's type can't be sent as JSON: {reason}")


def _hint(parameter: Parameter, hint: Any) -> Any:
    match parameter.kind:
        case Parameter.VAR_POSITIONAL:
            return tuple[hint, ...]
        case Parameter.VAR_KEYWORD:
            return dict[str, hint]
        case _:
            return hint


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind in _NAMED


def _shown(parameter: Parameter) -> Parameter:
    """Return a parameter as it may be shown."""
    if parameter.default is Parameter.empty or isinstance(parameter.default, _SHOWN):
        return parameter
    return parameter.replace(default=_Hidden())


class _Hidden:
    """Stands for a default that is not shown."""

    def __repr__(self) -> str:
        return "…"
