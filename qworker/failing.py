"""What a program's own error hooks are told of a failed attempt: for services that collect errors, Sentry say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qworker.errors import QworkerError
from qworker.job import Job
from qworker.outcome import Failure
from qworker.registration.callables import hook_of


class JobFailed(QworkerError):
    """An attempt failed, as *failure* says; what was raised, if anything was, was raised in another process.

    The traceback of that process, as text, is a note of this error, so that whatever prints it shows it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure
        if failure.traceback:
            self.add_note(failure.traceback.rstrip())


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """An attempt that failed, and what follows from that."""

    error: BaseException
    """What was raised, with its traceback; a JobFailed for what was raised in a child process, or never was."""
    job: Job
    """The job as of now: its ``attempts`` count this one, and ``given_up`` says why if it is."""
    queue: str
    attempt: int
    max_attempts: int
    """How many its task has; 0 if no task has its name."""
    retry_in: int | None
    """Seconds after which it is tried again; None if it is given up."""
    failure: Failure = field(repr=False)
    """The same error as text."""
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the call was passed, as JSON values by the names of its parameters; if they don't fit, only what is named.

    They may hold secrets: qworker itself never logs them.
    """

    @property
    def given_up(self) -> bool:
        """Whether this was the last attempt, so that the job goes to the poison queue."""
        return self.retry_in is None


ErrorHook = Callable[[FailedAttempt], object]
"""A plain function, called on the event loop of the worker: it must be quick."""


def check_hook(hook: ErrorHook) -> ErrorHook:
    """Return *hook* if it can be called without waiting. Raises ConfigurationError."""
    return hook_of(hook, "on_error")  # type: ignore[no-any-return] # it is the same
