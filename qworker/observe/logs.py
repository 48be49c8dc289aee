"""From events to log lines, one line an event. Arguments and secrets are never logged."""

import logging
import time
from typing import Any, Final, assert_never

from qworker import events
from qworker._distribution import install
from qworker.lines.records import write
from qworker.outcome import Failure
from qworker.retry import UNKNOWN_TASK
from qworker.settings import LogLevel

_FAILING_EVERY: Final = 30.0
"""Seconds between two lines about a queue that still can't be polled, or whose leases can't be renewed."""
_UNKNOWN_NAMED: Final = 100
"""Unknown tasks that are told of above level debug."""
Line = tuple[LogLevel, str, dict[str, Any]]
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class EventLog:
    """A listener that writes each event as one line of the logger "qworker", if its level lets it."""

    def __init__(self) -> None:
        self._log = logging.getLogger("qworker")
        self._failing: dict[tuple[type[events.Event], str] | None, float] = {}
        """When which failure of which queue was last told; None: that all access is denied."""
        self._unknown = set[str]()
        """Tasks that the app doesn't have, and of which that was told."""

    def __call__(self, event: events.Event) -> None:
        """Write the event."""
        self._log.disabled = False  # dictConfig and fileConfig disable all loggers, unless they are told otherwise
        if self._is_unheard(event):
            return
        if isinstance(event, events.PollFailed | events.RenewalFailed) and not self._is_news(event):
            return
        if isinstance(event, events.PollRecovered):
            self._failing.pop((events.PollFailed, event.queue), None)
            self._failing.pop(None, None)
        level, name, fields = line_of(event)
        if isinstance(event, events.TaskUnknown) and not self._is_first(event):
            level = "debug"
        if self._log.isEnabledFor(_LEVELS[level]):
            write(self._log, _LEVELS[level], name, fields, code=_CODE)

    def _is_unheard(self, event: events.Event) -> bool:
        """Say whether it is one of the two that each job has, and below the level: not even a line is made of it."""
        if isinstance(event, events.JobStarted):
            return not event.alone and not self._log.isEnabledFor(logging.DEBUG)
        return isinstance(event, events.JobSucceeded) and not self._log.isEnabledFor(logging.INFO)

    def _is_first(self, event: events.TaskUnknown) -> bool:
        """Say whether no other job of this task was unknown before; messages may name any number of tasks."""
        if event.job.task in self._unknown or len(self._unknown) >= _UNKNOWN_NAMED:
            return False
        self._unknown.add(event.job.task)
        return True

    def _is_news(self, event: events.PollFailed | events.RenewalFailed) -> bool:
        now, failing = time.monotonic(), None if event.everywhere else (type(event), event.queue)
        if now - self._failing.get(failing, -_FAILING_EVERY) < _FAILING_EVERY:
            return False
        self._failing[failing] = now
        return True


_CODE: Final = EventLog.__call__.__code__


def line_of(event: events.Event) -> Line:  # noqa: C901, PLR0911 — a table of events
    """Return an event's log level, name and fields."""
    match event:
        case events.MessagePoisoned():
            fields = {"message": event.message_id, "queue": event.queue, "moved_to": event.poison_queue}
            return "error", "message.poisoned", fields | _failure(event.failure)
        case events.BundleSplit():
            reason = f"its delivery {event.dequeue_count - 1} was not finished"
            where = {"queue": event.queue, "bundle": event.message_id}
            return "warning", "bundle.split", {"jobs": event.jobs, "reason": reason, **where}
        case events.LoopBlocked():
            job = {"task": event.job.task, "job": event.job.id} if event.job else {}
            return "warning", "loop.blocked", {**job, "at": event.where, "seconds": _rounded(event.seconds)}
        case (
            events.PollFailed()
            | events.PollRecovered()
            | events.RightMissing()
            | events.RenewalFailed()
            | events.QueueUnused()
        ):
            level, name, fields = _queue_line(event)
            return level, name, {"queue": event.queue} | fields
        case events.QueueThrottled():
            return "warning", "queue.throttled", {"queue": event.queue, "rate": f"{event.rate:.0f}/s"}
        case events.QueueUnthrottled():
            return "info", "queue.unthrottled", {"queue": event.queue, "after": f"{event.seconds:.0f}s"}
        case events.SupervisorStarted():
            return "info", "supervisor.started", {"processes": event.processes, "reload": event.reload}
        case events.ProcessDied():
            restart_in = f"{event.restart_in:g}s"
            pid = {} if event.pid is None else {"pid": event.pid}
            return "error", "process.died", {**pid, "how": event.how, "restart_in": restart_in}
        case events.Reloading():
            return "info", "reloading", {"files": ", ".join(event.files)}
        case events.HealthServed():
            needs = {} if event.metrics else {"metrics": f"none: {install('metrics')}"}
            return "info", "health.served", {"port": event.port, "at": "/live /ready /metrics", **needs}
        case events.WorkerStarted() | events.WorkerStopping() | events.WorkerStopped():
            return _worker_line(event)
        case _:
            return _job_line(event)


