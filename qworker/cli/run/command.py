"""qworker run: a worker, or several processes of them."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qworker._distribution import install
from qworker._exits import FAILED, MORE_TO_DO, NOTHING_TO_POLL, UNUSABLE, WRONG_USE
from qworker.app import App
from qworker.brokers.base import Broker
from qworker.brokers.choose import broker_from_url
from qworker.cli.shared.load import load_app, named_here
from qworker.engine.run.threads import is_any_stuck
from qworker.engine.worker import Worker
from qworker.errors import ConfigurationError
from qworker.events import Event, Listener, QueueUnused
from qworker.observe.log_setup import complete, configure, prepare
from qworker.observe.logs import EventLog
from qworker.processes.beginning import Beginning
from qworker.processes.signals import SUPERVISOR_ENDED, end_on_signals, ignore_signals, pass_signals_to
from qworker.processes.supervisor import SUPERVISED, Supervisor, this_command
from qworker.settings import Settings, ignored_variables
from qworker.system.descriptors import allow_many
from qworker.system.parent import end_with_parent
from qworker.system.platform import refuse_on_windows
from qworker.system.streams import flush_or_drop, forgive_output

if TYPE_CHECKING:
    from qworker.cli.run.health import SupervisorWatch, WorkerWatch


if sys.platform == "linux":
    from qworker.system.process_one import leave_process_one

_ORPHANED: Final = "its supervisor has ended"
_LOOP_PATCHERS: Final = frozenset({"nest_asyncio", "nest_asyncio2"})
_LAST_EXIT: Final = 3.5
"""Seconds after the grace when the process ends whatever is still stuck in it."""


def run(  # noqa: PLR0913 — one parameter an option
    app: Annotated[
        str | None,
        typer.Argument(metavar="APP", help="A module with tasks, or with an App: tasks, pkg.mod, pkg.mod:app."),
    ] = None,
    *,
    queues: Annotated[
        str | None,
        typer.Option("--queues", "-q", metavar="NAME[:WEIGHT],…", help="Queues to poll. [default: the app's]"),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option("--concurrency", "-c", metavar="N", help="Jobs that one process runs at once. [default: 16]"),
    ] = None,
    processes: Annotated[
        str | None,
        typer.Option("--processes", "-p", metavar="N", help="Number of worker processes. [default: 1]"),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The broker's URL. [default: the app's, else sqlite:///qworker.db]"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option("--log-level", "-l", metavar="LEVEL", help="debug, info, warning or error. [default: info]"),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="console, json, or auto: console on a terminal. [default: auto]"),
    ] = None,
    log_config: Annotated[
        str | None,
        typer.Option(
            metavar="WHOSE", help="none: only the app sets up logging; auto: qworker sets up the rest. [default: auto]"
        ),
    ] = None,
    loop: Annotated[
        str | None,
        typer.Option(metavar="LOOP", help="asyncio, uvloop, or auto: uvloop where it is installed. [default: auto]"),
    ] = None,
    health_port: Annotated[
        str | None,
        typer.Option(metavar="PORT", help="Serve /live, /ready and /metrics on this port. [default: none]"),
    ] = None,
    burst: Annotated[
        bool,
        typer.Option("--burst", "-b", help="Exit once no job is visible and none runs."),
    ] = False,
    reload: Annotated[
        bool,
        typer.Option("--reload", "-r", help="Restart when a Python file changes, for development."),
    ] = False,
    max_jobs: Annotated[
        str | None,
        typer.Option(metavar="N", help="Exit after N jobs. With -p, the supervisor starts a new process."),
    ] = None,
    lease: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Length of a lease: jobs of a dead worker run again after it. [default: 60s]"
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for running jobs to finish at a stop. [default: 25s]"),
    ] = None,
    poll_max: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Longest pause between polls of an idle queue. [default: 2s on Azure, 500ms on SQLite]"
        ),
    ] = None,
) -> None:
    """Run the jobs of an app's queues until told to stop.

    SIGTERM and Ctrl-C let running jobs finish. A second signal releases them at once.
    Each option is also a setting: QWORKER_CONCURRENCY=8, or concurrency = 8 in [tool.qworker] of pyproject.toml.
    """
    end_on_signals()
    if sys.platform == "linux":
        leave_process_one()
    forgive_output()

    broker = named_here(broker)
    given = {**locals(), "burst": burst or None, "reload": reload or None}
    settings = Settings.load({name: given[name] for name in Settings.model_fields if name in given})
    if settings.app is None:
        raise ConfigurationError("which app? 'qworker run tasks' runs the tasks in tasks.py")
    _refuse_what_windows_has_not(settings)
    allow_many()
    number = os.environ.pop(SUPERVISED, None)  # the processes that a handler starts are not supervised
    if broker is not None:
        _check_shared(broker_from_url(broker), settings)
    if (settings.processes > 1 or settings.reload) and number is None:
        raise typer.Exit(_supervise(settings))
    raise typer.Exit(_work(settings, broker, number))


def _refuse_what_windows_has_not(settings: Settings) -> None:
    """Raise ConfigurationError on Windows for what takes a supervisor, whose pipes and signals that has not."""
    if settings.processes > 1:
        refuse_on_windows(f"-p {settings.processes}", "start 'qworker run -p 1' once for each process")
    if settings.reload:
        refuse_on_windows("--reload", "stop the worker and start it again")


def _work(settings: Settings, broker: str | None, number: str | None) -> int:
    supervisor = _supervisor(number)
    wanted = settings.log_level, settings.log_format, settings.log_config
    complete_logs = partial(complete, *wanted, given=sorted(settings.model_fields_set))
    beginning = Beginning.here(settings.app, partial(prepare, *wanted), complete_logs)
    prepare(*wanted)
    app = load_app(settings.app or "")
    ignored = complete_logs()
    first = number in {None, "0"}
    if first:
        _tell_ignored(ignored)
    if broker is not None:  # the command line's; what the environment says is for apps that don't say it themselves
        app.use_broker(broker)
    _check_shared(app.broker, settings)
    loop_factory = _loop_factory(settings)
    watch = _watch_of(app, settings, number)
    if not app.broker.shared:
        logging.getLogger("qworker").warning("%s: only this process can put jobs there", app.broker.label)
    if first:
        _warn_of_unused_queues(app, settings)
    gc.freeze()  # what is loaded by now stays: to look at all of it again and again would hold the event loop up
    code = _run_to_the_end(_run_worker(app, settings, watch, beginning, supervisor), loop_factory)
    ignore_signals()
    app.close()
    _leave_stuck_threads(code)
    return code


def _tell_ignored(settings: Iterable[str]) -> None:
    log = logging.getLogger("qworker")
    for variable in ignored_variables():
        log.debug("%s is not a setting of qworker, and is ignored", variable)
    for setting in settings:
        log.warning("%s", setting)


def _supervisor(number: str | None) -> int | None:
    """Return the process id of this worker's supervisor, if it has one, and stop when that ends.

    The end of standard input says so too, but only to an event loop that nothing blocks.
    """
    if number is None:
        return None
    supervisor = os.getppid()
    end_with_parent(SUPERVISOR_ENDED, parent=supervisor)
    return supervisor


def _check_shared(broker: Broker, settings: Settings) -> None:
    if settings.processes > 1 and not broker.shared:
        raise ConfigurationError(f"{broker.label} works in one process only: use -p 1, or a file")


def _loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the factory of the worker's event loop; None for asyncio's own. Raises ConfigurationError."""
    patched = not _LOOP_PATCHERS.isdisjoint(sys.modules)  # the app has imported one, and uvloop's can't be patched
    if settings.loop == "asyncio" or (settings.loop == "auto" and patched):
        return None
    try:
        import uvloop  # noqa: PLC0415 — an extra
    except ImportError:
        if settings.loop == "uvloop":
            raise ConfigurationError(f"loop: uvloop is not installed: {install('uvloop')}") from None
        return None
    return uvloop.new_event_loop


