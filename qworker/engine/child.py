"""What runs in a child process of the "process" executor, which can be killed."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, reduce
from typing import Any

from qworker.context import Context, SaveState, set_current
from qworker.engine.outcomes import check_returned, outcome_of
from qworker.errors import QworkerError
from qworker.job import Job
from qworker.outcome import Outcome, Succeeded
from qworker.task import Task


@dataclass(frozen=True, slots=True)
class ChildCall:
    """All that a child needs to run one attempt."""

    module: str
    qualname: str
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
    try:
        task = _find_task(call)
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
        return outcome_of(error)
    return Succeeded()


def _refuse_coroutine(returned: Any) -> None:
    if inspect.iscoroutine(returned):
        returned.close()
        raise TypeError("the handler is 'async def': with executor='process' it must be a plain function")


def _find_task(call: ChildCall) -> Task[..., Any]:
    module = importlib.import_module(call.module)
    found = reduce(getattr, call.qualname.split("."), module)
    if not isinstance(found, Task):
        raise QworkerError(f"{call.module}.{call.qualname} is not a task: with executor='process' it must stay one")
    return found
