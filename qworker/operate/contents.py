"""Shows the contents of a message to a person or a script: without arguments, unless they are asked for."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from qworker.brokers.base import PeekedMessage
from qworker.errors import InvalidEnvelope
from qworker.job import Job
from qworker.operate.words import NONE, age, counted, iso, span
from qworker.outcome import Failure
from qworker.poison.record import PoisonRecord
from qworker.poison.selection import GivenUp
from qworker.wire.bundle import Contents, contents_of, may_be_bundle
from qworker.wire.envelope import decode


@dataclass(frozen=True, slots=True)
class Shown:
    """One visible message."""

    message: PeekedMessage
    kind: str
    """Which of these it is: job, bundle, poison (a job that was given up), other (no envelope)."""
    job_id: str | None
    task: str | None
    tried: int
    """Attempts until now; deliveries for a bundle, and for a body that is no envelope."""
    enqueued_at: datetime
    """As the producer says, else when the broker received it; for a job that was given up, when it was."""
    state: str
    """Further facts about it, in a few words."""
    private: Mapping[str, Any] = field(repr=False)
    """Data that is shown only on request: arguments, checkpoint, headers."""
    start_by: datetime | None = None
    """Until when it is worth starting for the first time, by the broker's clock; None if there is no such moment."""
    jobs: int = 1
    failure: Failure | None = None

    @classmethod
    def of(cls, message: PeekedMessage, *, poison: bool) -> "Shown":
        """Read a message, whatever it is; records stand only in *poison* queues, where workers put them."""
        given_up = GivenUp.of(message) if poison else None
        if given_up is not None and given_up.record is not None:
            return cls._of_poison(message, given_up.record)
        if given_up is not None and given_up.problem:
            return cls._of_other(message, given_up.problem)
        try:
            bundle = contents_of(message.body, message_id=message.id) if may_be_bundle(message.body) else None
            if bundle is not None:
                return cls._of_bundle(message, bundle)
            return cls._of_job(message, decode(message.body, message_id=message.id))
        except InvalidEnvelope as problem:
            return cls._of_other(message, f"no job: {problem}")

    @classmethod
    def _of_other(cls, message: PeekedMessage, state: str) -> "Shown":
        body, tried = {"body": message.body}, message.dequeue_count
        return cls(message, "other", None, None, tried, message.inserted_at, state, body, jobs=0)

    @classmethod
    def _of_poison(cls, message: PeekedMessage, record: PoisonRecord) -> "Shown":
        body, failure = {"body": record.body}, record.failure
        return cls(
            message,
            "poison",
            record.job_id,
            record.task,
            record.attempts,
            message.inserted_at,
            str(failure),
            body,
            failure=failure,
        )

    @classmethod
    def _of_bundle(cls, message: PeekedMessage, bundle: Contents) -> "Shown":
        count, tried = len(bundle.members), message.dequeue_count - bundle.releases
        private = {"jobs": [member.said for member in bundle.members]}
        state = f"bundle of {counted(count, 'job')}"
        return cls(
            message, "bundle", bundle.id, _common_task(bundle), tried, message.inserted_at, state, private, jobs=count
        )

    @classmethod
    def _of_job(cls, message: PeekedMessage, job: Job) -> "Shown":
        tried = max(0, message.dequeue_count - job.releases + job.attempts)
        end = None if tried or job.begun else job.start_by(message.inserted_at)
        left = None if end is None else end - message.seen_at
        private = {"args": job.args, "kwargs": job.kwargs, "state": job.state, "headers": dict(job.headers)}
        return cls(
            message,
            "job",
            job.id,
            job.task,
            tried,
            job.enqueued_at or message.inserted_at,
            _state_of(job, left),
            private,
            end,
        )

    def row(self) -> tuple[str, ...]:
        """Return its cells of a table."""
        name = self.job_id or f"message {self.message.id}"
        return name, self.task or NONE, str(self.tried), self._age(), self.state or NONE

    def block(self, *, private: bool) -> dict[str, str]:
        """Return all that is to be said, one line or more each."""
        when = "given up" if self.kind == "poison" else "enqueued"
        told = {
            "job": self.job_id or NONE,
            "message": self.message.id,
            "task": self.task or NONE,
            "tried": str(self.tried),
            when: f"{self._age()} ago, {iso(self.enqueued_at)}",
            "state": self.state or NONE,
        }
        if private:
            told |= {_TITLES.get(name, name): _as_text(value) for name, value in self.private.items() if value}
        return told

    def _age(self) -> str:
        return age(self.enqueued_at, self.message.seen_at)

    def json(self, *, private: bool) -> dict[str, Any]:
        """Return the same for a script."""
        failure = self.failure
        told = {
            "kind": self.kind,
            "job": self.job_id,
            "message": self.message.id,
            "task": self.task,
            "tried": self.tried,
            "dequeue_count": self.message.dequeue_count,
            "jobs": self.jobs,
            "at": iso(self.enqueued_at),
            "inserted_at": iso(self.message.inserted_at),
            "expires_at": iso(self.message.expires_at),
            "start_by": iso(self.start_by),
            "state": self.state,
            "error": None if failure is None else {"type": failure.type, "message": failure.message},
        }
        return told | {"contents": dict(self.private)} if private else told


_TITLES: Final = {"state": "checkpoint"}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _state_of(job: Job, left: timedelta | None) -> str:
    seconds = math.inf if left is None else left.total_seconds()
    notes = {
        f"to be given up: {job.given_up.type}" if job.given_up else "": job.given_up is not None,
        "expired": seconds < 0,
        f"worth starting for {span(seconds)}" if left else "": 0 <= seconds < math.inf,
        "last attempt": job.last,
        "has a checkpoint": job.state is not None,
    }
    return ", ".join(note for note, holds in notes.items() if holds)


def _common_task(bundle: Contents) -> str | None:
    tasks = {member.job.task for member in bundle.members if isinstance(member.job, Job)}
    return tasks.pop() if len(tasks) == 1 else None
