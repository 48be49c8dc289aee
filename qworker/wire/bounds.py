"""The bounds of what a message says: producers are refused beyond them, and workers read nothing beyond them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from qworker.brokers.base import MAX_TTL
from qworker.errors import InvalidEnvelope
from qworker.lines.escaping import has_hidden, printable

MAX_NAME: Final = 255
"""Characters of an id, of a task's name, and of a header's."""
MAX_COUNT: Final = 1_000_000
MAX_JOBS: Final = 1_024
"""Jobs in one message; as qworker writes them, 64 KiB hold half as many."""
MAX_HEADERS: Final = 64
MAX_OWN_HEADERS: Final = 32
"""Headers that a producer may give a job: the others are for trace context, which is added later."""
MAX_HEADER: Final = 8_192
"""Characters of a header's text."""
MAX_REASON: Final = 4_096
"""Characters of an error's type, and of its text, that a message keeps."""
EARLIEST: Final = 1970
"""The year that no job is older than; other languages write an unset moment as the year 1."""
_SHOWN: Final = 60


def is_name(value: object) -> bool:
    """Say whether a value may be an id or the name of a task."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and (value.isprintable() or not has_hidden(value))


def name_of(fields: Mapping[str, Any], key: str, default: str | None) -> str:
    """Return an id or a name. Raises InvalidEnvelope."""
    value = fields.get(key, default)
    if isinstance(value, str) and 0 < len(value) <= MAX_NAME and (value.isprintable() or not has_hidden(value)):
        return value
    raise InvalidEnvelope(_why_no_name(key, value) if key in fields else f"{key!r} is missing")


def count_of(fields: Mapping[str, Any], key: str, most: int = MAX_COUNT) -> int:
    """Return a count, 0 where there is none. Raises InvalidEnvelope."""
    value = fields.get(key, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise InvalidEnvelope(f"{key!r} must be a whole number, 0 to {most}")
    return value


def true_or_missing(fields: Mapping[str, Any], key: str) -> bool:
    """Return whether something is said to be true. Raises InvalidEnvelope for anything else."""
    if fields.get(key, True) is not True:
        raise InvalidEnvelope(f"{key!r} must be true, or not be there")
    return key in fields


def ttl_of(fields: Mapping[str, Any]) -> int | None:
    """Return the seconds that a job is worth starting for, None for always. Raises InvalidEnvelope."""
    ttl = fields.get("ttl")
    if ttl is not None and (type(ttl) is not int or not 1 <= ttl <= MAX_TTL):
        raise InvalidEnvelope(f"'ttl' must be a whole number of seconds, 1 to {MAX_TTL}")
    return ttl


def moment_of(fields: Mapping[str, Any], key: str) -> datetime | None:
    """Return a moment in UTC, None where there is none. Raises InvalidEnvelope."""
    value = fields.get(key)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not UTC:
            moment = _in_utc(key, moment)
    except (TypeError, ValueError, OverflowError):
        raise InvalidEnvelope(f"{key!r} must be a time as in 2026-11-23T05:00:00Z") from None
    if moment.year < EARLIEST:
        raise InvalidEnvelope(f"{key!r} must be a time from {EARLIEST} on, as in 2026-11-23T05:00:00Z")
    return moment


def _in_utc(key: str, moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise InvalidEnvelope(f"{key!r} has no time zone: write 2026-11-23T05:00:00Z")
    return moment.astimezone(UTC)


def headers_of(fields: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the headers. Raises InvalidEnvelope."""
    headers: Mapping[str, str] = fields.get("headers", {})
    if problem := header_problem(headers, MAX_HEADERS):
        raise InvalidEnvelope(f"'headers' {problem}")
    return headers


def header_problem(headers: Any, most: int) -> str:
    """Say in a few words what is wrong with headers; nothing if they are within bounds."""
    if not isinstance(headers, Mapping):
        return "must be an object"
    if len(headers) > most:
        return f"are {len(headers)}, the limit is {most}"
    for name, text in headers.items():
        if not (isinstance(name, str) and isinstance(text, str)):
            return "must be texts"
        if len(name) > MAX_NAME:
            return f"have a name of over {MAX_NAME} characters"
        if len(text) > MAX_HEADER:
            return f"have a text of over {MAX_HEADER} characters"
    return ""


def in_short(value: object) -> str:
    """Return a JSON value as it may stand in an error: in one line, and no longer than that bears."""
    if isinstance(value, str | int | float | None):
        try:
            text = printable(repr(value))
        except ValueError:  # an integer of more digits than Python converts
            return "a number of very many digits"
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"a JSON {type(value).__name__}"


def _why_no_name(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        return f"{key!r} must be a text"
    if len(value) > MAX_NAME:
        return f"{key!r} has {len(value)} characters, the limit is {MAX_NAME}"
    return f"{key!r} holds a control character, or one that turns the direction of text"
