"""The JSON text in a message, version 1.

::

    {"v":1,"id":"0199…","task":"mail.send","args":["a@b.c"],"kwargs":{},"enqueued_at":"2026-11-23T05:00:00Z"}

Optional: ``headers``; ``ttl``, the seconds after its put that a job is worth starting for, or ``expires_at``, the
moment until which it is, both by the broker's clock. Written by workers: ``releases``, ``attempts`` (made of a job that
came in a bundle, see bundle.py), ``begun`` (of a job with a ttl whose handler was called), ``last``, ``state``, and
``given_up``, the reason of a job whose poison queue did not take it: ``{"type":"ValueError","message":"…"}``. The least
a producer may send is ``{"task":"…"}``.
Keys that this version doesn't know mean nothing to it and are kept where it writes a message anew, so that a newer
producer, and newer workers, can run beside an older worker.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, NoReturn

from pydantic_core import to_json

from qworker.brokers.base import MAX_TTL, check_body
from qworker.errors import InvalidEnvelope, MessageTooLarge
from qworker.job import Job, Reason

VERSION: Final = 1
MAX_DEPTH: Final = 200
"""Levels of a body's arrays and objects. Python's own limits differ by version, and between reading and writing."""
Encoding = Literal["text", "base64"]
"""How a body goes over the wire: as the JSON text itself, or as Base64 of it, which Azure Functions expects."""

_LAST_NOTE: Final = '{"last":true,'
_GIVEN_UP_NOTE: Final = re.compile(r'\s*\{"given_up":\{"type":"(?:[^"\\]|\\.)*","message":"(?:[^"\\]|\\.)*"\},')
_KNOWN: Final = frozenset(
    {
        "v",
        "id",
        "task",
        "args",
        "kwargs",
        "enqueued_at",
        "ttl",
        "expires_at",
        "releases",
        "attempts",
        "begun",
        "last",
        "state",
        "headers",
        "given_up",
    }
)
_PLAIN: Final = frozenset({"v", "id", "task", "args", "kwargs", "enqueued_at"})
"""All that most envelopes have."""
_HISTORY: Final = frozenset({"releases", "attempts", "begun", "last", "given_up"})
"""What workers write into a body between its deliveries, apart from the state."""
# Of what JSON leaves unescaped, XML 1.0 can't carry these (section 2.2, Char), and \x7f to \x9f travel badly.
_NOT_XML = re.compile("[\x7f-\x9f\ufffe\uffff]")
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_SHORT: Final = 4000
"""Characters of a JSON text without a number of more digits than Python converts, which it would convert to none."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TOO_DEEP: Final = f"its JSON is nested over {MAX_DEPTH} levels deep"


def encode(job: Job, encoding: Encoding = "text") -> str:
    """Return the body of a message that carries *job*.

    Raises ValueError for what JSON can't say: a lone surrogate, a number that is not finite, or too many levels.
    """
    fields = _fields_of(job)
    try:
        text = _as_text(fields)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _may_be_deep(text) and is_deep(fields):
        raise ValueError(_TOO_DEEP)
    return on_the_wire(text, encoding)


def _fields_of(job: Job) -> dict[str, Any]:
    fields: dict[str, Any] = {"v": VERSION, "id": job.id, "task": job.task, "args": job.args, "kwargs": job.kwargs}
    if job.enqueued_at is not None:
        fields["enqueued_at"] = _iso(job.enqueued_at)
    if job.has_ttl:
        fields |= _ttl_of(job)
    if job.releases:
        fields["releases"] = job.releases
    if job.attempts:
        fields["attempts"] = job.attempts
    if job.last:
        fields["last"] = True
    if job.state is not None:
        fields["state"] = job.state
    if job.headers:
        fields["headers"] = dict(job.headers)
    if job.given_up is not None:
        fields["given_up"] = asdict(job.given_up)
    if job.extra:
        fields |= {key: value for key, value in job.extra.items() if key not in _KNOWN}
    return fields


def _ttl_of(job: Job) -> dict[str, Any]:
    fields: dict[str, Any] = {} if job.ttl is None else {"ttl": job.ttl}
    if job.expires_at is not None:
        fields["expires_at"] = _iso(job.expires_at)
    return fields | ({"begun": True} if job.begun else {})


def as_body(value: Mapping[str, Any], encoding: Encoding = "text") -> str:
    """Return *value* as JSON text that survives the XML of the service's protocol."""
    return on_the_wire(_as_text(value), encoding)


