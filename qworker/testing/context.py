"""A Context without a worker, so that a test can call a handler directly."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any

from qworker._queue_names import DEFAULT_QUEUE
from qworker.context import Context, ResourcesT, StateT, set_current
from qworker.job import Job, new_job_id, utc_now
from qworker.task import Task


def make_context(  # noqa: PLR0913 — all that a handler can see, each with a default
    of: Job | Task[..., Any] | str = "test",
    *,
    queue: str | None = None,
    attempt: int = 1,
    state: Any = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    resources: Any = MappingProxyType({}),
    deadline: datetime | None = None,
    lease_lost: bool = False,
) -> Context[Any, Any]:
    """Return the Context of an attempt of *of*: a job, a task, or only a task's name.

    ::

        await send("a@b.c", ctx=make_context(send, attempt=3))

    *state* is what an earlier attempt's checkpoint has saved. A checkpoint of the handler's own is found in
    ``ctx.state``; given a task, it is checked as a worker would check it. *headers* are those of the job, unless a
    job is given, which has its own.

    Raises InvalidArguments if the state is not what the task says.
    """
    task = of if isinstance(of, Task) else None
    job = of if isinstance(of, Job) else Job(new_job_id(), _name_of(of), enqueued_at=utc_now(), headers=headers)

    async def save_state(state: Any) -> None:
        if task is not None:
            task.states.encode(state)

    return Context(
        job,
        queue=queue or (DEFAULT_QUEUE if task is None else task.queue),
        attempt=attempt,
        deadline=deadline,
        state=state if task is None or state is None else task.states.decode(task.states.encode(state)),
        save_state=save_state,
        lease_lost=lambda: lease_lost,
        resources=resources,
    )


@contextmanager
def running(ctx: Context[ResourcesT, StateT]) -> Iterator[Context[ResourcesT, StateT]]:
    """Make *ctx* what ``qworker.current()`` and INJECTED stand for, within the ``with`` block."""
    token = set_current(ctx)
    try:
        yield ctx
    finally:
        token.var.reset(token)


def _name_of(of: Task[..., Any] | str) -> str:
    return of if isinstance(of, str) else of.name
