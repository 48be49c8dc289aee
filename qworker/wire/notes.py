"""A worker's notes in a message between its deliveries, apart from its producer's words.

::

    {"noted":{"in":"<the message's id>","releases":1,"last":true,"given_up":{"type":"…","message":"…"}},"task":…

They stand in front, and the rest of the body is as it was. They count only in the message that they name, and once it
was delivered: nobody who puts a message knows the id that the broker gives to it.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qworker.errors import InvalidEnvelope
from qworker.job import Reason
from qworker.wire.bodies import DECODER, Encoding, as_fields, as_text, is_plain, sendable, text_in
from qworker.wire.bounds import MAX_REASON, count_of, true_or_missing

KEY: Final = "noted"
_START: Final = re.compile(r'\ufeff?\s*\{(?="noted":)')


@dataclass(frozen=True, slots=True)
class Notes:
    """What a worker has to tell the next one."""

    releases: int = 0
    """How many deliveries were given back by no fault of the job."""
    begun: bool = False
    """Whether the handler was called, of a job with a ttl."""
    last: bool = False
    """Whether the last attempt begins, or comes next."""
    given_up: Reason | None = None
    """Why the job belongs into the poison queue, which did not take it."""
    unknown: int = 0
    """How many of the releases were of workers that don't know its task."""


NOTHING: Final = Notes()


def with_notes(body: str, message_id: str, notes: Notes) -> str:
    """Return a message's body with these notes instead of those in it; all else in it is kept."""
    if notes == NOTHING:
        return without_notes(body, message_id)
    text = _text_of(without_notes(body, message_id))
    if f'"{KEY}"' in text and KEY in (fields := as_fields(text)):  # somebody else's, which would stand there twice
        text = as_text({key: value for key, value in fields.items() if key != KEY})
    noted = as_text({KEY: fields_of(message_id, notes)})
    return _as_before(text.replace("{", f"{noted[:-1]},", 1), body)


def without_notes(body: str, message_id: str) -> str:
    """Return a message's body as it was before it had notes; what is no envelope is left as it is."""
    try:
        text = _text_of(body)
        if (start := _START.match(text)) is None:
            return body
        value, end = DECODER.raw_decode(text, start.end() + len(f'"{KEY}":'))
    except (InvalidEnvelope, ValueError, RecursionError):
        return body
    if not _is_of(value, message_id) or text[end : end + 1] != ",":
        return body
    return _as_before(start[0] + text[end + 1 :], body)


def notes_in(fields: Mapping[str, Any], message_id: str, deliveries: int | None) -> Notes:
    """Return the notes among a body's fields; *deliveries*: of its message until now, where that is known.

    Raises InvalidEnvelope for what no worker writes.
    """
    noted: Any = fields.get(KEY)
    if deliveries == 1 or not _is_of(noted, message_id):
        return NOTHING
    begun, last = true_or_missing(noted, "begun"), true_or_missing(noted, "last")
    notes = Notes(count_of(noted, "releases"), begun, last, reason_of(noted), count_of(noted, "unknown"))
    if deliveries is not None and notes.releases >= deliveries:
        raise InvalidEnvelope(f"it notes more releases than it had deliveries: {deliveries - 1}")
    return notes


def fields_of(message_id: str, notes: Notes) -> dict[str, Any]:
    """Return notes as they stand in a body."""
    fields: dict[str, Any] = {"in": message_id}
    if notes.releases:
        fields["releases"] = notes.releases
    if notes.unknown:
        fields["unknown"] = notes.unknown
    if notes.begun:
        fields["begun"] = True
    if notes.last:
        fields["last"] = True
    if notes.given_up is not None:
        fields["given_up"] = said_of(notes.given_up)
    return fields


def said_of(reason: Reason) -> dict[str, str]:
    """Return a reason as it stands in a body."""
    return {"type": sendable(reason.type), "message": sendable(reason.message)}


def reason_of(fields: Mapping[str, Any]) -> Reason | None:
    """Return the reason among fields, if there is one. Raises InvalidEnvelope."""
    if "given_up" not in fields:
        return None
    said = fields["given_up"]
    sound = isinstance(said, dict) and said.keys() == {"type", "message"}
    if not sound or not all(isinstance(text, str) and len(text) <= MAX_REASON for text in said.values()):
        raise InvalidEnvelope(
            f"'given_up' must have the texts 'type' and 'message', of {MAX_REASON} characters at most"
        )
    return Reason(**said)


def _is_of(noted: Any, message_id: str) -> bool:
    return isinstance(noted, dict) and noted.get("in") == message_id


def _text_of(body: str) -> str:
    """Return a body's text, with whatever stands before its JSON if it is plain. Raises InvalidEnvelope."""
    return body if is_plain(body) else text_in(body)


def _as_before(text: str, body: str) -> str:
    """Return a text as its body went over the wire."""
    encoding: Encoding = "text" if is_plain(body) else "base64"
    return text if encoding == "text" else base64.b64encode(text.encode()).decode("ascii")
