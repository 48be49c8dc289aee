"""The message that goes to a poison queue: the original body, unmodified, and why it was given up."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from qworker.brokers.base import MAX_BODY_BYTES, check_body, check_text
from qworker.errors import InvalidEnvelope, MessageTooLarge
from qworker.outcome import Failure
from qworker.wire.bodies import Encoding, as_body, as_fields, sendable
from qworker.wire.bounds import count_of, moment_of, name_of

_TRACEBACK, _MESSAGE, _SHORT = 16_384, 2_048, 256
_KEPT: Final = 4_096
"""Bytes of a body that no message can hold; each may be escaped with six characters."""


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


_FIELDS: Final = ("queue", "attempts", "worker", "message_id", "job_id", "task")


class NoSoundRecord(InvalidEnvelope):
    """A body looks like a record, and some of it can't be."""


def encode_poison(record: PoisonRecord, encoding: Encoding = "text") -> str:
    """Return the body of the poison message.

    Where it would outgrow a message, the traceback gives way first, then the text of the error, then all but the
    original body. A record never takes all the room of a message: what does stands alone, whatever it says.
    """
    for traceback, message in ((_TRACEBACK, _MESSAGE), (_SHORT * 8, _MESSAGE), (0, _SHORT)):
        body = as_body(_as_json(record, traceback, message), encoding)
        if len(body.encode()) < MAX_BODY_BYTES:
            return body
    try:
        return check_text(check_body(_alone(record.body)))
    except (ValueError, MessageTooLarge) as problem:  # an SQLite file may hold what nobody can put
        return as_body(_as_json(_cut(record, problem), 0, _MESSAGE), encoding)


def decode_poison(body: str) -> PoisonRecord:
    """Return the record in a poison message's body.

    Raises InvalidEnvelope if it holds none, NoSoundRecord if it looks like one.
    """
    if _takes_all_room(body):
        raise InvalidEnvelope("it is a body that stands alone")
    fields = as_fields(body)
    said, original = fields.get("poison"), fields.get("body")
    if not isinstance(said, dict) or not isinstance(original, str):
        raise InvalidEnvelope("it is no record of a poisoned job")
    try:
        return _record_of(said, original)
    except InvalidEnvelope as problem:
        raise NoSoundRecord(f"it is no sound record of a poisoned job: {problem}") from None


def _record_of(said: dict[str, Any], body: str) -> PoisonRecord:
    poisoned_at = moment_of(said, "at")
    if poisoned_at is None:
        raise InvalidEnvelope("'at' is missing")
    return PoisonRecord(
        body=body,
        queue=name_of(said, "queue", None),
        failure=_failure_of(said.get("error")),
        attempts=count_of(said, "attempts"),
        worker=name_of(said, "worker", None),
        poisoned_at=poisoned_at,
        message_id=name_of(said, "message_id", None),
        job_id=_name_or_none(said, "job_id"),
        task=_name_or_none(said, "task"),
    )


def _failure_of(said: Any) -> Failure:
    if not isinstance(said, dict) or not {"type", "message"} <= said.keys():
        raise InvalidEnvelope("'error' must be an object with 'type' and 'message'")
    texts = {name: said[name] for name in ("type", "message", "traceback", "where") if name in said}
    if odd := [name for name, text in texts.items() if not isinstance(text, str)]:
        raise InvalidEnvelope(f"'error' must have texts, and {odd[0]!r} is none")
    return Failure(**texts)


def _name_or_none(said: Mapping[str, Any], key: str) -> str | None:
    return None if said.get(key) is None else name_of(said, key, None)


def _takes_all_room(body: str) -> bool:
    return len(body) * 4 >= MAX_BODY_BYTES and len(body.encode()) >= MAX_BODY_BYTES


def _alone(body: str) -> str:
    """Return a body that stands alone; one that could be taken for a record is made to take all the room.

    A producer may have written it so. White space behind the first character changes neither JSON nor Base64.
    """
    try:
        if "poison" not in as_fields(body):
            return body
    except InvalidEnvelope:
        return body
    text = body.strip("\ufeff \t\r\n")
    return text[:1] + " " * (MAX_BODY_BYTES - len(text.encode())) + text[1:]


def _cut(record: PoisonRecord, problem: Exception) -> PoisonRecord:
    """Return a record with the beginning of a body that no message can hold."""
    failure, kept = record.failure, record.body.encode()[:_KEPT].decode(errors="ignore")
    message = f"{problem}: its body is cut here; {failure.message}"
    return replace(record, body=kept, failure=replace(failure, message=message))


def _as_json(record: PoisonRecord, traceback: int, message: int) -> dict[str, Any]:
    failure = record.failure
    error = {"type": sendable(failure.type[:_SHORT]), "message": sendable(failure.message[:message])}
    if failure.where:
        error["where"] = sendable(failure.where[-_SHORT:])
    if traceback and failure.traceback:
        error["traceback"] = sendable(failure.traceback[-traceback:])  # its end says most
    known = {name: getattr(record, name) for name in _FIELDS}
    at = record.poisoned_at.astimezone(UTC).isoformat(timespec="milliseconds")
    return {"v": 1, "poison": {**known, "at": at, "error": error}, "body": record.body}
