"""A JSON Schema of the messages that an app's tasks take, for producers in other languages."""

from collections.abc import Iterable, Mapping
from inspect import Parameter
from typing import Any, Final
from urllib.parse import quote

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind, models_json_schema
from pydantic_core import CoreSchema

from qworker.brokers.base import MAX_TTL
from qworker.task import Task
from qworker.wire.bounds import MAX_HEADER, MAX_HEADERS, MAX_NAME
from qworker.wire.envelope import VERSION

_ENVELOPE: Final = f"envelope:v{VERSION}"
"""With a colon, as the names of tasks have here too, so that no class can have this name."""
_NAME: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME,
    "not": {"pattern": r"[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"},
}
_OF_WORKERS: Final = ("noted", "attempts", "begun", "last", "given_up")
"""What only workers have to say."""
_BY_POSITION: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_NAMED: Final = (*_BY_POSITION, Parameter.KEYWORD_ONLY)
_JSON: Final = (str, int, bool, type(None))


def schema_of(tasks: Iterable[Task[..., Any]]) -> dict[str, Any]:
    """Return a JSON Schema (2020-12). What it admits, a worker accepts, unless a validator or a size forbids it.

    It is stricter than a worker, which also takes "5" for a number.
    """
    known = tuple(tasks)
    models = [task.signature.model for task in known]
    references, document = models_json_schema([(model, "validation") for model in models], schema_generator=_Generator)
    shared = document.get("$defs", {})
    arguments = {
        task.name: shared[references[model, "validation"]["$ref"].removeprefix("#/$defs/")]
        for task, model in zip(known, models, strict=True)
    }
    own = {id(schema) for schema in arguments.values()}
    messages = {f"task:{task.name}": _message(task, arguments[task.name]) for task in known}
    classes = {name: schema for name, schema in shared.items() if id(schema) not in own}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The JSON text of a message with one job",
        "description": "At most 65536 bytes of UTF-8, or of Base64. Only 'task' and what its call needs must be said.",
        "anyOf": [{"$ref": f"#/$defs/{_as_fragment(name)}"} for name in messages],
        "$defs": {**messages, _ENVELOPE: _envelope(), **classes},
    }


class _Generator(GenerateJsonSchema):
    """Says nothing of what can't be said, instead of failing."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 — pydantic's signature
        return False  # each would repeat its name

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Leave out a default that JSON can't say, and say nothing."""


def _envelope() -> dict[str, Any]:
    moment = {"type": "string", "format": "date-time"}
    return {
        "type": "object",
        "properties": {
            "v": {"const": VERSION, "description": "The version of the envelope; may be left out."},
            "id": _NAME | {"description": "Unique; without it, the message's id is taken."},
            "enqueued_at": moment | {"description": "When the producer made it, with a time zone, from 1970 on."},
            "ttl": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_TTL,
                "description": "Not worth starting later than so many seconds after its put.",
            },
            "expires_at": moment | {"description": "Not worth starting after this, by the broker's clock."},
            "headers": {
                "type": "object",
                "maxProperties": MAX_HEADERS,
                "propertyNames": {"maxLength": MAX_NAME},
                "additionalProperties": {"type": "string", "maxLength": MAX_HEADER},
                "description": "What the handler finds in ctx.headers; trace context, too.",
            },
            **dict.fromkeys(_OF_WORKERS, False),
        },
    }


def _message(task: Task[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    parameters = task.signature.parameters
    schemas = {
        name: _with_default(schema, parameters[name]) for name, schema in arguments.get("properties", {}).items()
    }
    by_position = [name for name, parameter in parameters.items() if parameter.kind in _BY_POSITION]
    by_name = [name for name, parameter in parameters.items() if parameter.kind in _BY_NAME]
    rest = {parameter.kind: schemas[name] for name, parameter in parameters.items() if parameter.kind not in _NAMED}
    more = rest.get(Parameter.VAR_POSITIONAL, {"items": False}).get("items", True)
    others = rest.get(Parameter.VAR_KEYWORD, {"additionalProperties": False}).get("additionalProperties", True)
    said = {"description": task.__doc__} if task.__doc__ else {}
    return said | {
        "allOf": [{"$ref": f"#/$defs/{_as_fragment(_ENVELOPE)}"}],
        "properties": {
            "task": {"const": task.name},
            "args": {"type": "array", **_prefix([schemas[name] for name in by_position]), "items": more},
            "kwargs": {
                "type": "object",
                "properties": {name: schemas[name] for name in by_name},
                "additionalProperties": others,
            },
        },
        "required": ["task"],
        "anyOf": [
            _call(parameters, by_position, passed, endless=more is not False and passed == len(by_position))
            for passed in range(_fewest(parameters), len(by_position) + 1)
        ],
    }


def _with_default(schema: Mapping[str, Any], parameter: Parameter) -> dict[str, Any]:
    """Return a parameter's schema with its own default, if JSON can say it, instead of the model's."""
    own = {key: value for key, value in schema.items() if key != "default"}
    return own | ({"default": parameter.default} if isinstance(parameter.default, _JSON) else {})


def _prefix(schemas: list[Any]) -> dict[str, Any]:
    return {"prefixItems": schemas} if schemas else {}  # an empty array is no schema


def _fewest(parameters: Mapping[str, Parameter]) -> int:
    """Return how many arguments must be passed by position."""
    needed = [
        number
        for number, parameter in enumerate(parameters.values(), start=1)
        if parameter.kind is Parameter.POSITIONAL_ONLY and parameter.default is Parameter.empty
    ]
    return max(needed, default=0)


def _call(parameters: Mapping[str, Parameter], by_position: list[str], passed: int, *, endless: bool) -> dict[str, Any]:
    """Return what holds if so many arguments are passed by position: which names are needed, and which are taken."""
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in _BY_NAME and parameter.default is Parameter.empty and name not in by_position[:passed]
    ]
    taken = [name for name in by_position[:passed] if parameters[name].kind in _BY_NAME]
    args = {"minItems": passed} | ({} if endless else {"maxItems": passed})
    kwargs: dict[str, Any] = {}
    if needed:
        kwargs["required"] = needed
    if taken:
        kwargs["properties"] = dict.fromkeys(taken, False)
    required = [*(["args"] if passed else []), *(["kwargs"] if needed else [])]
    return {"properties": {"args": args, "kwargs": kwargs}} | ({"required": required} if required else {})


def _as_fragment(name: str) -> str:
    """Return a name as it stands in the fragment of a reference (RFC 6901, section 6)."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="!$&'()*+,;=:@~")
