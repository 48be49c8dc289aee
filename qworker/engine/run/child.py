"""What runs in a child process of the "process" executor, which can be killed."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import Any

from qworker.context import Context, SaveState, set_current
from qworker.engine.run.outcomes import check_returned, outcome_of
from qworker.errors import ConfigurationError, QworkerError
from qworker.job import Job
from qworker.outcome import Outcome, Succeeded
from qworker.retry import RetryPolicy
from qworker.system.platform import refuse_on_windows
from qworker.task import Task


@dataclass(frozen=True, slots=True)
class ChildCall:
    """All that a child needs to run one attempt."""

    module: str
    qualname: str
    made_in: str
    """The module that made its function a task."""
    job: Job
    queue: str
    attempt: int
    deadline: datetime | None
    trace: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The attempt's trace context as headers; empty if it has none."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a handler in a child asks its worker to save, as a JSON value."""

    state: Any = field(repr=False)


def run_in_child(call: ChildCall, save_state: SaveState) -> Outcome:
    """Run the handler and say what became of it; never raises, so that no exception need be sent."""
    if not call.trace:
        return _run(call, save_state)
    from qworker.tracing import followed  # noqa: PLC0415 — an extra

    with followed(call.trace):
        return _run(call, save_state)


def _run(call: ChildCall, save_state: SaveState) -> Outcome:
    policy = RetryPolicy()
    try:
        task = _find_task(call)
        policy = task.options.policy
        task.surroundings.begin_child()

        async def save_as_json(state: Any) -> None:
            await save_state(task.states.encode(state))

        ctx = Context(
            call.job,
            queue=call.queue,
            attempt=call.attempt,
            deadline=call.deadline,
            state=task.states.decode(call.job.state),
            save_state=save_as_json,
        )
        set_current(ctx)
        args, kwargs = task.signature.decode(call.job.args, call.job.kwargs)
        injected = dict.fromkeys(task.signature.context_parameters, ctx)
        returned = task.surroundings.around(partial(task.function, *args, **kwargs, **injected))()
        _refuse_coroutine(check_returned(returned))
    except BaseException as error:  # noqa: BLE001 — whatever a handler raises is one failed attempt
        return outcome_of(error, policy)
    return Succeeded()


def _refuse_coroutine(returned: Any) -> None:
    if inspect.iscoroutine(returned):
        returned.close()
        raise TypeError("the handler is 'async def': with executor='process' it must be a plain function")


def check_can_be_found(task: Task[..., Any]) -> None:
    """Raise ConfigurationError for a task of child processes that none of them would find."""
    if task.options.executor == "process" and not _is_found(task):
        raise ConfigurationError(
            f"task {task.name}: no child process can find it, as executor='process' needs: "
            f"make it a variable of its module, {task.made_in or task.function.__module__}"
        )


def check_can_have_child(task: Task[..., Any]) -> None:
    """Raise ConfigurationError for a task of child processes where none can be started."""
    if task.options.executor == "process":
        refuse_on_windows(f"task {task.name}: executor='process'", "let it be 'thread' there")


def _is_found(task: Task[..., Any]) -> bool:
    function = task.function
    try:
        found = _find(task.name, function.__module__, getattr(function, "__qualname__", ""), task.made_in)
    except ImportError:
        return False
    return found is not None


def _find_task(call: ChildCall) -> Task[..., Any]:
    found = _find(call.job.task, call.module, call.qualname, call.made_in)
    if found is None:
        raise QworkerError(f"{call.module}.{call.qualname} is not a task: with executor='process' it must stay one")
    return found


def _find(name: str, module: str, qualname: str, made_in: str) -> Task[..., Any] | None:
    """Return the task of a name: it is where its function was defined, or else a variable of a module."""
    for place in dict.fromkeys(filter(None, (module, made_in))):
        if (found_module := _module(place)) is None:
            continue
        for found in (_at(qualname, found_module), *vars(found_module).values()):
            if isinstance(found, Task) and found.name == name:
                return found
    return None


def _module(name: str) -> ModuleType | None:
    """Return a module, None if there is none of this name: an object may say that it is of any."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        return None


def _at(qualname: str, found: Any) -> Any:
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