def _queue_line(
    event: events.PollFailed | events.PollRecovered | events.RightMissing | events.RenewalFailed | events.QueueUnused,
) -> Line:
    match event:
        case events.PollFailed():
            return "error", "poll.failed", {"reason": event.reason, "retry_in": f"{event.retry_in:.1f}s"}
        case events.PollRecovered():
            return "info", "poll.recovered", {"after": f"{event.seconds:.1f}s"}
        case events.RightMissing():
            return "error", "right.missing", {"to": event.right, "reason": event.reason}
        case events.RenewalFailed():
            fields = {"reason": event.reason, "retry_in": f"{event.retry_in:.1f}s", "message": event.message_id}
            return "error" if event.denied else "warning", "renewal.failed", fields
        case events.QueueUnused():
            meant = {} if event.near is None else {"meant": event.near}
            reason = "no task of the app uses it: only using(queue=…) or another program puts jobs there"
            return "warning", "queue.unused", {**meant, "reason": reason}
        case _:
            assert_never(event)


def _worker_line(event: events.WorkerStarted | events.WorkerStopping | events.WorkerStopped) -> Line:
    fields: dict[str, Any]
    match event:
        case events.WorkerStarted():
            fields = {"broker": event.broker, "queues": ",".join(event.queues), "tasks": event.tasks}
            fields |= {"concurrency": event.concurrency, "lease": f"{event.lease}s"}
            name = "worker.started"
        case events.WorkerStopping():
            fields = {"reason": event.reason, "running": event.running, "grace": f"{event.grace:g}s"}
            name = "worker.stopping"
        case events.WorkerStopped():
            fields = {"succeeded": event.succeeded, "failed_attempts": event.failed, "released": event.released}
            name = "worker.stopped"
        case _:
            assert_never(event)
    return "info", name, {**fields, "worker": event.worker}


def _job_line(event: events.JobEvent) -> Line:
    """Say first what is read first at night: which task, which attempt, what of it; the ids come last."""
    level, name, fields = _what_happened(event)
    where = {"queue": event.queue, "job": event.job.id}
    return level, name, {"task": event.job.task, "attempt": event.attempt} | fields | where


def _what_happened(event: events.JobEvent) -> Line:  # noqa: C901, PLR0911, PLR0912 — a table of events
    match event:
        case events.JobStarted(alone=True):
            return "warning", "job.started_alone", {"reason": "workers were lost with it, and this is its last attempt"}
        case events.JobStarted():
            return "debug", "job.started", {}
        case events.JobSucceeded():
            return "info", "job.succeeded", {"seconds": _rounded(event.seconds)}
        case events.JobRetried():
            tries = {"attempt": f"{event.attempt}/{event.max_attempts}", "retry_in": f"{event.after}s"}
            return "warning", "job.retried", tries | _failure(event.failure)
        case events.JobSnoozed():
            return "info", "job.snoozed", {"back_in": f"{event.after}s", "reason": event.reason}
        case events.JobReleased():
            return "info", "job.released", {"reason": event.reason}
        case events.TaskUnknown():
            tries = {"deliveries": f"{event.deliveries}/{UNKNOWN_TASK.max_attempts}", "retry_in": f"{event.after}s"}
            return "warning", "task.unknown", tries | {"error": str(event.failure), "hint": _whose(event.job.task)}
        case events.JobExpired():
            return "warning", "job.expired", {}
        case events.JobPoisoned():
            return "error", "job.poisoned", {"moved_to": event.poison_queue} | _failure(event.failure)
        case events.LeaseLost():
            return "error", "lease.lost", {"reason": event.reason}
        case events.SettleFailed():
            return "error", "settle.failed", {"action": event.action, "reason": event.reason}
        case events.JobStuck():
            return "error", "job.stuck", {"seconds": _rounded(event.seconds)}
        case _:
            assert_never(event)


def _failure(failure: Failure) -> dict[str, Any]:
    where = {"at": failure.where} if failure.where else {}
    return {"error": str(failure), **where, "traceback": failure.traceback}


def _whose(task: str) -> str:
    module = task.rpartition(".")[0]
    other = f"'qworker run {module}' may know it" if module else "another app may know it"
    return f"{other}: apps that share a queue hand each other's jobs back; give each a queue of its own"


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
