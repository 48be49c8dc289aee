"""The message that goes to a poison queue: the original body, unmodified, and why it was given up."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from qworker.bodies import Encoding, as_body, as_fields, sendable
from qworker.brokers.base import MAX_BODY_BYTES
from qworker.errors import InvalidEnvelope
from qworker.outcome import Failure

_TRACEBACK, _MESSAGE, _SHORT = 16_384, 2_048, 256


@dataclass(frozen=True, slots=True)
class PoisonRecord:
    """One job, or message, that was given up."""

    body: str = field(repr=False)
    """The message's body, as it was received."""
    queue: str
    failure: Failure
    attempts: int
    worker: str
    poisoned_at: datetime
    message_id: str
    job_id: str | None = None
    task: str | None = None


_RECORD: Final = TypeAdapter(PoisonRecord)
_FIELDS: Final = ("queue", "attempts", "worker", "message_id", "job_id", "task")


def encode_poison(record: PoisonRecord, encoding: Encoding = "text") -> str:
    """Return the body of the poison message.

    Where it would outgrow a message, the traceback gives way first, then the text of the error, then all but the
    original body, which always fits.
    """
    for traceback, message in ((_TRACEBACK, _MESSAGE), (_SHORT * 8, _MESSAGE), (0, _SHORT)):
        body = as_body(_as_json(record, traceback, message), encoding)
        if len(body.encode()) <= MAX_BODY_BYTES:
            return body
    return record.body


def decode_poison(body: str) -> PoisonRecord:
    """Return the record in a poison message's body. Raises InvalidEnvelope if it holds none."""
    fields = as_fields(body)
    poison, original = fields.get("poison"), fields.get("body")
    if not isinstance(poison, dict) or not isinstance(original, str):
        raise InvalidEnvelope("it is no record of a poisoned job")
    try:
        return _RECORD.validate_python(
            {**poison, "body": original, "failure": poison.get("error"), "poisoned_at": poison.get("at")},
        )
    except ValidationError as problem:
        raise InvalidEnvelope(f"it is no record of a poisoned job: {problem.error_count()} fields don't fit") from None


def _as_json(record: PoisonRecord, traceback: int, message: int) -> dict[str, Any]:
    failure = record.failure
    error = {"type": failure.type[:_SHORT], "message": sendable(failure.message[:message])}
    if failure.where:
        error["where"] = sendable(failure.where[-_SHORT:])
    if traceback and failure.traceback:
        error["traceback"] = sendable(failure.traceback[-traceback:])  # its end says most
    known = {name: getattr(record, name) for name in _FIELDS}
    at = record.poisoned_at.astimezone(UTC).isoformat(timespec="milliseconds")
    return {"v": 1, "poison": {**known, "at": at, "error": error}, "body": record.body}
