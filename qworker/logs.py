"""From events to log lines, and the only place where structlog and logging are configured.

One line an event: for people on a terminal, JSON elsewhere. Arguments and secrets are never logged.
"""

import bisect
import json
import logging
import re
import sys
import textwrap
import time
from datetime import datetime
from typing import Any, Final, assert_never

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from qworker import events
from qworker._distribution import install
from qworker.outcome import Failure
from qworker.retry import UNKNOWN_TASK
from qworker.settings import LogFormat, LogLevel

_MAX_FIELD: Final = 2_048
"""Bytes of a field as it is written; its middle gives way."""
_GAP: Final = " … "
_LONGEST_ESCAPE: Final = 7
"""Bytes that one character may become: U+2028 is written as \\\\u2028."""
_FAILING_EVERY: Final = 30.0
"""Seconds between two lines about a queue that still can't be polled, or whose leases can't be renewed."""
_UNKNOWN_NAMED: Final = 100
"""Unknown tasks that are told of above level debug."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_OF_SEVERAL_LINES: Final = frozenset({"exception", "traceback"})
Line = tuple[LogLevel, str, dict[str, Any]]
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: LogLevel, log_format: LogFormat) -> None:
    """Send this process's logs, structlog's and those of ``logging``, to standard error."""
    pretty = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _time_of_day if pretty else structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([_show_traceback_if_asked] if pretty else []),
        structlog.processors.format_exc_info,
        _tidy,
        *([_indent_traceback] if pretty else []),
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=17, sort_keys=False)
        if pretty
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        ),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    # The SDK logs each request, with headers and query, at INFO and DEBUG: too much, and too near the secrets. What its
    # core says of an answer that it can't read, our own errors say in one line.
    logging.getLogger("azure").setLevel(logging.WARNING)
    logging.getLogger("azure.core").setLevel(logging.CRITICAL + 1)
    logging.captureWarnings(True)


class EventLog:
    """A listener that writes each event as one log line, unless it is known to be below *level*."""

    def __init__(self, level: LogLevel = "debug") -> None:
        self._level = _LEVELS[level]
        self._log = structlog.get_logger("qworker")
        self._failing: dict[tuple[type[events.Event], str] | None, float] = {}
        """When which failure of which queue was last told; None: that all access is denied."""
        self._unknown = set[str]()
        """Tasks that the app doesn't have, and of which that was told."""

    def __call__(self, event: events.Event) -> None:
        """Write the event."""
        if self._is_routine(event):
            return
        if isinstance(event, events.PollFailed | events.RenewalFailed) and not self._is_news(event):
            return
        if isinstance(event, events.PollRecovered):
            self._failing.pop((events.PollFailed, event.queue), None)
            self._failing.pop(None, None)
        level, name, fields = line_of(event)
        if isinstance(event, events.TaskUnknown) and not self._is_first(event):
            level = "debug"
        self._log.log(_LEVELS[level], name, **fields)

    def _is_routine(self, event: events.Event) -> bool:
        """Say whether it is one of the two that each job has, and not worth more than to be dropped at once."""
        if isinstance(event, events.JobStarted):
            return self._level > _LEVELS["debug"] and not event.alone
        return self._level > _LEVELS["info"] and isinstance(event, events.JobSucceeded)

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


def _time_of_day(_logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    event["timestamp"] = datetime.now().astimezone().isoformat(timespec="milliseconds")[11:23]
    return event


def _show_traceback_if_asked(_logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    """On a terminal, a traceback is shown below its line, and only at level debug: the line says what and where."""
    traceback = event.pop("traceback", "")
    if traceback and logging.getLogger().isEnabledFor(logging.DEBUG):
        event["exception"] = traceback.rstrip()
    return event


def _tidy(_logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    """Keep each field to a length that logs can bear, free of control characters, and to one line but for tracebacks.

    What is no text, number or the like becomes one if it would be too long.
    """
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _tidied(value, _CONTROL_IN_LINES if key in _OF_SEVERAL_LINES else _CONTROL)
        elif value is not None and not isinstance(value, bool | int | float):
            event[key] = _bearable(value)
    return event


def _indent_traceback(_logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    """On a terminal, let nothing in a traceback look like a log line."""
    if "exception" in event:
        event["exception"] = textwrap.indent(event["exception"], "    ")
    return event


def _bearable(value: object) -> object:
    """Return a value as it is, or as a text if it is too large for a line, or not fit for one."""
    try:
        text = json.dumps(value, default=repr, ensure_ascii=False)
    except Exception:  # noqa: BLE001 — keys that are no texts, a circle, a __repr__ that fails
        return f"<{type(value).__name__}>"
    fits = len(text) <= _MAX_FIELD and _written(text) <= _MAX_FIELD and not _CONTROL.search(text)
    return value if fits else _tidied(text, _CONTROL)


def _tidied(text: str, control: re.Pattern[str]) -> str:
    if len(text) <= _MAX_FIELD:
        whole = control.sub(_escaped, text)
        if len(text) * _LONGEST_ESCAPE <= _MAX_FIELD or _written(whole) <= _MAX_FIELD:
            return whole
    half = (_MAX_FIELD - _written(_GAP)) // 2
    first = control.sub(_escaped, text[:half])
    last = control.sub(_escaped, text[-half:])
    return first[: _fitting(first, half)] + _GAP + last[len(last) - _fitting(last[::-1], half) :]


def _fitting(text: str, size: int) -> int:
    """Return how many characters of the text's beginning fit into *size* bytes."""
    return bisect.bisect_right(range(len(text)), size, key=lambda count: _written(text[:count])) - 1


def _written(text: str) -> int:
    """Return the bytes that a text takes in a line, where some characters have to be escaped."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
