"""Tells the program's own error hooks of failed attempts."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from qworker.engine.attempt import Attempt
from qworker.failing import ErrorHook, FailedAttempt, JobFailed
from qworker.job import Reason
from qworker.outcome import Action, Failed, Failure, Outcome, Poison, Reappear

_log = logging.getLogger("qworker")


class ErrorHooks:
    """Calls each hook for each failed attempt; what one raises is logged, and harms nothing."""

    def __init__(self, hooks: Iterable[ErrorHook]) -> None:
        self._hooks = tuple(hooks)

    def tell(self, attempt: Attempt, outcome: Outcome, action: Action) -> None:
        """Tell of an attempt, if it failed, and let go of what its handler raised."""
        error, attempt.error = attempt.error, None  # its frames hold what the handler held
        if self._hooks and (failed := failed_attempt(attempt, outcome, action, error)) is not None:
            for hook in self._hooks:
                _call(hook, failed)


def failed_attempt(
    attempt: Attempt, outcome: Outcome, action: Action, error: BaseException | None
) -> FailedAttempt | None:
    """Return what hooks are to be told, if anything: what a handler asks for is no error before it is given up."""
    match action, outcome:
        case Poison(failure), _:
            retry_in = None
        case Reappear(after), Failed(failure) if error is not None:  # an unknown task may be known in a moment
            retry_in = after
        case _:
            return None
    return FailedAttempt(
        error=error or JobFailed(failure),
        job=replace(attempt.job, attempts=attempt.number, given_up=_reason(failure) if retry_in is None else None),
        queue=attempt.queue,
        attempt=attempt.number,
        max_attempts=attempt.max_attempts,
        retry_in=retry_in,
        failure=failure,
        arguments=_arguments_of(attempt),
    )


def _reason(failure: Failure) -> Reason:
    return Reason(failure.type, failure.message)


def _arguments_of(attempt: Attempt) -> Mapping[str, Any]:
    job = attempt.job
    return dict(job.kwargs) if attempt.task is None else attempt.task.signature.named(job.args, job.kwargs)


def _call(hook: ErrorHook, failed: FailedAttempt) -> None:
    try:
        hook(failed)
    except BaseException:  # noqa: BLE001 — whatever a hook raises, sys.exit() too, is no business of the job
        _log.exception("an error hook failed on a job of %s", failed.job.task)
