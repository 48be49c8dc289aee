"""A worker that runs until nothing is left to do, for an application's tests."""

import asyncio
from typing import Any

from qworker.app import App
from qworker.testing.events import EventRecorder


def run_until_idle(app: App, *, within: float = 30.0, **settings: Any) -> EventRecorder:
    """Run the app's jobs until none is visible and none runs; return what happened.

    ::

        def test_welcome_mail():
            sign_up("a@b.c")                        # enqueues
            happened = run_until_idle(app)
            assert ["mail.send"] == [event.job.task for event in happened.of(JobSucceeded)]

    A job that is delayed, or rests after a failure, is not visible: ``Backoff(base=0)`` lets it run at once.
    *settings* are those of a worker: queues, concurrency, …. For a test without an event loop; arun_until_idle is
    for one with.

    Raises AssertionError, with what happened, if something is left to do after *within* seconds, or a queue can't be
    polled.
    """
    return asyncio.run(arun_until_idle(app, within=within, **settings))


async def arun_until_idle(app: App, *, within: float = 30.0, **settings: Any) -> EventRecorder:
    """Do the same within a running event loop; see run_until_idle."""
    happened = EventRecorder()
    # A handler that still runs when the time is up has had it.
    async with app.worker(listeners=[happened], **{"grace": 0, **settings, "burst": True}) as worker:
        try:
            async with asyncio.timeout(within):
                await worker.stop_requested()
        except TimeoutError:
            raise AssertionError(f"not idle within {within:g} s; {happened}") from None
        if worker.failure is not None:
            raise AssertionError(worker.failure)
    return happened
