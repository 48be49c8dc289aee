"""One message's way from leased to settled: decode, refuse or run, decide, settle, tell."""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from qworker.context import context_of
from qworker.engine.attempt import Attempt, Received
from qworker.engine.decide import decide
from qworker.engine.faultpoints import faultpoint
from qworker.engine.report import event_of
from qworker.engine.runner import Run, Runner, worker_lost
from qworker.engine.settler import Settler
from qworker.envelope import decode
from qworker.errors import BrokerError, InvalidEnvelope, LeaseLost, MessageTooLarge
from qworker.events import Event, JobStarted, JobStuck, MessagePoisoned, SettleFailed
from qworker.events import LeaseLost as LeaseLostEvent
from qworker.job import Job
from qworker.outcome import Action, Failure, Lost, Outcome, Released
from qworker.retry import RetryPolicy
from qworker.task import Task, poison_queue_of


class Pipeline:
    """Takes messages from leased to settled, each by itself; nothing that happens to one touches another."""

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        runner: Runner,
        settler: Settler,
        emit: Callable[[Event], None],
    ) -> None:
        self._tasks = tasks
        self._runner = runner
        self._settler = settler
        self._emit = emit
        self._runs: set[Run] = set()

    async def handle(self, received: Received, leave_slot: Callable[[], None]) -> None:
        """Run a message's job and settle it; *leave_slot* is called in between, when its handler is done."""
        try:
            attempt = self._attempt(received)
            outcome = self._runner.refuse(attempt) or await self._note_last(attempt) or await self._run(attempt)
            faultpoint("after-handler")
        except InvalidEnvelope as error:
            leave_slot()
            await self._give_up(received, Failure.of(error))
        except BaseException:
            leave_slot()  # whatever it is, it must not cost a slot for ever
            raise
        else:
            leave_slot()
            await self._settle(attempt, outcome)

    async def release(self, received: Received, reason: str) -> None:
        """Give a message back whose job has not begun."""
        try:
            attempt = self._attempt(received)
        except InvalidEnvelope as error:
            await self._give_up(received, Failure.of(error))
        else:
            await self._settle(attempt, Released(reason))

    def must_be_alone(self, received: Received) -> bool:
        """Say whether no other job may run beside a message's."""
        try:
            return received.message.dequeue_count > 1 and self._attempt(received).alone
        except InvalidEnvelope:
            return False

    def stop_all(self, reason: str) -> None:
        """Tell all handlers to stop, and release their jobs."""
        for run in tuple(self._runs):
            run.stop(Released(reason))

    def report_stuck(self) -> None:
        """Tell of each handler that is still running."""
        for run in self._runs:
            self._stuck(run.attempt)

    def job_of(self, task: asyncio.Task[Any] | None) -> Job | None:
        """Return the job that an asyncio task belongs to, if that can be told; safe to call from another thread."""
        for run in tuple(self._runs):
            if run.runs_in(task):
                return run.attempt.job
        ctx = context_of(task)
        return None if ctx is None else ctx.job

    def _attempt(self, received: Received) -> Attempt:
        job = decode(received.message.body, message_id=received.message.id)
        return Attempt(received, job, self._tasks.get(job.task))

    async def _note_last(self, attempt: Attempt) -> Outcome | None:
        """Have the message say that it begins a last attempt that may end the worker; return why it can't begin."""
        if not attempt.alone:
            return None
        try:
            await self._settler.note_last(attempt)
        except MessageTooLarge:  # nothing would tell the next delivery from this one
            return worker_lost(attempt) if attempt.number > attempt.max_attempts else None
        except LeaseLost:
            return Lost()
        except BrokerError as error:
            return Released(str(error))
        return Lost() if attempt.lease.lost else None

    async def _run(self, attempt: Attempt) -> Outcome:
        run = self._runner.prepare(attempt, partial(self._settler.save_state, attempt))
        run.on_stuck = partial(self._stuck, attempt)
        attempt.started = time.monotonic()
        self._emit(
            JobStarted(job=attempt.job, queue=attempt.queue, attempt=attempt.number, alone=attempt.alone),
        )
        self._runs.add(run)
        faultpoint("before-handler")
        try:
            with attempt.lease.when_lost(partial(run.stop_from_thread, Lost())):
                return await run.outcome()
        finally:
            self._runs.discard(run)

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        policy = attempt.task.options.policy if attempt.task else RetryPolicy()
        action = decide(outcome, attempt=attempt.number, policy=policy)
        event: Event = event_of(attempt, outcome, action, max_attempts=policy.max_attempts)
        try:
            await self._settler.settle(attempt, action)
        except LeaseLost as error:
            event = LeaseLostEvent(job=attempt.job, queue=attempt.queue, attempt=attempt.number, reason=str(error))
        except Exception as error:  # noqa: BLE001 — whatever a broker does, the message comes back when its lease ends
            event = _settle_failed(attempt, outcome, action, error)
        self._emit(event)

    async def _give_up(self, received: Received, failure: Failure) -> None:
        """Move a message that is no job to the poison queue."""
        message, queue = received.message, received.queue
        event: Event = MessagePoisoned(
            message_id=message.id,
            queue=queue,
            dequeue_count=message.dequeue_count,
            poison_queue=poison_queue_of(queue),
            failure=failure,
        )
        try:
            await self._settler.poison_message(received, failure)
        except Exception as error:  # noqa: BLE001 — the same
            job = Job(message.id, "unknown")
            event = SettleFailed(
                job=job,
                queue=queue,
                attempt=message.dequeue_count,
                action="poison",
                reason=_text(error),
            )
        self._emit(event)

    def _stuck(self, attempt: Attempt) -> None:
        self._emit(JobStuck(job=attempt.job, queue=attempt.queue, attempt=attempt.number, seconds=attempt.seconds))


def _settle_failed(attempt: Attempt, outcome: Outcome, action: Action, error: Exception) -> SettleFailed:
    failure = getattr(outcome, "failure", None)  # why the job failed would be in no other line
    return SettleFailed(
        job=attempt.job,
        queue=attempt.queue,
        attempt=attempt.number,
        action=type(action).__name__.lower(),
        reason=_text(error) if failure is None else f"{_text(error)} (the job had failed: {failure})",
    )


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
