"""What a running handler can know and do: its Context."""

import asyncio
import os
import types
import typing
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar, Token
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic

import typing_extensions
from typing_extensions import TypeVar

from qworker.errors import QworkerError
from qworker.job import Job

if TYPE_CHECKING:  # structlog takes a tenth of a second to import, which a producer need not pay
    from structlog.typing import FilteringBoundLogger

SaveState = Callable[[Any], Coroutine[Any, Any, None]]


_ALIASES: Final = (typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType))
"""Of ``type Ctx = Context[…]``: Python has a class of its own for it since 3.12."""


class NoContext(QworkerError):
    """There is no running job here to have a Context."""

    def __init__(self) -> None:
        super().__init__(
            "no job is running here: a Context exists only while a worker runs a handler; "
            "in a test, pass one made by qworker.testing.make_context()",
        )


ResourcesT = TypeVar("ResourcesT", default=Mapping[str, Any])
StateT = TypeVar("StateT", default=Any)


class Context(Generic[ResourcesT, StateT]):
    """One attempt of one job, as its handler sees it.

    ``Context[Resources, State]`` says what ``resources`` and ``state`` are: Resources is what the App's lifespan
    yields, and State what checkpoints save. Both may be left out, from the right.
    """

    def __init__(  # noqa: PLR0913 — a record; only the worker and tests make one
        self,
        job: Job,
        *,
        queue: str,
        attempt: int = 1,
        deadline: datetime | None = None,
        state: Any = None,
        save_state: SaveState | None = None,
        lease_lost: Callable[[], bool] = lambda: False,
        resources: Any = MappingProxyType({}),
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.job = job
        self.queue = queue
        self.attempt = attempt
        """1, 2, 3 …: deliveries that were given back by no fault of the job don't count."""
        self.deadline = deadline
        """When the task's timeout will end this attempt; None if it has none."""
        self.state: StateT | None = state
        """What the last checkpoint of an earlier attempt, or of this one, saved; None before the first."""
        self.resources: ResourcesT = resources
        """What the app's lifespan yielded."""
        self._save_state = save_state
        self._lease_lost = lease_lost
        self._loop = loop
        self._pid = os.getpid()

    @property
    def job_id(self) -> str:
        """The job's id, the same in each attempt."""
        return self.job.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self.job.task

    @property
    def enqueued_at(self) -> datetime | None:
        """When the producer made the job; None if it did not say."""
        return self.job.enqueued_at

    @property
    def headers(self) -> Mapping[str, str]:
        """What the producer sent along beside the arguments."""
        return self.job.headers

    @property
    def lease_lost(self) -> bool:
        """Whether the message belongs to someone else by now: whatever this attempt does, another repeats it."""
        return self._lease_lost()

    @property
    def log(self) -> "FilteringBoundLogger":
        """A structlog logger with the task's name, bound to job, task, attempt and queue.

        It logs as the program has configured structlog, else through the logger of this name in ``logging``.
        """
        from qworker.lines.structlog_events import logger_for_handlers  # noqa: PLC0415 — see above

        job = self.job
        return logger_for_handlers(job.task, job=job.id, task=job.task, attempt=self.attempt, queue=self.queue)

    async def acheckpoint(self, state: StateT) -> None:
        """Save *state* in the message itself, where the next attempt finds it as ``ctx.state``.

        Any JSON value, or what the task's ``state`` model says. The lease is renewed by the same request.

        Raises LeaseLost if the message belongs to someone else, MessageTooLarge if it would outgrow the message,
        and other BrokerErrors; the old state is then still there.
        """
        if self._save_state is None:
            raise QworkerError("this Context can't save a state: its handler runs in a process of its own")
        self._refuse_in_fork()
        save = self._save_state(state)
        if self._loop is None or self._loop is _running_loop():
            await save
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(save, self._loop))
        self.state = state

    def checkpoint(self, state: StateT) -> None:
        """Do the same from a handler that is a plain function."""
        if _running_loop() is not None:
            raise QworkerError("checkpoint() would block the event loop here: use 'await ctx.acheckpoint(…)'")
        self._refuse_in_fork()
        if self._loop is None:
            asyncio.run(self.acheckpoint(state))
        else:
            asyncio.run_coroutine_threadsafe(self.acheckpoint(state), self._loop).result()

    def _refuse_in_fork(self) -> None:
        if os.getpid() != self._pid:
            raise QworkerError(
                "this process was forked by the handler: only the one that the worker runs can save a state"
            )

    def __repr__(self) -> str:
        return f"<Context of {self.task} {self.job_id}, attempt {self.attempt}>"


class _Injected(Context[Any, Any]):
    """Stands in a signature for the Context that the worker will pass."""

    def __init__(self) -> None:
        """Have nothing of a Context but its type."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name == "_is_injected":
            return super().__getattribute__(name)
        return getattr(current(), name)

    def __repr__(self) -> str:
        return "INJECTED"


INJECTED: Final[Context[Any, Any]] = _Injected()
"""The default of a Context parameter: ``async def send(to: str, *, ctx: Context = INJECTED)``.

It tells type checkers that a producer need not pass one. Used without a worker, it raises NoContext.
"""

_current: ContextVar[Context[Any, Any]] = ContextVar("qworker.current")


def current() -> Context[Any, Any]:
    """Return the Context of the job that runs here. Raises NoContext where none does."""
    try:
        return _current.get()
    except LookupError:
        raise NoContext from None


def context_of(task: asyncio.Task[Any] | None) -> Context[Any, Any] | None:
    """Return the Context of the job that an asyncio task belongs to; None where Python can't tell (before 3.12)."""
    variables = getattr(task, "get_context", lambda: None)()
    return None if variables is None else variables.get(_current)


def set_current(ctx: Context[Any, Any]) -> Token[Context[Any, Any]]:
    """Make *ctx* the one that current() finds, in the running task or thread; for the engine and for tests."""
    return _current.set(ctx)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def context_in(hint: Any) -> Any:
    """Return the Context that a parameter's annotation means, with what stands in its brackets; None if it means none.

    It may stand beside None, behind a name of its own, or be Annotated.
    """
    if isinstance(hint, _ALIASES):
        return context_in(hint.__value__)
    origin = typing.get_origin(hint)
    if isinstance(origin, _ALIASES):  # one that has parameters of its own
        return context_in(origin.__value__[typing.get_args(hint)])
    if origin is Annotated:
        return context_in(typing.get_args(hint)[0])
    if origin in {typing.Union, types.UnionType}:
        return next(filter(None, map(context_in, typing.get_args(hint))), None)
    return hint if hint is Context or origin is Context else None


def state_type_of(context: Any) -> Any:
    """Return the type of state in the brackets of a Context; None if it says nothing."""
    resources_and_state = typing.get_args(context)
    state = resources_and_state[1] if len(resources_and_state) > 1 else Any
    return None if state is Any or isinstance(state, typing.TypeVar) else state
