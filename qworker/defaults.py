"""Options that all tasks of an App begin with."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from qworker._queue_names import DEFAULT_QUEUE, check_task_queue
from qworker.produce.producer import bundle_of
from qworker.registration.options import Executor, executor_of, policy_of, timeout_of
from qworker.retry import Backoff, Delay, ErrorTypes, error_types

_WHERE: Final = "TaskDefaults"
_OPPOSITES: Final = (("retry_on", "give_up_on"), ("give_up_on", "retry_on"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefaults:
    """What a task of an App has for options that its ``@task`` doesn't name; see App.task for each of them.

    Raises ConfigurationError for what no task could have.
    """

    queue: str = DEFAULT_QUEUE
    max_attempts: int = 5
    backoff: Backoff | None = None
    timeout: Delay | None = None
    executor: Executor | None = None
    """For plain functions; an ``async def`` runs on the event loop."""
    bundle: int = 1
    retry_on: ErrorTypes | None = None
    give_up_on: ErrorTypes | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be an option."""
        check_task_queue(self.queue)
        policy_of(_WHERE, self.max_attempts, self.backoff, self.retry_on, self.give_up_on)
        timeout_of(_WHERE, self.timeout)
        executor_of(_WHERE, self.executor)
        bundle_of(_WHERE, self.bundle)

    def completed(self, given: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
        """Return the options of a task, of which *given* are its own."""
        options = {field.name: getattr(self, field.name) for field in fields(self)} | dict(given)
        if "executor" not in given and inspect.iscoroutinefunction(function):
            options["executor"] = None
        for own, other in _OPPOSITES:
            if given.get(own) is not None and other not in given and options[other] is not None:
                # Each class that the task names itself is the task's to decide about.
                left = error_types(options[other], other) - error_types(given[own], own)
                options[other] = left or None
        return options
