"""The JSON text in a message, version 1: a job in its producer's words.

::

    {"v":1,"id":"0199…","task":"mail.send","args":["a@b.c"],"kwargs":{},"enqueued_at":"2026-11-23T05:00:00Z"}

Optional: ``headers``; ``ttl``, the seconds after its put that a job is worth starting for, or ``expires_at``, the
moment until which it is, both by the broker's clock; ``state``, where its handler goes on. The least a producer may
send is ``{"task":"…"}``; bounds.py has the bounds.

Workers write notes in front (notes.py). Where they put a job of a bundle into a message of its own, they say in it, as
any producer could: ``attempts``, made of it before; ``begun``, of a job with a ttl whose handler was called, or
``waited``, the seconds of the ttl that have passed without that; ``last``,
that its last attempt comes next; and ``given_up``, why.
Keys that this version doesn't know mean nothing to it and are kept where it writes a message anew, so that a newer
producer, and newer workers, can run beside an older worker.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from qworker.brokers.base import MAX_TTL, check_body
from qworker.errors import InvalidEnvelope, MessageTooLarge
from qworker.job import Job, Reason
from qworker.wire.bodies import (
    TOO_DEEP,
    Encoding,
    as_body,
    as_fields,
    as_text,
    is_deep,
    is_plain,
    may_be_deep,
    on_the_wire,
)
from qworker.wire.bounds import count_of, headers_of, in_short, moment_of, name_of, true_or_missing, ttl_of
from qworker.wire.notes import KEY as NOTED
from qworker.wire.notes import notes_in, reason_of

VERSION: Final = 1
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
        "attempts",
        "begun",
        "waited",
        "last",
        "state",
        "headers",
        "given_up",
        NOTED,
    }
)
_PLAIN: Final = frozenset({"v", "id", "task", "args", "kwargs", "enqueued_at"})
"""All that most envelopes have."""
_HISTORY: Final = frozenset({NOTED, "attempts", "begun", "waited", "last", "given_up"})
"""What workers write into a body between its deliveries, apart from the state."""


def encode(job: Job, encoding: Encoding = "text") -> str:
    """Return the body of a message that carries *job*, without notes.

    Raises ValueError for what JSON can't say: a lone surrogate, a number that is not finite, or too many levels.
    """
    fields = _fields_of(job)
    try:
        text = as_text(fields)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if may_be_deep(text) and is_deep(fields):
        raise ValueError(TOO_DEEP)
    return on_the_wire(text, encoding)


def _fields_of(job: Job) -> dict[str, Any]:
    fields: dict[str, Any] = {"v": VERSION, "id": job.id, "task": job.task, "args": job.args, "kwargs": job.kwargs}
    if job.enqueued_at is not None:
        fields["enqueued_at"] = _iso(job.enqueued_at)
    if job.ttl is not None:
        fields["ttl"] = job.ttl
    if job.expires_at is not None:
        fields["expires_at"] = _iso(job.expires_at)
    if job.waited:
        fields["waited"] = job.waited
    if job.attempts:
        fields["attempts"] = job.attempts
    if job.state is not None:
        fields["state"] = job.state
    if job.headers:
        fields["headers"] = dict(job.headers)
    if job.extra:
        fields |= {key: value for key, value in job.extra.items() if key not in _KNOWN}
    return fields


def decode(body: str, *, message_id: str, deliveries: int | None = None) -> Job:
    """Return the job in a message's body; a producer that sent no job id gets the message's id.

    *deliveries*: how often the message was received, where that is known; before the second, no worker has noted a
    thing. Raises InvalidEnvelope, and nothing else, whatever the body is.
    """
    return job_of(as_fields(body), message_id, message_id, deliveries)


def job_of(fields: Mapping[str, Any], default_id: str, message_id: str = "", deliveries: int | None = None) -> Job:
    """Return the job in an envelope's fields; without the id of its message, no notes count. Raises InvalidEnvelope."""
    check_version(fields)
    if _PLAIN.issuperset(fields):
        return Job(
            name_of(fields, "id", default_id),
            name_of(fields, "task", None),
            _typed(fields, "args", list, []),
            _typed(fields, "kwargs", dict, {}),
            moment_of(fields, "enqueued_at"),
        )
    notes = notes_in(fields, message_id, deliveries)
    return Job(
        name_of(fields, "id", default_id),
        name_of(fields, "task", None),
        _typed(fields, "args", list, []),
        _typed(fields, "kwargs", dict, {}),
        moment_of(fields, "enqueued_at"),
        ttl=ttl_of(fields),
        expires_at=moment_of(fields, "expires_at"),
        waited=count_of(fields, "waited", MAX_TTL),
        attempts=count_of(fields, "attempts"),
        state=fields.get("state"),
        headers=headers_of(fields),
        releases=notes.releases,
        unknown=notes.unknown,
        begun=true_or_missing(fields, "begun") or notes.begun,
        last=true_or_missing(fields, "last") or notes.last,
        given_up=notes.given_up or _hearsay(fields),
        extra={} if _KNOWN.issuperset(fields) else {key: fields[key] for key in fields.keys() - _KNOWN},
    )


def without_history(body: str) -> str:
    """Return a body as it was before its first delivery, except for its state; what is no envelope is left as it is.

    A ttl counts anew from its next put. A moment can't: the job is said to have begun, so that it is run however late.
    """
    try:
        fields = as_fields(body)
        first = {key: value for key, value in fields.items() if key not in _HISTORY}
        if first.get("expires_at") is not None:
            first["begun"] = True
        if first == fields:
            return body
        return check_body(as_body(first, "text" if is_plain(body) else "base64"))
    except (InvalidEnvelope, MessageTooLarge, RecursionError):  # another's JSON may have been the shorter one
        return body


def has_ttl(body: str) -> bool:
    """Say whether a body, whatever it is, says how long its job is worth starting."""
    try:
        fields = as_fields(body)
    except InvalidEnvelope:
        return False
    return fields.get("ttl") is not None or fields.get("expires_at") is not None


def check_version(fields: Mapping[str, Any]) -> None:
    """Raise InvalidEnvelope for a version that this worker does not read."""
    version = fields.get("v", VERSION)
    if version != VERSION or isinstance(version, bool):
        raise InvalidEnvelope(f"its version is {in_short(version)}, this worker reads version {VERSION}")


def _typed(fields: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = fields.get(key, default)
    if not isinstance(value, kind):
        raise InvalidEnvelope(f"{key!r} must be {'an array' if kind is list else 'an object'}")
    return value


def _hearsay(fields: Mapping[str, Any]) -> Reason | None:
    """Return why a message says that its job was given up elsewhere: whoever put it could say so."""
    reason = reason_of(fields)
    return (
        None
        if reason is None
        else Reason("GivenUp", f"so its message says; because of {reason.type}: {reason.message}")
    )


@lru_cache(maxsize=16)  # jobs that are enqueued together have it in common
def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
