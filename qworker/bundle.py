"""Many jobs in one message: its body is an envelope of envelopes.

::

    {"v":1,"id":"0199…","task":"qworker.bundle","jobs":[{"id":"0199…","task":"mail.send","args":["a@b.c"]}, …]}

Each member of ``jobs`` is what could stand in a message of its own. Workers write ``releases`` beside them, and leave
out the jobs that are settled. To a worker that knows no bundles it is one job of a task that it doesn't know: the
message reappears, with a backoff, until a worker that does has it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qworker.brokers.base import MAX_BODY_BYTES
from qworker.envelope import (
    MAX_DEPTH,
    VERSION,
    Encoding,
    as_fields,
    check_version,
    count_of,
    from_base64,
    is_deep,
    is_plain,
    on_the_wire,
    text_of,
)
from qworker.errors import InvalidEnvelope
from qworker.job import new_job_id

TASK: Final = "qworker.bundle"
"""The name that no task may have."""

_OUTER_LEVELS: Final = 2
_SPARE: Final = 64
"""Bytes that are left free for what workers note."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle's body says."""

    fields: Mapping[str, Any] = field(repr=False)
    """All but the jobs, to be written back."""
    id: str
    releases: int
    """How many of its deliveries were given back by no fault of its jobs."""
    members: list[Any] = field(repr=False)
    """The jobs' envelopes, each with an id, and whatever else stands among them."""


def pack(texts: Sequence[str], most: int, encoding: Encoding) -> Iterator[range]:
    """Divide envelopes, given as JSON texts, among messages of at most so many; yield which go into each.

    One that does not fit beside others has a message of its own.
    """
    room = MAX_BODY_BYTES * 3 // 4 if encoding == "base64" else MAX_BODY_BYTES
    room -= len(bundled([], "text")) + _SPARE
    first, left = 0, room
    for number, text in enumerate(texts):
        size = (len(text) if text.isascii() else len(text.encode())) + 1
        if _is_too_deep(text):
            size = room + 1
        if number > first and (size > left or number - first == most):
            yield range(first, number)
            first, left = number, room
        left -= size
    if texts:
        yield range(first, len(texts))


def bundled(texts: Sequence[str], encoding: Encoding) -> str:
    """Return the body of a message that carries these envelopes, given as JSON texts."""
    jobs = ",".join(texts)
    return on_the_wire(f'{{"v":{VERSION},"id":"{new_job_id()}","task":"{TASK}","jobs":[{jobs}]}}', encoding)


def may_be_bundle(body: str) -> bool:
    """Say whether a body may be a bundle's; most others are told without being read."""
    if is_plain(body):
        return TASK in body
    try:
        return TASK in from_base64(body)
    except InvalidEnvelope:
        return False


def contents_of(body: str, *, message_id: str) -> Contents | None:
    """Return what a bundle carries; None for a message that is no bundle. Raises InvalidEnvelope."""
    fields = as_fields(body)
    if fields.get("task") != TASK:
        return None
    check_version(fields)
    members = fields.pop("jobs", None)
    if not isinstance(members, list):
        raise InvalidEnvelope("'jobs' must be an array")
    named = [
        {"id": f"{message_id}-{number}"} | member if isinstance(member, dict) else member
        for number, member in enumerate(members)
    ]
    return Contents(fields, text_of(fields, "id", message_id), count_of(fields, "releases"), named)


def _is_too_deep(text: str) -> bool:
    levels = MAX_DEPTH - _OUTER_LEVELS
    return text.count("[") + text.count("{") > levels and is_deep(json.loads(text), levels)
