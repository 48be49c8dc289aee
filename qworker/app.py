"""App: tasks, their broker and their workers, put together."""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args, overload

from qworker._distribution import install
from qworker.brokers.base import Broker
from qworker.brokers.choose import broker_from_url
from qworker.defaults import TaskDefaults
from qworker.errors import ConfigurationError, UnknownTask, shown
from qworker.events import Listener
from qworker.failing import ErrorHook, check_hook
from qworker.job import Job
from qworker.middleware import Middleware
from qworker.produce.enqueuer import Enqueuer, Now
from qworker.produce.portal import Portal
from qworker.produce.producer import P, Sending
from qworker.registration.callables import handler_of, lifespan_of, listeners_of, middleware_of
from qworker.registration.names import Names, Origin, name_of
from qworker.registration.options import Executor
from qworker.registration.surroundings import Surroundings
from qworker.retry import Backoff, Delay, ErrorTypes
from qworker.system.project import anchored, here
from qworker.task import R, Task
from qworker.wire.bodies import Encoding

if TYPE_CHECKING:  # a producer need not wait for what only a worker needs
    from qworker.engine.worker import Lifespan, Worker
    from qworker.processes.beginning import Beginning
    from qworker.settings import Settings
    from qworker.tracing import Tracing

_log = logging.getLogger("qworker")
T = TypeVar("T")
H = TypeVar("H", bound=ErrorHook)
C = TypeVar("C", bound=Callable[[], AbstractContextManager[Any] | Iterator[Any]])
_NOT_A_WORKERS: Final = frozenset(
    {
        "app",
        "broker",
        "encoding",
        "health_port",
        "log_config",
        "log_format",
        "log_level",
        "processes",
        "reload",
        "tracing",
    }
)
"""Settings of a whole program, or of its App."""
_OPTIONS: Final = frozenset({field.name for field in fields(TaskDefaults)} | {"middleware", "state"})
"""Options of @task beside the name."""


