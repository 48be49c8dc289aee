"""One message's way from leased to settled: decode, refuse or run, decide, settle, tell."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

from qworker._faultpoints import faultpoint
from qworker._queue_names import poison_queue_of
from qworker.context import context_of
from qworker.engine.attempt import Attempt, Received
from qworker.engine.bundles import Bundle, Part
from qworker.engine.run.runner import Run, Runner, worker_lost
from qworker.engine.settle.decide import decide
from qworker.engine.settle.hooks import ErrorHooks
from qworker.engine.settle.report import event_of
from qworker.engine.settle.settler import Settler
from qworker.errors import BrokerError, InvalidEnvelope, LeaseLost, MessageTooLarge
from qworker.events import BundleSplit, Event, JobEvent, JobStarted, JobStuck, MessagePoisoned, SettleFailed
from qworker.events import LeaseLost as LeaseLostEvent
from qworker.failing import ErrorHook
from qworker.job import Job
from qworker.outcome import Action, Failure, Lost, Outcome, Released
from qworker.retry import RetryPolicy
from qworker.task import Task
from qworker.wire.bodies import Encoding, is_plain
from qworker.wire.bundle import contents_of, may_be_bundle
from qworker.wire.envelope import decode


class Pipeline:
    """Takes messages from leased to settled, each by itself; nothing that happens to one touches another."""

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        runner: Runner,
        settler: Settler,
        emit: Callable[[Event], None],
        error_hooks: Iterable[ErrorHook] = (),
    ) -> None:
        self._tasks = tasks
        self._runner = runner
        self._settler = settler
        self._emit = emit
        self._hooks = ErrorHooks(error_hooks)
        self._runs: set[Run] = set()

    def open(self, received: Received) -> list[Received]:
        """Return what a message has to be handled as: by each of its jobs if it is a bundle, else as it is."""
        message = received.message
        if not may_be_bundle(message.body):
            return [received]
        try:
            contents = contents_of(message.body, message_id=message.id, deliveries=message.dequeue_count)
        except InvalidEnvelope as error:
            return [replace(received, content=error)]
        if contents is None:
            return [received]
        encoding: Encoding = "text" if is_plain(message.body) else "base64"
        bundle = Bundle(received.lease, contents, dequeue_count=message.dequeue_count, encoding=encoding)
        if bundle.number > 1 or not bundle.parts:
            return [replace(received, content=bundle)]
        return [replace(received, content=part) for part in bundle.parts]

    async def handle(self, received: Received, leave_slot: Callable[[], None]) -> None:
        """Run a message's job and settle it; *leave_slot* is called in between, when its handler is done."""
        if isinstance(received.content, Bundle):
            leave_slot()
            await self._split(received, received.content)
            return
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
        if isinstance(received.content, Bundle):
            await self._finish(received, received.content)
            return
        try:
            attempt = self._attempt(received)
        except InvalidEnvelope as error:
            await self._give_up(received, Failure.of(error))
        else:
            await self._settle(attempt, Released(reason))

    def must_be_alone(self, received: Received) -> bool:
        """Say whether no other job may run beside a message's."""
        if received.content is not None:
            return False
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
        match received.content:
            case None:
                message = received.message
                job = decode(message.body, message_id=message.id, deliveries=message.dequeue_count)
            case Part() as part:
                job = part.job()
            case InvalidEnvelope() as error:
                raise error
            case Bundle() as bundle:
                job = bundle.job
            case _:
                assert_never(received.content)
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
                if (tracing := self._runner.tracing) is None:
                    return await run.outcome()
                return await tracing.process(attempt.job, attempt.queue, attempt.number, run.outcome())
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
        self._hooks.tell(attempt, outcome, action)
        await self._end_part(attempt.received)

    async def _end_part(self, received: Received) -> None:
        """Have a bundle settled with the last of its parts."""
        if received.part is not None and received.part.bundle.end(received.part):
            await self._finish(received, received.part.bundle)

    async def _finish(self, received: Received, bundle: Bundle) -> None:
        try:
            await self._settler.finish(bundle)
        except Exception as error:  # noqa: BLE001 — the same
            self._emit(_bundle_failed(received, bundle, "reappear" if bundle.left else "delete", error))

    async def _split(self, received: Received, bundle: Bundle) -> None:
        """Have a bundle's jobs run one by one: it was delivered before, and one of them may have ended its worker."""
        jobs = len(bundle.left)
        try:
            await self._settler.split(bundle, received.queue)
        except Exception as error:  # noqa: BLE001 — the same
            self._emit(_bundle_failed(received, bundle, "split", error))
        else:
            deliveries = received.message.dequeue_count
            self._emit(BundleSplit(message_id=bundle.id, queue=received.queue, jobs=jobs, dequeue_count=deliveries))

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
        await self._end_part(received)

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


def _bundle_failed(received: Received, bundle: Bundle, action: str, error: Exception) -> JobEvent:
    attempt = received.message.dequeue_count
    if isinstance(error, LeaseLost):
        return LeaseLostEvent(job=bundle.job, queue=received.queue, attempt=attempt, reason=str(error))
    return SettleFailed(job=bundle.job, queue=received.queue, attempt=attempt, action=action, reason=_text(error))


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
