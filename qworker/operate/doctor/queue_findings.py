"""Judges the findings of a check-up on a queue."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from qworker.brokers.base import PeekedMessage, Right
from qworker.errors import InvalidEnvelope
from qworker.operate.doctor.findings import Finding
from qworker.operate.words import counted, span
from qworker.wire.bodies import Encoding, as_fields, is_plain
from qworker.wire.bundle import contents_of
from qworker.wire.envelope import decode

RIGHTS: Final[tuple[Right, ...]] = ("put", "get", "update", "delete")
_SOON: Final = timedelta(days=1)
_GRANT: Final = "grant it: docs/rights.md"


def of_missing(queue: str) -> Finding:
    """Say that a queue is not there."""
    todo = f"a worker creates it if it may; 'qworker queues create {queue}' creates it now"
    return Finding("queue", "warning", "does not exist, so it can't be checked", todo, queue)


def of_rights(queue: str, denied: Mapping[Right, str], *, poison: bool) -> list[Finding]:
    """Judge which rights are denied, given with the reasons.

    Those that a worker can't do without have failed: into a poison queue it only puts, in its own it does all else. So
    has a credential that may do nothing at all.
    """
    if not denied:
        return [Finding("rights", "ok", ", ".join(RIGHTS), "", queue)]
    needed = {"put"} if poison else {"get", "update", "delete"}
    findings = []
    for right, reason in denied.items():
        if right in needed or len(denied) == len(RIGHTS):
            findings.append(Finding("rights", "failed", f"no right to {right}: {reason}", _GRANT, queue))
        else:
            who = "replay and purge need it, a worker doesn't" if poison else "producers need it, a worker doesn't"
            findings.append(Finding("rights", "warning", f"no right to {right}: {reason}", who, queue))
    return findings


def of_encoding(queue: str, seen: Sequence[PeekedMessage], encoding: Encoding) -> Finding:
    """Judge whether the messages of a queue can be read, and use the encoding of the app."""
    unreadable = [reason for message in seen if (reason := _why_unreadable(message)) is not None]
    plain = sum(is_plain(message.body) for message in seen)
    wanted, other = ("Base64", plain) if encoding == "base64" else ("text", len(seen) - plain)
    looked = f"{counted(len(seen), 'message')} looked at"
    if not seen:
        return Finding("encoding", "ok", f"nothing to look at; the app writes {wanted}", "", queue)
    if unreadable:
        found = f"{len(unreadable)} of {looked} hold no job: {unreadable[0]}"
        return Finding(
            "encoding", "failed", found, "fix the producer: a worker moves these messages to the poison queue", queue
        )
    if other:
        what = "text" if encoding == "base64" else "Base64"
        todo = "workers read both. If another program reads this queue and can't, set encoding, or change the producer"
        return Finding("encoding", "warning", f"{other} of {looked} are {what}, the app writes {wanted}", todo, queue)
    return Finding("encoding", "ok", f"{looked}, all {wanted}, as the app writes them", "", queue)


def of_ttl(queue: str, seen: Sequence[PeekedMessage]) -> Finding:
    """Judge which messages the broker will drop within a day, unless their producer has asked for it."""
    ends = [
        message.expires_at - message.seen_at
        for message in seen
        if message.expires_at is not None and not _asked_for(message)
    ]
    lost = [end for end in ends if end < _SOON]
    looked = f"{counted(len(seen), 'message')} looked at"
    if lost:
        first = span(min(lost).total_seconds())
        found = f"{len(lost)} of {looked} will be dropped unless they run before, the first in {first}"
        todo = "run workers now, and let the producer put with a ttl of -1 (Azure's own default is 7 days)"
        return Finding("ttl", "warning", found, todo, queue)
    never = "" if not ends else f"; {len(ends)} will later"
    return Finding("ttl", "ok", f"{looked}, none will be dropped within a day{never}", "", queue)


def _why_unreadable(message: PeekedMessage) -> str | None:
    """Say why a message holds no job, nor a bundle of them."""
    try:
        if contents_of(message.body, message_id=message.id) is None:
            decode(message.body, message_id=message.id)
    except InvalidEnvelope as problem:
        return str(problem)
    return None


def _asked_for(message: PeekedMessage) -> bool:
    """Say whether the jobs themselves say that they expire."""
    try:
        fields = as_fields(message.body)
    except InvalidEnvelope:
        return False
    jobs: Any = fields.get("jobs", [fields])
    return isinstance(jobs, list) and all(
        isinstance(job, dict) and ("ttl" in job or "expires_at" in job) for job in jobs
    )