class App:
    """A set of tasks, and the broker their jobs go through.

    *broker* is a URL, a connection string or a Broker; without one, settings decide (``QWORKER_BROKER``, else
    ``AZURE_STORAGE_CONNECTION_STRING``, else the file ``qworker.db`` of the project). A relative path is one in the
    directory where the App is made, whatever directory the program changes to later. *lifespan*, an async context
    manager that is given the app, surrounds a worker's life; what it yields is each handler's ``ctx.resources``.
    *middleware* wraps every handler, the first outermost. *tracing* makes OpenTelemetry spans of enqueueing and
    running; without it, settings decide (``QWORKER_TRACING``), and without those, nothing is traced. *child_setup* is
    called in each child process (``executor="process"``) before its first job. *defaults* are options of all its tasks
    whose ``@task`` says nothing else. Making an App connects to nothing.
    """

    def __init__(  # noqa: PLR0913 — each option has its own name
        self,
        *,
        broker: str | Broker | None = None,
        lifespan: "Callable[[App], AbstractAsyncContextManager[Any]] | None" = None,
        middleware: Iterable[Middleware] = (),
        encoding: Encoding | None = None,
        listeners: Iterable[Listener] = (),
        tracing: bool | None = None,
        child_setup: Callable[[], object] | None = None,
        defaults: TaskDefaults | None = None,
    ) -> None:
        self._here = here()
        """Where relative paths and settings are looked for, whatever directory a program changes to later."""
        self._given_broker = _checked_broker(broker, self._here)
        self._given_encoding = _checked_encoding(encoding)
        self._given_tracing = _checked_tracing(tracing)
        self._made: dict[str, Any] = {}
        self._lifespan = lifespan_of(lifespan)
        self._middleware = middleware_of(middleware, "App: ")
        self._listeners = listeners_of(listeners, "App")
        self._surroundings = Surroundings(child_setup)
        self._error_hooks: list[ErrorHook] = []
        self._defaults = _checked_defaults(defaults)
        self._tasks: dict[str, Task[..., Any]] = {}
        self._names = Names()
        self._portal = Portal(self._close_broker)
        self._sent_hooks: list[Callable[[Sequence[Job]], None]] = []
        """Called with jobs that were put; for tests."""

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """The registered tasks by name."""
        return self._tasks

    @property
    def broker(self) -> Broker:
        """Where the queues are. Raises ConfigurationError if the settings make no sense."""
        return self._first("broker", self._make_broker)

    def use_broker(self, broker: str | Broker) -> None:
        """Use another broker from now on; for command lines and tests. What sync calls opened to the old is closed."""
        given = _checked_broker(broker, here())
        self._portal.close()
        self._given_broker = given
        self._made.clear()

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: str = ...,
        max_attempts: int = ...,
        backoff: Backoff | None = ...,
        timeout: Delay | None = ...,
        executor: Executor | None = ...,
        state: Any = None,
        middleware: Iterable[Middleware] = (),
        bundle: int = ...,
        retry_on: ErrorTypes | None = ...,
        give_up_on: ErrorTypes | None = ...,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task; bare, or with options.

        *name*: what messages call it, by default module and function; *queue*: where its jobs go; *max_attempts*:
        tries before it is given up; *backoff*: rests between them (default: 5 s, 10 s, 20 s … up to 10 min);
        *timeout*: the time one attempt may take; *executor*: "thread" (the default) or "process" for a plain
        function; *state*: the type of what its checkpoints save; *middleware*: around this task only;
        *bundle*: how many jobs ``enqueue_many`` may put into one message; *give_up_on*: exceptions after which a job
        is given up at once; *retry_on*: exceptions after which it is tried again, and after no others. An option that
        isn't named is the App's (``App(defaults=…)``).

        Raises ConfigurationError for options or parameters that can't work.
        """
        if function is not None:
            return self._register(function, **options)
        return lambda decorated: self._register(decorated, **options)

    def on_error(self, hook: H, /) -> H:
        """Have a function called with each FailedAttempt: for a service that collects errors.

        It is told of what a handler raises, in whatever executor, of timeouts, and of all that is given up; of Retry
        and Reject only when they are that, of Snooze never. It is called on the worker's event loop once the message
        is settled, and must be quick; what it raises is logged, and harms no job.

        Raises ConfigurationError for an ``async def``.
        """
        self._error_hooks.append(check_hook(hook))
        return hook

    def around_thread(self, hook: C, /) -> C:
        """Have a context manager around each call of a plain function, in the thread or child process where it runs.

        The hook is a function without arguments that returns one, or a generator function that yields once. What it
        raises fails the attempt. Unlike middleware, it runs where the function does: for what belongs to a thread.

        Raises ConfigurationError for an ``async def``, and for a function that needs arguments.
        """
        self._surroundings.add(hook)
        return hook

    def get_task(self, name: str) -> Task[..., Any]:
        """Return the task of this name. Raises UnknownTask."""
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTask(name, self._tasks) from None

    def send(self, jobs: Sequence[Job], sending: Sending) -> Sequence[Job]:
        """Put jobs that were made already, and return them as put; the tasks' own enqueue makes and puts them."""
        tracing = self._enqueuer.tracing
        if tracing is None or not jobs:
            return self._told(self._send(jobs, sending))
        with tracing.send(jobs, sending.queue) as traced:
            return self._told(self._send(traced, sending))

    async def asend(self, jobs: Sequence[Job], sending: Sending) -> Sequence[Job]:
        """Do the same without blocking the event loop."""
        tracing = self._enqueuer.tracing
        if tracing is None or not jobs:
            return self._told(await self._asend(jobs, sending))
        with tracing.send(jobs, sending.queue) as traced:
            return self._told(await self._asend(traced, sending))

    def _told(self, jobs: Sequence[Job]) -> Sequence[Job]:
        for hook in self._sent_hooks:
            hook(jobs)
        return jobs

    def check(self, job: Job) -> None:
        """Raise InvalidArguments or MessageTooLarge if a job can't be sent."""
        self._enqueuer.cargo_of([job])

    @asynccontextmanager
    async def worker(self, *, listeners: Iterable[Listener] = (), **settings: Any) -> AsyncIterator["Worker"]:
        """Run a worker inside another program, for as long as the ``async with`` block.

        *settings* are those of Settings: queues, concurrency, lease, grace, …; at the end of the block it stops
        as it would on SIGTERM. Raises ConfigurationError for those that are not a worker's: the broker is the App's.
        """
        if foreign := sorted(_NOT_A_WORKERS.intersection(settings)):
            raise ConfigurationError(f"worker(): {', '.join(foreign)}: not of a worker, but of its App or its program")
        worker = self.make_worker(self._load_settings(settings), listeners)
        try:
            async with worker:
                yield worker
        finally:
            await self._close_broker()

    def make_worker(
        self,
        settings: "Settings",
        listeners: Iterable[Listener] = (),
        *,
        beginning: "Beginning | None" = None,
    ) -> "Worker":
        """Return a worker for this app that is not started yet; its child processes begin as *beginning* says."""
        from qworker.engine.run.child import check_can_be_found, check_can_have_child  # noqa: PLC0415 — see above
        from qworker.engine.worker import Worker  # noqa: PLC0415 — the same

        for task in self._tasks.values():
            check_can_be_found(task)
            check_can_have_child(task)
        return Worker(
            self.broker,
            self._tasks,
            settings,
            encoding=self.encoding,
            lifespan=self._bound_lifespan(),
            middleware=self._middleware,
            listeners=(*self._listeners, *listeners_of(listeners, "worker()")),
            error_hooks=self._error_hooks,
            beginning=beginning,
            tracing=self._enqueuer.tracing,
        )

    def close(self) -> None:
        """Close what the sync calls opened; the app can still be used and then opens it again."""
        self._portal.close()

    async def aclose(self) -> None:
        """Close what calls from the running event loop opened, and what the sync calls did."""
        self._portal.close()
        await self._close_broker()

    def _send(self, jobs: Sequence[Job], sending: Sending) -> Sequence[Job]:
        cargo = self._enqueuer.cargo_of(jobs, sending.bundle)
        self._portal.open()
        if (so_far := self._enqueuer.put_now(cargo, sending)) is not Now.DONE:
            self._portal.run(self._enqueuer.put(cargo, sending, so_far))
        return jobs

    async def _asend(self, jobs: Sequence[Job], sending: Sending) -> Sequence[Job]:
        await self._enqueuer.put(self._enqueuer.cargo_of(jobs, sending.bundle), sending)
        return jobs

    async def _close_broker(self) -> None:
        await self.broker.aclose()

    def _make_broker(self) -> Broker:
        if isinstance(self._given_broker, Broker):
            return self._given_broker
        url = self._load_settings().broker_url() if self._given_broker is None else self._given_broker
        broker = broker_from_url(url, self._here)
        _log.debug("jobs go to %s", broker.label)
        return broker

    @property
    def encoding(self) -> Encoding:
        """How bodies are sent. Raises ConfigurationError if the settings make no sense."""
        return self._first("encoding", lambda: self._given_encoding or self._load_settings().encoding)

    @property
    def _enqueuer(self) -> Enqueuer:
        return self._first("enqueuer", lambda: Enqueuer(self.broker, self.encoding, self._make_tracing()))

    def _make_tracing(self) -> "Tracing | None":
        wanted = self._load_settings().tracing if self._given_tracing is None else self._given_tracing
        if not wanted:
            return None
        try:
            from qworker.tracing import Tracing  # noqa: PLC0415 — an extra
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] != "opentelemetry":
                raise
            raise ConfigurationError(f"tracing: OpenTelemetry is not installed: {install('otel')}") from None
        return Tracing()

    def _load_settings(self, given: Mapping[str, Any] | None = None) -> "Settings":
        from qworker.settings import Settings  # noqa: PLC0415 — see above

        return Settings.load(given, start=self._here)

    def _first(self, name: str, make: Callable[[], T]) -> T:
        """Return what was made first, whichever thread made it; a lock could stay locked for ever after a fork."""
        made = self._made.get(name)
        return cast(T, self._made.setdefault(name, make()) if made is None else made)

    def _bound_lifespan(self) -> "Lifespan | None":
        lifespan = self._lifespan
        return None if lifespan is None else lambda: lifespan(self)

    def _register(self, function: Any, name: str | None = None, **options: Any) -> Task[..., Any]:
        if isinstance(function, Task):
            raise ConfigurationError(
                f"{function.name!r} is a task already: for another of the same function, hand in its .function"
            )
        handler, origin = handler_of(function), Origin.here()
        if unknown := options.keys() - _OPTIONS:
            raise ConfigurationError(f"@task has no option {min(unknown)!r}; it has {', '.join(sorted(_OPTIONS))}")
        name = name_of(handler, origin) if name is None else name
        task = Task(
            handler, self, name=name, surroundings=self._surroundings, **self._defaults.completed(options, handler)
        )
        task.made_in = origin.module
        self._names.take(task.name, handler, options, origin)
        self._tasks[task.name] = task
        return task

    def __repr__(self) -> str:
        return f"<App of {len(self._tasks)} tasks>"


def _checked_broker(given: Any, folder: Path | None) -> str | Broker | None:
    if isinstance(given, str) and given:
        return anchored(given, folder)
    if given is None or isinstance(given, Broker):
        return given
    what = "not be empty: leave it out to have the settings decide" if given == "" else f"not {type(given).__name__}"
    raise ConfigurationError(f"App: broker must be a URL, a connection string or a Broker, {what}")


def _checked_encoding(given: Any) -> Encoding | None:
    if given is not None and given not in get_args(Encoding):
        raise ConfigurationError(f"App: encoding must be 'text' or 'base64', not {shown(given)}")
    return cast(Encoding | None, given)


def _checked_defaults(given: Any) -> TaskDefaults:
    if given is not None and not isinstance(given, TaskDefaults):
        raise ConfigurationError(f"App: defaults must be TaskDefaults(…), not {shown(given)}")
    return given or TaskDefaults()


def _checked_tracing(given: Any) -> bool | None:
    if given is not None and not isinstance(given, bool):
        raise ConfigurationError(f"App: tracing must be True or False, not {shown(given)}")
    return given


default_app = App()
"""The app of the bare ``@task``, configured from the environment."""
task = default_app.task