def _as_text(value: Mapping[str, Any]) -> str:
    text = _as_short_text(value) or _ENCODER.encode(value)
    if text.isascii() and "\x7f" not in text:
        return text
    return _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _as_short_text(value: Mapping[str, Any]) -> str | None:
    """Return the same as the encoder in a fifth of its time, unless it might be something that the encoder refuses."""
    try:
        text = to_json(value).decode()
    except ValueError:  # a lone surrogate, too many levels
        return None
    refused = len(text) > _SHORT or "NaN" in text or "Infinity" in text or "\ufffd" in text
    return None if refused else text


def _may_be_deep(text: str) -> bool:
    """Say whether JSON text has enough brackets to be nested too deep; few texts have."""
    return len(text) > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH


def on_the_wire(text: str, encoding: Encoding) -> str:
    """Return JSON text as it is sent. Raises UnicodeEncodeError for a lone surrogate."""
    data = text.encode()
    return base64.b64encode(data).decode("ascii") if encoding == "base64" else text


def decode(body: str, *, message_id: str) -> Job:
    """Return the job in a message's body; a producer that sent no job id gets the message's id.

    Raises InvalidEnvelope, and nothing else, whatever the body is.
    """
    return job_of(as_fields(body), message_id)


def job_of(fields: dict[str, Any], message_id: str) -> Job:
    """Return the job in an envelope's fields. Raises InvalidEnvelope."""
    check_version(fields)
    job = Job(
        id=text_of(fields, "id", message_id),
        task=text_of(fields, "task", None),
        args=_typed(fields, "args", list, []),
        kwargs=_typed(fields, "kwargs", dict, {}),
        enqueued_at=_moment(fields, "enqueued_at"),
    )
    if _PLAIN.issuperset(fields):
        return job
    return replace(
        job,
        ttl=_ttl(fields),
        expires_at=_moment(fields, "expires_at"),
        releases=count_of(fields, "releases"),
        attempts=count_of(fields, "attempts"),
        begun=_true(fields, "begun"),
        last=_true(fields, "last"),
        state=fields.get("state"),
        headers=_headers(fields),
        given_up=_reason(fields),
        extra={} if _KNOWN.issuperset(fields) else {key: fields[key] for key in fields.keys() - _KNOWN},
    )


def without_history(body: str) -> str:
    """Return a body as it was before its first delivery, except for its state; what is no envelope is left as it is."""
    try:
        fields = as_fields(body)
        first = {key: value for key, value in fields.items() if key not in _HISTORY}
        if len(first) == len(fields):
            return body
        return check_body(as_body(first, "text" if is_plain(body) else "base64"))
    except (InvalidEnvelope, MessageTooLarge, RecursionError):  # another's JSON may have been the shorter one
        return body


def note_last(body: str) -> str:
    """Return the body of a job that is not noted to be in its last attempt as one that is; all else in it is kept."""
    return _replace_start(body, "{", _LAST_NOTE)


def note_given_up(body: str, reason: Reason) -> str:
    """Return the body of a job that is not noted to be given up as one that is; all else in it is kept."""
    note = as_body({"given_up": {name: sendable(text) for name, text in asdict(reason).items()}})
    return _replace_start(body, "{", f"{note[:-1]},")


def without_notes(body: str) -> str:
    """Return a body as it was before note_last and note_given_up; what is no envelope is left as it is."""
    try:
        given_up = _GIVEN_UP_NOTE.match(body if is_plain(body) else from_base64(body))
        if given_up is not None:
            body = _replace_start(body, given_up[0].lstrip(), "{")
        return _replace_start(body, _LAST_NOTE, "{")
    except InvalidEnvelope:
        return body


def sendable(text: str) -> str:
    """Return a text without lone surrogates, which no broker would carry."""
    return text.encode("utf-8", "backslashreplace").decode()


def _replace_start(body: str, old: str, new: str) -> str:
    text = body if is_plain(body) else from_base64(body)
    if not text.lstrip().startswith(old):
        return body
    text = text.replace(old, new, 1)
    return text if is_plain(body) else base64.b64encode(text.encode()).decode("ascii")


