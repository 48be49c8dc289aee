"""From an attempt to its outcome: the handler is called here, and stopped."""

import asyncio
import contextlib
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from structlog.contextvars import bind_contextvars, reset_contextvars

from qworker.context import Context, SaveState, set_current
from qworker.engine.attempt import Attempt
from qworker.engine.run.child import ChildCall
from qworker.engine.run.children import ChildDied, Children, NoChild
from qworker.engine.run.forks import end_if_forked_from
from qworker.engine.run.outcomes import check_returned, error_of, failed, outcome_of
from qworker.engine.run.threads import ThreadCall
from qworker.errors import InvalidArguments, QworkerError, UnknownTask
from qworker.job import utc_now
from qworker.middleware import Middleware
from qworker.outcome import Expired, Failed, Failure, Lost, Outcome, Rejected, Released, Succeeded, Unknown
from qworker.processes.beginning import Beginning
from qworker.retry import Backoff, RetryPolicy
from qworker.task import Task

if TYPE_CHECKING:  # an extra
    from qworker.tracing import Tracing

NO_CHILD: Final = RetryPolicy(backoff=Backoff(base=1, factor=2, max=60))
"""How long a job rests that no child process could be started for."""
NUDGE_EVERY: Final = 5.0
"""Seconds after which a handler that was told to stop, and didn't, is told again."""


class TimedOut(QworkerError, TimeoutError):
    """An attempt took longer than its task's timeout; for ``retry_on`` and ``give_up_on`` it is a TimeoutError."""


class Runner:
    """Runs attempts. It never raises, and never touches a queue."""

    def __init__(
        self,
        known_tasks: Mapping[str, Task[..., Any]],
        *,
        concurrency: int,
        middleware: tuple[Middleware, ...] = (),
        beginning: Beginning | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._known_tasks = known_tasks
        self._middleware = middleware
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="qworker-handler")
        self._children = Children(beginning)
        self.tracing = tracing
        """What makes spans of attempts, if anything does."""
        self.resources: Any = {}
        """What the lifespan yielded."""

    def refuse(self, attempt: Attempt) -> Outcome | None:
        """Return the outcome of an attempt whose handler must not be called, or None if it is to run."""
        if attempt.lease.lost:
            return Lost()
        if (reason := attempt.job.given_up) is not None:
            return Rejected(Failure(reason.type, reason.message))
        if attempt.expired:
            return Expired()
        if attempt.task is None:
            return _unknown(attempt, UnknownTask(attempt.job.task, self._known_tasks))
        if attempt.number > attempt.max_attempts and not attempt.alone:
            return worker_lost(attempt)
        return None

    def prepare(self, attempt: Attempt, save_state: SaveState) -> "Run":
        """Return the run of an attempt that was not refused, not yet begun."""
        return Run(self, attempt, save_state)

    def close(self) -> None:
        """Let go of threads and child processes; a thread that is stuck in a handler is left alone."""
        self._children.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def call(self, run: "Run") -> Any:
        """Call the handler within its middleware."""
        call_next: Callable[[], Awaitable[Any]] = partial(self._call_handler, run)
        for middleware in reversed((*self._middleware, *run.task.options.middleware)):
            call_next = partial(middleware, run.ctx, call_next)
        return await call_next()

    async def _call_handler(self, run: "Run") -> Any:
        if run.task.options.executor == "process":
            return await self._call_child(run)
        handler = partial(run.task.function, *run.args, **run.kwargs)
        if run.task.options.executor is None:
            return check_returned(await _on_loop(handler()))
        returned = await run.in_thread(ThreadCall(run.task.surroundings.around(handler)), self._threads)
        # A decorator may hide that a function is "async def": what it returns has still to be run.
        return check_returned(await _on_loop(returned) if inspect.isawaitable(returned) else returned)

    async def _call_child(self, run: "Run") -> None:
        attempt, function = run.attempt, run.task.function
        call = ChildCall(
            module=function.__module__,
            qualname=getattr(function, "__qualname__", ""),
            made_in=run.task.made_in,
            job=attempt.job,
            queue=attempt.queue,
            attempt=attempt.number,
            deadline=run.ctx.deadline,
            trace={} if self.tracing is None else self.tracing.carrier(),
        )
        outcome = await self._children.run(call, run.save_state)
        if not isinstance(outcome, Succeeded):
            run.raised_in_child = error_of(outcome), outcome
            raise run.raised_in_child[0]


