"""What the messages of a poison queue say, and which of them are meant."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from qworker.brokers.base import Message, PeekedMessage, check_body, check_text
from qworker.errors import InvalidEnvelope, MessageTooLarge
from qworker.poison.record import NoSoundRecord, PoisonRecord, decode_poison
from qworker.wire.envelope import decode, without_history


class Unreplayable(Exception):
    """A message of a poison queue holds nothing that could be put back; the text says why."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """One message of a poison queue."""

    message_id: str
    """Its own id; the record has the one that it had in its queue."""
    body: str = field(repr=False)
    """The original body, to be put back."""
    record: PoisonRecord | None
    """None if there was no room for more than the body, or it is not sound."""
    job_id: str | None
    """None if neither the record nor the body says."""
    task: str | None
    at: datetime
    """When it was given up, by the broker's clock: when this message was put."""
    seen_at: datetime
    """When it was looked at, by the broker's clock."""
    problem: str = ""
    """Why its record is not sound."""

    @classmethod
    def of(cls, message: Message | PeekedMessage) -> "GivenUp":
        """Read a message of a poison queue, whatever it is."""
        seen_at = message.seen_at if isinstance(message, PeekedMessage) else message.received_at
        try:
            record = decode_poison(message.body)
        except NoSoundRecord as problem:
            return cls(message.id, message.body, None, None, None, message.inserted_at, seen_at, str(problem))
        except InvalidEnvelope:
            job_id, task = _named_in(message)
            return cls(message.id, message.body, None, job_id, task, message.inserted_at, seen_at)
        return cls(message.id, record.body, record, record.job_id, record.task, message.inserted_at, seen_at)

    @property
    def age(self) -> timedelta:
        """How long ago it was given up."""
        return self.seen_at - self.at

    def as_new(self) -> str:
        """Return the body to be put back, with all its attempts. Raises Unreplayable."""
        if self.problem:
            raise Unreplayable(self.problem)
        try:
            return check_text(check_body(without_history(self.body)))
        except (ValueError, MessageTooLarge) as error:
            problem = str(error)
        raise Unreplayable(problem)

    @property
    def ids(self) -> set[str]:
        """What it may be called by: the ids of its job and of its message, now and before."""
        before = None if self.record is None else self.record.message_id
        return {name for name in (self.job_id, self.message_id, before) if name is not None}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages of a poison queue are meant: those that fit all that is said here; without any, all of them."""

    task: str | None = None
    """The task's name; ``*`` and ``?`` stand for any text and any character."""
    error: str | None = None
    """The error's type, or the last part of it, likewise: "smtplib.SMTPException", "SMTPException", "SMTP*"."""
    ids: Collection[str] = ()
    """Ids of jobs or messages; those of any of them are meant."""
    older: timedelta | None = None
    """Given up longer ago than this, by the broker's clock: no worker's nor this machine's is asked."""
    newer: timedelta | None = None
    """Given up at most so long ago, likewise."""

    @property
    def takes_all(self) -> bool:
        """Whether nothing is said."""
        return self == EVERYTHING

    def takes(self, given_up: GivenUp) -> bool:
        """Say whether a message is meant."""
        return (
            (self.task is None or (given_up.task is not None and fnmatchcase(given_up.task, self.task)))
            and (self.error is None or self._is_of_type(given_up, self.error))
            and (not self.ids or not given_up.ids.isdisjoint(self.ids))
            and (self.older is None or given_up.age > self.older)
            and (self.newer is None or given_up.age <= self.newer)
        )

    @staticmethod
    def _is_of_type(given_up: GivenUp, pattern: str) -> bool:
        if given_up.record is None:
            return False
        kind = given_up.record.failure.type
        return fnmatchcase(kind, pattern) or fnmatchcase(kind.rpartition(".")[2], pattern)


EVERYTHING = Selection()


def _named_in(message: Message | PeekedMessage) -> tuple[str | None, str | None]:
    """Return the job's id and its task's name as a body alone says them."""
    try:
        job = decode(message.body, message_id=message.id)
    except InvalidEnvelope:
        return None, None
    return None if job.id == message.id else job.id, job.task
