"""Many jobs in one message: its body is an envelope of envelopes.

::

    {"v":1,"id":"0199…","task":"qworker.wire.bundle","jobs":[{"id":"0199…","task":"mail.send","args":["a@b.c"]}, …]}

Each member of ``jobs`` is what could stand in a message of its own. Workers write their notes in front of it, and leave
out the jobs that are settled. To a worker that knows no bundles it is one job of a task that it doesn't know: the
message reappears, with a backoff, until a worker that does has it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from qworker.brokers.base import MAX_BODY_BYTES
from qworker.errors import InvalidEnvelope
from qworker.job import Job, new_job_id
from qworker.wire.bodies import MAX_DEPTH, Encoding, as_fields, is_deep, is_plain, on_the_wire, text_in
from qworker.wire.bounds import MAX_JOBS, name_of
from qworker.wire.envelope import VERSION, check_version, job_of
from qworker.wire.notes import KEY as NOTED
from qworker.wire.notes import notes_in

TASK: Final = "qworker.wire.bundle"
"""The name that no task may have."""

_OUTER_LEVELS: Final = 2
_SPARE: Final = 96
"""Bytes that are left free for what workers note."""
_MOST_BAD: Final = 32
"""Of the jobs in one message, how many may be none; each of them is given up by itself."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle's body says."""

    fields: Mapping[str, Any] = field(repr=False)
    """All but the jobs and the notes, to be written back."""
    id: str
    releases: int
    """How many of its deliveries were given back by no fault of its jobs."""
    members: Sequence["Member"] = field(repr=False)


class Member(NamedTuple):
    """What stands for one job in a bundle."""

    said: Any
    """Its envelope, with an id, or whatever stands there instead."""
    job: Job | InvalidEnvelope
    """The job, or why it is none."""


def pack(texts: Sequence[str], most: int, encoding: Encoding) -> Iterator[range]:
    """Divide envelopes, given as JSON texts, among messages of at most so many; yield which go into each.

    One that does not fit beside others has a message of its own.
    """
    room = MAX_BODY_BYTES * 3 // 4 if encoding == "base64" else MAX_BODY_BYTES
    room -= len(bundled([], "text")) + _SPARE
    most = min(most, MAX_JOBS)
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
        return TASK in text_in(body)
    except InvalidEnvelope:
        return False


def contents_of(body: str, *, message_id: str, deliveries: int | None = None) -> Contents | None:
    """Return what a bundle carries; None for a message that is no bundle.

    Raises InvalidEnvelope, also for one of too many jobs, or of too much that is none: it is bad as a whole then.
    """
    fields = as_fields(body)
    if fields.get("task") != TASK:
        return None
    check_version(fields)
    name = name_of(fields, "id", message_id)
    notes = notes_in(fields, message_id, deliveries)
    fields.pop(NOTED, None)
    jobs = fields.pop("jobs", None)
    if not isinstance(jobs, list):
        raise InvalidEnvelope("'jobs' must be an array")
    if len(jobs) > MAX_JOBS:
        raise InvalidEnvelope(f"it has {len(jobs)} jobs, the limit is {MAX_JOBS}")
    members = [_member(number, found, message_id) for number, found in enumerate(jobs)]
    bad = [member.job for member in members if isinstance(member.job, InvalidEnvelope)]
    if bad and (len(bad) == len(members) or len(bad) > _MOST_BAD):
        raise InvalidEnvelope(f"{len(bad)} of its {len(members)} jobs are none, the first because of this: {bad[0]}")
    return Contents(fields, name, notes.releases, members)


def _member(number: int, found: Any, message_id: str) -> Member:
    if not isinstance(found, dict):
        return Member(found, InvalidEnvelope(f"it is a JSON {type(found).__name__} in a bundle, not an object"))
    fields = found if "id" in found else {"id": f"{message_id}-{number}"} | found
    try:
        job = job_of(fields, message_id)
    except InvalidEnvelope as problem:
        return Member(fields, problem.with_traceback(None))
    return Member(fields, job if job.task != TASK else InvalidEnvelope("it is a bundle within a bundle"))


def _is_too_deep(text: str) -> bool:
    levels = MAX_DEPTH - _OUTER_LEVELS
    return text.count("[") + text.count("{") > levels and is_deep(json.loads(text), levels)
