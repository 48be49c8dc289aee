"""A worker that runs until nothing is left to do, for an application's tests."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from qworker.app import App
from qworker.errors import QworkerError
from qworker.events import JobPoisoned, JobRetried, JobSucceeded, MessagePoisoned, TaskUnknown
from qworker.failing import FailedAttempt
from qworker.job import Job
from qworker.outcome import Retry
from qworker.testing.events import EventRecorder

FailedJob = JobPoisoned | JobRetried | TaskUnknown
"""What is known of a job that failed: ``job``, ``attempt``, and ``failure``, which says why."""


class Happened(EventRecorder):
    """What a run of an app's jobs came to, as lists of jobs and as the events that a worker tells of."""

    def __init__(self) -> None:
        super().__init__()
        self._sent: list[Job] = []
        self._errors: dict[str, BaseException] = {}
        """What a job's latest attempt raised, by the job's id."""

    @property
    def enqueued(self) -> list[Job]:
        """The jobs that were enqueued while it ran, by handlers mostly, those that are delayed too."""
        return list(self._sent)

    @property
    def succeeded(self) -> list[Job]:
        """The jobs that succeeded, in this order."""
        return [event.job for event in self.of(JobSucceeded)]

    @property
    def failed(self) -> list[FailedJob]:
        """The jobs that failed and did not succeed after that, with their last failure.

        They are given up, or rest until another attempt, or no task of the app has their name. One that has raised
        Retry and rests is not among them: it asked for that.
        """
        last: dict[str, FailedJob] = {}
        for event in self.events:
            if isinstance(event, JobSucceeded):
                last.pop(event.job.id, None)
            elif isinstance(event, JobPoisoned | TaskUnknown) or (
                isinstance(event, JobRetried) and event.failure.type != Retry.__name__
            ):
                last[event.job.id] = event
        return list(last.values())

    def raise_failures(self) -> None:
        """Raise AssertionError if a job failed, or a message was no job; its cause is what the first handler raised."""
        failed = self.failed
        texts = [_line(event.job.task, event.job.id, event.failure) for event in failed]
        texts += [_line("no job", event.message_id, event.failure) for event in self.of(MessagePoisoned)]
        if texts:
            what = "1 job failed" if len(texts) == 1 else f"{len(texts)} jobs failed"
            cause = next((self._errors[event.job.id] for event in failed if event.job.id in self._errors), None)
            raise AssertionError("; ".join([f"{what}: {texts[0]}", *texts[1:]])) from cause

    @contextlib.contextmanager
    def watching(self, app: App) -> Iterator[None]:
        """Take note of what is enqueued and raised."""
        app._sent_hooks.append(self._note_sent)  # noqa: SLF001 — it is for this
        app._error_hooks.append(self._note_error)  # noqa: SLF001 — the same
        try:
            yield
        finally:
            app._sent_hooks.remove(self._note_sent)  # noqa: SLF001 — the same
            app._error_hooks.remove(self._note_error)  # noqa: SLF001 — the same

    def _note_sent(self, jobs: Sequence[Job]) -> None:
        self._sent += jobs

    def _note_error(self, failed: FailedAttempt) -> None:
        self._errors[failed.job.id] = failed.error


def run_until_idle(app: App, *, within: float = 30.0, raise_failures: bool = True, **settings: Any) -> Happened:
    """Run the app's jobs until none is visible and none runs; return what happened.

    ::

        def test_welcome_mail():
            sign_up("a@b.c")                        # enqueues
            happened = run_until_idle(app)
            assert ["mail.send"] == [job.task for job in happened.succeeded]

    A job that failed fails the test, unless *raise_failures* is False: then ``happened.failed`` says which, and why. A
    job that is delayed, or rests after a failure, is not visible: ``Backoff(base=0)`` lets it run at once.
    *settings* are those of a worker: queues, concurrency, …. For a test without an event loop; arun_until_idle is
    for one with.

    Raises AssertionError, with what happened, if a job failed, something is left to do after *within* seconds, or a
    queue can't be polled.
    """
    if _is_loop_running():
        raise QworkerError("an event loop is running here: use 'await arun_until_idle(…)'")
    return asyncio.run(arun_until_idle(app, within=within, raise_failures=raise_failures, **settings))


async def arun_until_idle(app: App, *, within: float = 30.0, raise_failures: bool = True, **settings: Any) -> Happened:
    """Do the same within a running event loop; see run_until_idle."""
    happened = Happened()
    # A handler that still runs when the time is up has had it.
    with happened.watching(app):
        async with app.worker(listeners=[happened], **{"grace": 0, **settings, "burst": True}) as worker:
            try:
                async with asyncio.timeout(within):
                    await worker.stop_requested()
            except TimeoutError:
                raise AssertionError(f"not idle within {within:g} s; {happened}") from None
            if worker.failure is not None:
                raise AssertionError(worker.failure)
    if raise_failures:
        happened.raise_failures()
    return happened


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _line(what: str, its_id: str, failure: Any) -> str:
    where = f" (at {failure.where})" if failure.where else ""
    return f"{what} {its_id}: {failure}{where}"
