"""From events to metrics for Prometheus, by prometheus-client: the extra ``metrics``."""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from qworker import events
from qworker._routine import LeaseRenewed, Polled, RequestMade, Routine, RoutineListener
from qworker.engine.guard.vitals import Vitals
from qworker.events import Event
from qworker.job import utc_now
from qworker.wire.bundle import TASK as BUNDLE_TASK

UNKNOWN: Final = "(unknown)"
"""What stands for every task that the app doesn't know: messages may name any number of them."""

_RUNS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_DELAYS: Final = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400)
_REQUESTS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_OUTCOMES: Final[dict[type[Event], str]] = {
    events.JobSucceeded: "succeeded",
    events.JobRetried: "retried",
    events.JobPoisoned: "poisoned",
    events.JobSnoozed: "snoozed",
    events.JobReleased: "released",
    events.TaskUnknown: "unknown",
    events.JobExpired: "expired",
    events.LeaseLost: "lost",
    events.SettleFailed: "unsettled",
}


class Metrics(RoutineListener):
    """A listener that counts; *tasks* are the app's, and the only ones that get a label of their own.

    Without a *registry* of prometheus-client's it makes one. A worker inside another program can be given one with
    that program's own: ``app.worker(listeners=[Metrics(app.tasks, REGISTRY)])``.
    """

    def __init__(self, tasks: Collection[str] = (), registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._tasks = tasks
        self._make_counters()
        self._make_histograms()
        self._make_gauges()
        self._of_task: dict[str, _OfTask] = {}
        self._under_way: dict[str, _OfTask] = {}
        """By the id of a job."""
        self._of_request: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._of_queue: dict[str, _OfQueue] = {}
        for task in tasks:
            self._task(task)
        self._takers: dict[type[Event | Routine], Callable[[Any], None]] = {
            events.JobStarted: self._started,
            events.MessagePoisoned: lambda _: self._messages_poisoned.inc(),
            events.RenewalFailed: lambda _: self._renewals_failed.inc(),
            events.LoopBlocked: lambda _: self._loop_blocked.inc(),
            events.ProcessDied: lambda _: self._process_deaths.inc(),
            LeaseRenewed: lambda _: self._renewals_done.inc(),
            Polled: self._polled,
            RequestMade: self._requested,
        }
        self._takers.update(dict.fromkeys(_OUTCOMES, self._ended))

    def __call__(self, event: Event | Routine) -> None:
        """Count an event."""
        take = self._takers.get(type(event))
        if take is not None:
            take(event)

    def note(self, vitals: Vitals) -> None:
        """Take what a worker says of itself now."""
        self._running.set(vitals.running)
        self._waiting.set(vitals.waiting)
        self._slots.set(vitals.slots)
        self._workers.set(1)

    def note_lengths(self, lengths: Mapping[str, int]) -> None:
        """Take the lengths of all queues; of one that is not among them, none is known."""
        self._queue_length.clear()
        for queue, length in lengths.items():
            self._queue_length.labels(queue).set(length)

    def _make_counters(self) -> None:
        self._jobs = self._counter("jobs", "Attempts of jobs that ended, by what became of them", "task", "outcome")
        self._leases_lost = self._counter("leases_lost", "Jobs whose message another worker may have")
        renewals = self._counter("lease_renewals", "Renewals of leases", "result")
        self._renewals_done, self._renewals_failed = renewals.labels("ok"), renewals.labels("failed")
        self._polls = self._counter("polls", "Polls of queues that ended, by what they brought", "queue", "result")
        self._messages = self._counter("messages_received", "Messages received", "queue")
        self._requests = self._counter("broker_requests", "Requests to the broker", "operation", "result")
        self._messages_poisoned = self._counter("messages_poisoned", "Messages given up that were no jobs at all")
        self._loop_blocked = self._counter("loop_blocked", "Times that an event loop was found not to turn")
        self._process_deaths = self._counter("process_deaths", "Worker processes that ended unasked")

    def _make_histograms(self) -> None:
        self._duration = self._histogram("job_duration_seconds", "How long handlers ran", _RUNS, "task")
        self._delay = self._histogram("job_delay_seconds", "From enqueueing to the first attempt", _DELAYS, "task")
        about = "How long the broker took to answer"
        self._request_seconds = self._histogram("broker_request_seconds", about, _REQUESTS, "operation")

    def _make_gauges(self) -> None:
        self._running = self._gauge("jobs_running", "Jobs that run now")
        self._task_running = self._gauge("task_jobs_running", "Jobs of a task that were begun and not ended", "task")
        self._waiting = self._gauge("jobs_waiting", "Jobs that were received and have not started")
        self._slots = self._gauge("slots", "Jobs that can run at once")
        self._workers = self._gauge("workers", "Worker processes")
        self._queue_length = self._gauge("queue_length", "Messages in a queue, about, invisible ones too", "queue")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"qworker_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"qworker_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"qworker_{name}", about, labels, registry=self.registry, buckets=buckets)

    def _started(self, event: events.JobStarted) -> None:
        job = event.job
        if job.id not in self._under_way:
            of_task = self._under_way[job.id] = self._task(job.task)
            of_task.running.inc()
        if event.attempt == 1 and not job.releases and job.enqueued_at is not None:
            seconds = (utc_now() - job.enqueued_at).total_seconds()
            self._task(job.task).delay.observe(max(0.0, seconds))  # clocks differ

    def _ended(self, event: events.JobEvent) -> None:
        task = self._task(event.job.task)
        task.outcomes[type(event)].inc()
        if (under_way := self._under_way.pop(event.job.id, None)) is not None:
            under_way.running.dec()
        if isinstance(event, events.JobSucceeded | events.JobRetried | events.JobPoisoned) and event.seconds:
            task.duration.observe(event.seconds)
        elif isinstance(event, events.LeaseLost):
            self._leases_lost.inc()

    def _task(self, name: str) -> "_OfTask":
        """Return a task's own metrics: they are looked up once."""
        of_task = self._of_task.get(name)
        if of_task is None:
            known = name in self._tasks or name == BUNDLE_TASK
            name = name if known else UNKNOWN
            of_task = self._of_task.get(name) or self._of_task.setdefault(name, _OfTask(self, name))
        return of_task

    def _polled(self, event: Polled) -> None:
        of_queue = self._of_queue.get(event.queue)
        if of_queue is None:
            of_queue = self._of_queue.setdefault(event.queue, _OfQueue(self, event.queue))
        if event.messages:
            of_queue.brought.inc()
            of_queue.messages.inc(event.messages)
        else:
            (of_queue.failed if event.messages is None else of_queue.empty).inc()

    def _requested(self, event: RequestMade) -> None:
        key = event.operation, event.result
        found = self._of_request.get(key)
        if found is None:
            found = self._requests.labels(*key), self._request_seconds.labels(event.operation)
            self._of_request[key] = found
        found[0].inc()
        found[1].observe(event.seconds)


class _OfQueue:
    """The metrics of one queue."""

    def __init__(self, metrics: Metrics, queue: str) -> None:
        polls = metrics._polls  # noqa: SLF001 — a part of it
        self.brought, self.empty = polls.labels(queue, "messages"), polls.labels(queue, "empty")
        self.failed = polls.labels(queue, "failed")
        self.messages = metrics._messages.labels(queue)  # noqa: SLF001 — the same


class _OfTask:
    """The metrics of one task; what counts from nought on is there from the beginning, so that the first is seen."""

    def __init__(self, metrics: Metrics, task: str) -> None:
        self._metrics = metrics
        self._task = task
        jobs = metrics._jobs  # noqa: SLF001 — a part of it
        self.outcomes = {kind: jobs.labels(task, outcome) for kind, outcome in _OUTCOMES.items()}
        self.running = metrics._task_running.labels(task)  # noqa: SLF001 — the same

    @cached_property
    def duration(self) -> Histogram:
        return self._metrics._duration.labels(self._task)  # noqa: SLF001 — the same

    @cached_property
    def delay(self) -> Histogram:
        return self._metrics._delay.labels(self._task)  # noqa: SLF001 — the same
