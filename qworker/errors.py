"""Every error that qworker raises.

QworkerError
├── ConfigurationError        a setting, a name or a command that can't be right
│   ├── InvalidQueueName
│   ├── InvalidBrokerURL
│   └── UnknownTask
├── InvalidArguments          a task's arguments don't fit its signature
├── ValidatorFailed           a type's own validator failed: whether arguments fit is unknown
├── InvalidEnvelope           a message's body is not a job
├── MessageTooLarge           over 64 KiB as sent
├── EnqueueUncertain          the answer to a put was lost: the job may be queued
├── PartlyEnqueued            only some of many jobs were accepted
├── PartlyReplayed            only some poisoned jobs were put back
├── PartlyPurged              only some poisoned messages were deleted
└── BrokerError               a broker answered with an error, or not at all
    ├── QueueNotFound
    ├── QueueBeingDeleted
    ├── LeaseLost             the receipt is stale, or the message is gone
    ├── AccessDenied
    ├── BrokerBusy            refused for now: nothing was done
    ├── BrokerUnavailable     never reached: nothing was done
    ├── BrokerFull            no room on its disk: nothing was done
    ├── AnswerLost            sent, but not answered: it may have been done
    ├── BrokerRefused         refused for another reason
    └── BrokerUnusable        the broker's file can't be used as it is
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_SHOWN: Final = 60
"""Characters of a wrong value that an error shows."""


class QworkerError(Exception):
    """The base of all errors of qworker; each can be pickled, to leave a process pool."""

    def __reduce__(self) -> tuple[object, ...]:
        return _remade, (type(self), self.args), self.__dict__


def _remade(kind: type[QworkerError], args: tuple[object, ...]) -> QworkerError:
    return kind.__new__(kind, *args)  # without __init__, which takes the data and makes the text of it


class ConfigurationError(QworkerError):
    """A user's mistake; its text is the one line to show."""


class InvalidQueueName(ConfigurationError):
    """A queue name that Azure Storage Queue would refuse."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"queue name {name!r} {why}")
        self.name = name


class InvalidBrokerURL(ConfigurationError):
    """A broker URL or connection string that means nothing to qworker."""


class UnknownTask(ConfigurationError):
    """No task of this name is registered."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known)) or "none"
        super().__init__(f"unknown task {name!r}; registered: {names}")
        self.name = name


class InvalidArguments(QworkerError):
    """Arguments that don't fit a task's signature; nothing was sent, or nothing was run."""

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(f"{task}: {problem}")
        self.task, self.problem = task, problem


class ValidatorFailed(QworkerError):
    """A validator of the program's own failed on a job's arguments or state; whether they fit is unknown.

    The attempt fails, and a later one may succeed. A validator that refuses a value raises ValueError.
    """

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(f"{task}: {problem}")
        self.task, self.problem = task, problem


class InvalidEnvelope(QworkerError):
    """A message whose body is not a job that this version understands."""


class MessageTooLarge(QworkerError):
    """The encoded job is over the service's 64 KiB; nothing was sent."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the job is {size} bytes as sent, the limit is {limit}: pass a reference instead of the data")
        self.size, self.limit = size, limit


class EnqueueUncertain(QworkerError):
    """The broker's answer was lost: the job is queued once, more than once, or not at all.

    Enqueueing it again is safe if its task tolerates running twice.
    """

    def __init__(self, job_id: str, task: str) -> None:
        super().__init__(f"{task}: job {job_id} may or may not be queued: the broker's answer was lost")
        self.job_id, self.task = job_id, task


class PartlyEnqueued(QworkerError):
    """The broker took only some of many jobs; the job ids say which."""

    def __init__(self, accepted: list[str], uncertain: list[str], refused: list[str], reason: Exception) -> None:
        total = len(accepted) + len(uncertain) + len(refused)
        super().__init__(
            f"{len(accepted)} of {total} jobs are queued, {len(uncertain)} may be, {len(refused)} are not: {reason}",
        )
        self.accepted, self.uncertain, self.refused = accepted, uncertain, refused


class PartlyReplayed(QworkerError):
    """A replay of a poison queue ended early; the other jobs are still there."""

    def __init__(self, count: int, queue: str, reason: Exception) -> None:
        super().__init__(
            f"only {count} jobs were put back into {queue!r}, the others are still in its poison queue: {reason}"
        )
        self.count, self.queue = count, queue


class PartlyPurged(QworkerError):
    """A purge of a poison queue ended early; the other jobs are still there."""

    def __init__(self, count: int, queue: str, reason: Exception) -> None:
        super().__init__(
            f"only {count} jobs of the poison queue of {queue!r} were deleted, the others are still there: {reason}"
        )
        self.count, self.queue = count, queue


class BrokerError(QworkerError):
    """A broker answered with an error, or did not answer."""


class QueueNotFound(BrokerError):
    """The queue doesn't exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"queue {name!r} does not exist")
        self.name = name


class QueueBeingDeleted(BrokerError):
    """The queue was deleted moments ago; its name can't be used for 40 s or more."""

    def __init__(self, name: str) -> None:
        super().__init__(f"queue {name!r} is being deleted; its name is free again in about a minute")
        self.name = name


class LeaseLost(BrokerError):
    """The receipt is stale, or the message is gone: it belongs to someone else, or to no one."""

    def __init__(self, message_id: str) -> None:
        super().__init__(f"the lease of message {message_id} is lost: it was received again, deleted, or it expired")
        self.message_id = message_id


class AccessDenied(BrokerError):
    """The credential was refused, or has no right to this operation."""


class BrokerBusy(BrokerError):
    """The service refused because it is overloaded; nothing was done, try again later."""

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        """Seconds the service asked to wait, if it said so."""


class BrokerUnavailable(BrokerError):
    """The broker was never reached; nothing was done."""


class BrokerFull(BrokerError):
    """The broker's disk has no room; nothing was done."""


class AnswerLost(BrokerError):
    """The request was sent but not answered in time: it may have been applied."""


class BrokerRefused(BrokerError):
    """The broker refused a request for a reason that has no class of its own."""


class BrokerUnusable(BrokerError):
    """The broker's storage can't be used as it is: corrupt, of another program, or on a network file system."""


def text_of(error: Exception) -> str:
    """Return an error in one line's words: ours speak for themselves, another's needs its class."""
    return str(error) if isinstance(error, QworkerError) else f"{type(error).__name__}: {error}"


def shown(value: object) -> str:
    """Return a wrong option's value as an error may show it: short, and on one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 — a repr is anybody's code, and a number may have too many digits for one
        return f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
