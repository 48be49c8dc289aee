"""What may become of a run (Outcome), and what is then done to its message (Action)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from qworker._tracebacks import place_of, traceback_of
from qworker.errors import ConfigurationError
from qworker.retry import Delay, rest_of


class Retry(Exception):
    """Raised by a handler: this attempt failed, try again.

    It rests for *after* (a timedelta, or seconds; up to 7 days), or for the task's own backoff. The attempt counts.
    """

    def __init__(self, reason: str = "", *, after: Delay | None = None) -> None:
        super().__init__(_checked("Retry", reason))
        self.after = None if after is None else rest_of(after, "Retry's after")


class Snooze(Exception):
    """Raised by a handler: not ready yet, come back *after* a timedelta, or seconds. The attempt doesn't count."""

    def __init__(self, reason: str = "", *, after: Delay) -> None:
        super().__init__(_checked("Snooze", reason))
        self.after = rest_of(after, "Snooze's after")


class Reject(Exception):
    """Raised by a handler: this job is never worth trying again; it goes to the poison queue at once."""

    def __init__(self, reason: str) -> None:
        super().__init__(_checked("Reject", reason))
        self.reason = reason


def _checked(name: str, reason: object) -> str:
    """Return the reason to raise *name*. Raises ConfigurationError for what is no text: a time, most likely."""
    if isinstance(reason, str):
        return reason
    hint = "" if name == "Reject" else f"; a time is given as {name}(after=…)"
    raise ConfigurationError(f"{name} takes its reason as a text, not as {type(reason).__name__}{hint}")


def sole(error: BaseException) -> BaseException:
    """Return what a group of one exception stands for, however deep it is in groups; any other exception as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed, as text, so that it can be logged, stored and sent between processes."""

    type: str
    """The exception's class, with its module unless that is Python's builtins or qworker's own."""
    message: str
    traceback: str = field(default="", repr=False)
    where: str = ""
    """The program's own line that raised it, or that waited as time ran out: file:line in function."""

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Describe an exception; a group of one is what it stands for, one of several names the first and how many."""
        error = sole(error)
        if not isinstance(error, BaseExceptionGroup):
            return cls(_name_of(error), _text_of(error), traceback_of(error), place_of(error))
        first, *others = _leaves(error)
        text = f"{len(others) + 1} exceptions, the first: {cls(_name_of(first), _text_of(first))!s}"
        return cls(_name_of(error), text, traceback_of(error), place_of(first) or place_of(error))

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def _name_of(error: BaseException) -> str:
    kind = type(error)
    module = str(kind.__module__)
    known = module == "builtins" or module.startswith("qworker.")
    return kind.__qualname__ if known else f"{module}.{kind.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 — an exception's own __str__ may be the bug
        return f"<its text can't be had: {type(broken).__name__}>"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, ran out of time, or could not be found."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """The handler raised Retry."""

    failure: Failure
    after: int | None
    """Seconds, or None for the policy's backoff."""


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The handler raised Snooze."""

    after: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Trying again can't help: the handler or its task said so, or the message is no valid job."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Expired:
    """The job's time to live ended before it started."""


@dataclass(frozen=True, slots=True)
class Released:
    """The worker gave it back unfinished, by no fault of the job."""

    reason: str
    after: int = 0
    """Seconds until it is visible again, where another try at once would come to the same."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """This worker's app has no task of that name; another's may."""

    failure: Failure
    deliveries: int
    """How many workers didn't know it so far, this one too."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease ended during the run: the message belongs to someone else."""


Outcome = Succeeded | Failed | RetryAsked | Snoozed | Rejected | Expired | Released | Unknown | Lost


@dataclass(frozen=True, slots=True)
class Delete:
    """The job is done with."""


@dataclass(frozen=True, slots=True)
class Reappear:
    """The same message becomes visible again after some seconds."""

    after: int
    counted: bool
    """Whether the attempt is spent."""
    one_left: bool = False
    """Whether the next attempt is the last."""
    unknown: bool = False
    """Whether it is to be noted that this worker didn't know the task."""


@dataclass(frozen=True, slots=True)
class Poison:
    """The job is given up: it moves to the poison queue, with the reason."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Abandon:
    """The message is not touched."""


Action = Delete | Reappear | Poison | Abandon
