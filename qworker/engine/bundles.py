"""A leased message that carries many jobs: which of them are settled, and what of it is left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qworker.brokers.base import check_body
from qworker.engine.lease.lease import Lease
from qworker.errors import InvalidEnvelope, MessageTooLarge
from qworker.job import Job
from qworker.wire.bodies import Encoding, as_body
from qworker.wire.bundle import TASK, Contents, Member
from qworker.wire.notes import KEY as NOTED
from qworker.wire.notes import NOTHING, Notes, fields_of


@dataclass(slots=True, eq=False)
class Part:
    """One job of a bundle: it is run and settled by itself, but for the message, which is the bundle's."""

    bundle: "Bundle"
    member: Member = field(repr=False)
    said: Any = field(init=False, repr=False)
    """Its envelope, with its last checkpoint, or whatever stands there instead."""

    def __post_init__(self) -> None:
        self.said = self.member.said

    def job(self) -> Job:
        """Return the job, as it came. Raises InvalidEnvelope."""
        if isinstance(self.member.job, InvalidEnvelope):
            raise self.member.job
        return self.member.job

    def note(self, notes: Mapping[str, Any]) -> None:
        """Have its envelope say more, wherever the message is written anew."""
        if notes:
            self.said = {**self.said, **notes}

    def body(self, encoding: Encoding = "text", **notes: Any) -> str:
        """Return the body of a message that carries only this job. Raises MessageTooLarge, or ValueError."""
        said = self.said | notes if isinstance(self.said, dict) else self.said
        return check_body(as_body(said, encoding))


class Bundle:
    """The parts of one message, and the lease that they share.

    A part is *settled* when nothing is left of it in the message: it is done, or has a message of its own. A renewal
    writes the message without those that are settled. A part has *ended* when nothing more is done about it here; once
    all have, the message is deleted, or given back with what is left.
    """

    def __init__(self, lease: Lease, contents: Contents, *, dequeue_count: int, encoding: Encoding) -> None:
        self.lease = lease
        self.id = contents.id
        self.releases = contents.releases
        self.dequeue_count = dequeue_count
        self.failed = False
        """Whether the broker would not have what became of a part: it has to be run again."""
        self._fields = contents.fields
        self._encoding = encoding
        self.parts = [Part(self, member) for member in contents.members]
        self._left = dict.fromkeys(self.parts)
        self._under_way = set(self.parts)
        self._held = set(self.parts)
        lease.rewrite = self._rewritten

    @property
    def job(self) -> Job:
        """Return what stands for the whole message where its fate is told."""
        return Job(self.id, TASK)

    @property
    def number(self) -> int:
        """1 if its jobs have not been run before, as far as can be known."""
        return max(self.dequeue_count - self.releases, 1)

    @property
    def left(self) -> tuple[Part, ...]:
        """The parts that are not settled."""
        return tuple(self._left)

    def settle(self, part: Part) -> None:
        """Note that nothing of a part need be left in the message."""
        self._left.pop(part, None)

    def end(self, part: Part) -> bool:
        """Note that a part has ended; return whether it is the last."""
        self._under_way.discard(part)
        return not self._under_way

    def let_go(self, part: Part) -> bool:
        """Note that no work is under way for a part; return whether there is none for any."""
        self._held.discard(part)
        return not self._held

    def body(self, *, releases: int | None = None) -> str:
        """Return the message's body without the jobs that are settled. Raises MessageTooLarge."""
        notes = Notes(releases=self.releases if releases is None else releases)
        noted = {} if notes == NOTHING else {NOTED: fields_of(self.lease.message_id, notes)}
        return check_body(as_body({**noted, **self._fields, "jobs": [part.said for part in self.left]}, self._encoding))

    def body_as_released(self) -> str | None:
        """Return the body that says that this delivery does not count; None if there is no room to say so."""
        try:
            return self.body(releases=self.releases + 1)
        except MessageTooLarge:
            return None

    def _rewritten(self) -> str | None:
        """Return what a renewal has to write: nothing as long as no job is settled. Called on the keeper's thread."""
        if len(self._left) == len(self.parts):
            return None
        try:
            return self.body()
        except MessageTooLarge:  # another's JSON may have been the shorter one
            return None