def _run_to_the_end(
    main: Coroutine[Any, Any, int], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> int:
    """Run the worker's event loop, and on: asyncio lets a sys.exit() in a handler's own asyncio task end the loop."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt):
                if task.done():
                    raise


def _watch_of(app: App, settings: Settings, number: str | None) -> "WorkerWatch | None":
    if settings.health_port is None:
        return None
    from qworker.cli.run.health import WorkerWatch  # noqa: PLC0415 — a worker without it does without its imports

    port = settings.health_port if number is None else None
    return WorkerWatch(app.tasks, settings.lease, port=port, first=number in {None, "0"})


def _warn_of_unused_queues(app: App, settings: Settings) -> None:
    log = EventLog()
    used = {task.queue for task in app.tasks.values()}
    for name in settings.queues:
        if name not in used:
            log(QueueUnused(queue=name, near=next(iter(get_close_matches(name, used, 1)), None)))


async def _run_worker(
    app: App, settings: Settings, watch: "WorkerWatch | None", beginning: Beginning, supervisor: int | None
) -> int:
    supervised = supervisor is not None
    log = EventLog()
    worker = app.make_worker(settings, [log, *(watch.listeners if watch else ())], beginning=beginning)
    loop = asyncio.get_running_loop()

    last_resort = _LastResort(settings.grace + _LAST_EXIT)
    last_resort.start()

    def stop(reason: str) -> None:
        if not supervised or worker.stop_reason is None:
            worker.request_stop(reason)

    def on_signal(number: signal.Signals) -> None:
        last_resort.ask()  # the loop may be blocked, and then never gets to stop
        with contextlib.suppress(RuntimeError):  # the loop has closed: it is stopping already
            loop.call_soon_threadsafe(stop, _ORPHANED if supervised and number is SUPERVISOR_ENDED else number.name)

    pass_signals_to(on_signal)
    if supervised:
        loop.add_reader(sys.stdin.fileno(), _hear_supervisor, loop, worker)
    try:
        async with watch.watching(worker, log) if watch else contextlib.nullcontext(), worker:
            await worker.stop_requested()
            last_resort.ask()
    finally:
        await app.aclose()
    if worker.failure is not None:
        return NOTHING_TO_POLL if supervised else FAILED
    return MORE_TO_DO if supervised and settings.burst and worker.has_started_all else 0


def _hear_supervisor(loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
    if os.read(sys.stdin.fileno(), 1024):
        if worker.stop_reason is None:  # its signal comes on another way
            worker.request_stop(signal.SIGTERM.name)
        worker.request_stop("its supervisor is in a hurry")
        return
    loop.remove_reader(sys.stdin.fileno())
    if worker.stop_reason is None:
        worker.request_stop(_ORPHANED)


class _LastResort(threading.Thread):
    """Ends the process some time after it was asked to, even if a handler never returns.

    The job of such a handler runs again when its lease ends.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(name="qworker-last-resort", daemon=True)
        self._seconds = seconds
        self._asked: SimpleQueue[None] = SimpleQueue()

    def ask(self) -> None:
        """Begin the countdown; safe in a signal handler, which may interrupt anything but this kind of queue."""
        self._asked.put(None)

    def run(self) -> None:
        self._asked.get()
        time.sleep(self._seconds)
        os._exit(FAILED)


def _leave_stuck_threads(code: int) -> None:
    """Exit at once if a handler's thread is stuck: Python would wait for it. What `atexit` holds is not called then."""
    if is_any_stuck():
        flush_or_drop(sys.stderr)
        flush_or_drop(sys.stdout)
        os._exit(code)


def _supervise(settings: Settings) -> int:
    changes = _watch() if settings.reload else None
    configure(settings.log_level, settings.log_format, settings.log_config)
    watch = _supervisor_watch(settings)
    log = EventLog()
    supervisor = Supervisor(
        this_command(),
        settings.processes,
        grace=settings.grace,
        emit=partial(_tell_each, (log, *(watch.listeners if watch else ()))),
        fatal=frozenset() if settings.reload else frozenset({WRONG_USE, UNUSABLE}),
        once=settings.burst,
        changes=changes,
        open_line=watch.fleet.open_line if watch else None,
    )
    code = asyncio.run(_run_supervisor(supervisor, watch.watching(log) if watch else contextlib.nullcontext()))
    ignore_signals()
    return code


def _supervisor_watch(settings: Settings) -> "SupervisorWatch | None":
    if settings.health_port is None:
        return None
    from qworker.cli.run.health import SupervisorWatch  # noqa: PLC0415 — as above

    return SupervisorWatch(settings.health_port)


def _tell_each(listeners: Iterable["Listener"], event: Event) -> None:
    for listener in listeners:
        listener(event)


async def _run_supervisor(supervisor: Supervisor, watching: AbstractAsyncContextManager[None]) -> int:
    loop = asyncio.get_running_loop()

    def on_signal(_: signal.Signals) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: it has stopped
            loop.call_soon_threadsafe(supervisor.stop)

    pass_signals_to(on_signal)
    async with watching:
        return await supervisor.run()


def _watch() -> Any:
    try:
        import watchfiles  # noqa: PLC0415 — an extra
    except ImportError:
        raise ConfigurationError(f"--reload needs watchfiles: {install('reload')}") from None

    here = str(Path.cwd())

    async def changes() -> tuple[str, ...]:
        async for found in watchfiles.awatch(here, watch_filter=watchfiles.PythonFilter()):
            return tuple(sorted(path.removeprefix(here + os.sep) for _, path in found))
        return ()

    return changes