class Run:
    """A handler at work, and the way to stop it."""

    def __init__(self, runner: Runner, attempt: Attempt, save_state: SaveState) -> None:
        assert attempt.task is not None  # noqa: S101 — refuse() has seen to it
        self.attempt = attempt
        self.task = attempt.task
        self._runner = runner
        self.save_state = save_state
        """Saves a state that is JSON already, as a child process sends it."""
        self._loop = asyncio.get_running_loop()
        self._stopped: Outcome | None = None
        self._over = False
        self._current_task: asyncio.Task[Any] | None = None
        self._thread: ThreadCall | None = None
        self.raised_in_child: tuple[Exception | None, Outcome | None] = None, None
        """What middleware sees of a child's outcome, and that itself, which knows more."""
        self._nudge: asyncio.TimerHandle | None = None
        self._timed_out: TimedOut | None = None
        self._told = False
        """Whether its thread was interrupted before the event loop came to it: once is enough."""
        self.on_stuck: Callable[[], None] = lambda: None

    async def outcome(self) -> Outcome:
        """Run the handler to its end, whatever that is, and say what became of it."""
        self._current_task = asyncio.current_task()
        timer = self._start_timer()
        try:
            return await self._outcome()
        finally:
            self._over = True
            for handle in (timer, self._nudge):
                if handle is not None:
                    handle.cancel()
            while self._current_task is not None and self._current_task.cancelling():
                self._current_task.uncancel()  # what was meant for the handler must not end its settling

    def stop(self, because: Outcome) -> None:
        """Tell the handler to stop; unless it succeeds all the same, *because* is its outcome."""
        if self._over:
            return
        self._stopped = self._stopped or because
        if self._nudge is None:
            self._tell()

    def stop_from_thread(self, because: Outcome) -> None:
        """Do the same from another thread than the event loop's."""
        if (thread := self._thread) is not None and self._nudge is None:  # its loop may be blocked
            self._stopped = self._stopped or because
            self._told = True
            thread.interrupt()
        with contextlib.suppress(RuntimeError):  # the loop has closed: there is nothing left to stop
            self._loop.call_soon_threadsafe(self.stop, because)

    def runs_in(self, task: asyncio.Task[Any] | None) -> bool:
        """Say whether *task* is the one that this handler runs in."""
        return task is not None and task is self._current_task and self._thread is None

    async def in_thread(self, call: ThreadCall, executor: ThreadPoolExecutor) -> Any:
        """Run a thread's call, which stop() then interrupts instead of cancelling the wait for it."""
        self._thread = call
        try:
            if self._stopped is not None:
                call.interrupt()
            return await call.run(executor)
        finally:
            self._thread = None

    async def _outcome(self) -> Outcome:
        try:
            self.args, self.kwargs = self.task.signature.decode(self.attempt.job.args, self.attempt.job.kwargs)
            self.ctx = self._context()
        except InvalidArguments as error:
            self.attempt.error = error
            return Rejected(Failure.of(error))
        except Exception as error:  # noqa: BLE001 — a validator of the user's own may raise anything
            self.attempt.error = error
            return failed(error, self.task.options.policy)
        self.kwargs |= dict.fromkeys(self.task.signature.context_parameters, self.ctx)
        set_current(self.ctx)
        job = self.attempt.job
        bound = bind_contextvars(job=job.id, task=job.task, attempt=self.attempt.number, queue=self.attempt.queue)
        try:
            await self._runner.call(self)
        except BaseException as error:  # noqa: BLE001 — whatever a handler raises is one failed attempt
            return self._outcome_of(error)
        finally:
            reset_contextvars(**bound)
        return Succeeded()

    def _outcome_of(self, error: BaseException) -> Outcome:
        if self._stopped is not None:
            if (timed_out := self._timed_out) is not None:  # and where it was then
                self.attempt.error = timed_out.with_traceback(error.__traceback__)
                return failed(timed_out, self.task.options.policy)
            return self._stopped
        if isinstance(error, NoChild):  # no attempt was made; ever longer rests, as others need what is used up
            return Released(str(error), NO_CHILD.delay(self.attempt.job.releases + 1))
        self.attempt.error = error
        raised, outcome = self.raised_in_child
        if isinstance(error, ChildDied):  # it raised nothing
            return Failed(Failure.of(error))
        return outcome if error is raised and outcome is not None else outcome_of(error, self.task.options.policy)

    def _context(self) -> Context:
        timeout = self.task.options.timeout
        attempt = self.attempt
        return Context(
            attempt.job,
            queue=attempt.queue,
            attempt=attempt.number,
            deadline=None if timeout is None else utc_now() + timedelta(seconds=timeout),
            state=self.task.states.decode(attempt.job.state),
            save_state=partial(_save, self.attempt, self.save_state),
            lease_lost=lambda: attempt.lease.lost,
            resources=self._runner.resources,
            loop=self._loop,
        )

    def _start_timer(self) -> asyncio.TimerHandle | None:
        timeout = self.task.options.timeout
        if timeout is None:
            return None
        return self._loop.call_later(timeout, self._time_out, timeout)

    def _time_out(self, timeout: float) -> None:
        error = TimedOut(f"it took longer than its timeout of {timeout:g} s")
        if self._stopped is None:
            self._timed_out = error
        self.stop(failed(error, self.task.options.policy))

    def _tell(self) -> None:
        if self._over:
            return
        if self._nudge is not None:
            self.on_stuck()
        if self._thread is not None:
            if not self._told:
                self._thread.interrupt()
            self._told = False
        elif self._current_task is not None:
            self._current_task.cancel()
        self._nudge = self._loop.call_later(NUDGE_EVERY, self._tell)


async def _save(attempt: Attempt, save_json: SaveState, state: Any) -> None:
    """Save what a handler's checkpoint passed. Raises InvalidArguments, or what the saving raises."""
    assert attempt.task is not None  # noqa: S101 — it is running
    await save_json(attempt.task.states.encode(state))


def worker_lost(attempt: Attempt) -> Failed:
    """Return the outcome of a job that was delivered too often."""
    earlier = attempt.number - 1
    return Failed(
        Failure(
            "WorkerLost",
            f"it was delivered {earlier} times, and the worker never came to settle the last of them: "
            "it was killed or crashed, or the broker did not take the outcome",
        ),
    )


def _unknown(attempt: Attempt, error: UnknownTask) -> Unknown:
    """Return the outcome of a job that another app may know. Where a body had no room for a note, its number tells."""
    return Unknown(Failure.of(error), max(attempt.job.unknown + 1, attempt.number))


async def _on_loop(handling: Awaitable[Any]) -> Any:
    """Run a handler here; a process that it forks gets no further than its end."""
    pid = os.getpid()
    try:
        return await handling
    finally:
        end_if_forked_from(pid)
