"""What a worker and its child process say to each other: JSON, so that nothing of a message is ever unpickled."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, get_args

from qworker import errors
from qworker.engine.run.child import Checkpoint, ChildCall
from qworker.errors import QworkerError
from qworker.job import Job, Reason
from qworker.outcome import Failure, Outcome


@dataclass(frozen=True, slots=True)
class Saved:
    """The worker's answer to a checkpoint."""

    error: QworkerError | None


Said = ChildCall | Checkpoint | Saved | Outcome


def pack(said: Said) -> bytes:
    """Return what is to be sent."""
    return json.dumps([type(said).__name__, _fields_of(said)], default=_as_json).encode()


def unpack(data: bytes) -> Said:
    """Return what was said."""
    name, values = json.loads(data)
    said: Said = _KINDS[name](**_with_types(values))
    return said


def _fields_of(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    return _error_as_json(value) if isinstance(value, QworkerError) else _fields_of(value)


def _error_as_json(error: QworkerError) -> dict[str, Any]:
    """Return an error as its nearest class in qworker.errors: the engine's own are known to nobody else."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return {"kind": kind.__name__, "text": str(error), "data": vars(error)}


def _error(values: dict[str, Any]) -> QworkerError:
    kind: type[QworkerError] = getattr(errors, values["kind"])
    error = kind.__new__(kind, values["text"])  # without __init__, which takes the data and makes the text of it
    vars(error).update(values["data"])
    return error


def _job(values: dict[str, Any]) -> Job:
    return Job(**_with_types(values))


def _failure(values: dict[str, Any]) -> Failure:
    return Failure(**values)


def _reason(values: dict[str, Any]) -> Reason:
    return Reason(**values)


_TYPES: Final[dict[str, Callable[[Any], Any]]] = {
    "job": _job,
    "failure": _failure,
    "given_up": _reason,
    "error": _error,
    "deadline": datetime.fromisoformat,
    "enqueued_at": datetime.fromisoformat,
    "expires_at": datetime.fromisoformat,
}
_KINDS: Final[dict[str, Any]] = {kind.__name__: kind for kind in (ChildCall, Checkpoint, Saved, *get_args(Outcome))}


def _with_types(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _TYPES[name](value) if name in _TYPES and value is not None else value for name, value in values.items()
    }