def as_fields(body: str) -> dict[str, Any]:
    """Return the JSON object in a body, be it plain text or Base64. Raises InvalidEnvelope."""
    text = body if is_plain(body) else from_base64(body)
    try:
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # fails for half of a pair, which nothing could send on
    except UnicodeEncodeError:
        raise InvalidEnvelope("it holds a lone surrogate, which is no character") from None
    except RecursionError:
        raise InvalidEnvelope(_TOO_DEEP) from None
    except ValueError as error:  # a JSONDecodeError, or an integer of more digits than Python converts
        raise InvalidEnvelope(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidEnvelope(f"it is a JSON {type(value).__name__}, not an object")
    if _may_be_deep(text) and is_deep(value):
        raise InvalidEnvelope(_TOO_DEEP)
    return value


def is_plain(body: str) -> bool:
    """Say whether a body is JSON text, rather than Base64."""
    return body.lstrip()[:1] in {"{", "["}


def is_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Say whether a JSON value has more levels of arrays and objects than these."""
    level, depth = [value], 0
    while level and depth < levels:
        members = (each.values() if isinstance(each, dict) else each for each in level)
        level, depth = [member for some in members for member in some if isinstance(member, dict | list)], depth + 1
    return bool(level)


def from_base64(body: str) -> str:
    """Return the text that a body is Base64 of. Raises InvalidEnvelope."""
    try:
        return base64.b64decode(body, validate=True).decode()
    except binascii.Error:
        raise InvalidEnvelope("it is neither a JSON object nor Base64") from None
    except UnicodeDecodeError:
        raise InvalidEnvelope("its Base64 is not UTF-8 text") from None
    except ValueError:  # characters outside ASCII
        raise InvalidEnvelope("it is neither a JSON object nor Base64") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise InvalidEnvelope("a key stands twice in one JSON object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidEnvelope("a number is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidEnvelope(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)


def check_version(fields: Mapping[str, Any]) -> None:
    """Raise InvalidEnvelope for a version that this worker does not read."""
    version = fields.get("v", VERSION)
    if version != VERSION or isinstance(version, bool):
        raise InvalidEnvelope(f"its version is {version!r}, this worker reads version {VERSION}")


def text_of(fields: Mapping[str, Any], key: str, default: str | None) -> str:
    """Return one of an envelope's texts. Raises InvalidEnvelope."""
    value = fields.get(key, default)
    if not isinstance(value, str) or not value:
        raise InvalidEnvelope(f"{key!r} must be a text" if key in fields else f"{key!r} is missing")
    return value


def _typed(fields: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = fields.get(key, default)
    if not isinstance(value, kind):
        raise InvalidEnvelope(f"{key!r} must be {'an array' if kind is list else 'an object'}")
    return value


def _true(fields: dict[str, Any], key: str) -> bool:
    if fields.get(key, True) is not True:
        raise InvalidEnvelope(f"{key!r} must be true, or not be there")
    return key in fields


def count_of(fields: Mapping[str, Any], key: str) -> int:
    """Return one of an envelope's counts. Raises InvalidEnvelope."""
    value = fields.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidEnvelope(f"{key!r} must be a whole number, 0 or more")
    return value


def _ttl(fields: Mapping[str, Any]) -> int | None:
    ttl = fields.get("ttl")
    if ttl is not None and (not isinstance(ttl, int) or isinstance(ttl, bool) or not 1 <= ttl <= MAX_TTL):
        raise InvalidEnvelope(f"'ttl' must be a whole number of seconds, 1 to {MAX_TTL}")
    return ttl


def _headers(fields: dict[str, Any]) -> Mapping[str, str]:
    headers: dict[str, str] = _typed(fields, "headers", dict, {})
    if not all(isinstance(value, str) for value in headers.values()):
        raise InvalidEnvelope("'headers' must be texts")
    return headers


def _reason(fields: dict[str, Any]) -> Reason | None:
    reason = _typed(fields, "given_up", dict, None) if "given_up" in fields else None
    if reason is None:
        return None
    if reason.keys() != {"type", "message"} or not all(isinstance(text, str) for text in reason.values()):
        raise InvalidEnvelope("'given_up' must have the texts 'type' and 'message'")
    return Reason(**reason)


def _moment(fields: dict[str, Any], key: str) -> datetime | None:
    value = fields.get(key)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise InvalidEnvelope(f"{key!r} must be a time as in 2026-11-23T05:00:00Z") from None


@lru_cache(maxsize=16)  # jobs that are enqueued together have it in common
def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
