"""Facts that the engine emits, and that logs, metrics and tests listen to.

A listener is called on the thread that noticed the fact, mostly the event loop's, at times the lease keeper's: it must
be quick and safe to call from any thread.
"""

from collections.abc import Callable
from dataclasses import dataclass

from qworker.brokers.base import Right
from qworker.job import Job
from qworker.outcome import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted:
    """A worker polls its queues from now on."""

    worker: str
    broker: str
    queues: tuple[str, ...]
    tasks: int
    concurrency: int
    lease: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopping:
    """A worker takes no more messages; what runs may end within the grace."""

    worker: str
    reason: str
    running: int
    grace: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopped:
    """A worker has ended; all its messages are settled or released."""

    worker: str
    succeeded: int
    failed: int
    released: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted:
    """A handler begins."""

    job: Job
    queue: str
    attempt: int
    alone: bool = False
    """Whether no other is started beside it for a while: workers were lost with it, and this is its last attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSucceeded:
    """A handler returned, and its message is deleted; one of a bundle will be, or is written without this job."""

    job: Job
    queue: str
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRetried:
    """An attempt failed; the same message reappears."""

    job: Job
    queue: str
    attempt: int
    max_attempts: int
    after: int
    failure: Failure
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSnoozed:
    """A handler asked to be called later; no attempt is spent."""

    job: Job
    queue: str
    attempt: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReleased:
    """A worker gave a job back unfinished, visible at once; no attempt is spent."""

    job: Job
    queue: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUnknown:
    """A worker gave back a job whose task its app doesn't have; no attempt is spent, as another worker may know it."""

    job: Job
    queue: str
    attempt: int
    deliveries: int
    """How many workers didn't know it so far."""
    after: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class JobExpired:
    """A job's time to live ended before it started; its message is deleted."""

    job: Job
    queue: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPoisoned:
    """A job was given up and is in the poison queue."""

    job: Job
    queue: str
    attempt: int
    poison_queue: str
    failure: Failure
    seconds: float = 0.0
    """How long its handler ran; 0 if it was not called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePoisoned:
    """A message that is no job at all was moved to the poison queue."""

    message_id: str
    queue: str
    dequeue_count: int
    poison_queue: str
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSplit:
    """A bundle came back unfinished; each of its jobs that was not settled has a message of its own now."""

    message_id: str
    queue: str
    jobs: int
    dequeue_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost:
    """A job's message belongs to someone else, or soon will; its handler is cancelled if it still runs."""

    job: Job
    queue: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleFailed:
    """The broker didn't take what a job came to: the message reappears when its lease ends, and the job runs again."""

    job: Job
    queue: str
    attempt: int
    action: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStuck:
    """A handler was told to stop and does not; its slot and its lease are held until it does."""

    job: Job
    queue: str
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked:
    """The event loop has not turned for a while: a handler computes or waits without ``await``."""

    seconds: float
    job: Job | None
    where: str
    """The innermost line that runs there, as file:line in function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RightMissing:
    """The credential may not do to a queue what the worker will have to; told once, when the worker has begun."""

    queue: str
    right: Right
    reason: str
    """What is denied, and which permission or role it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalFailed:
    """A lease couldn't be renewed; that is tried again, as long as the lease lasts."""

    queue: str
    message_id: str
    reason: str
    retry_in: float
    denied: bool
    """Whether the credential may not renew: more tries don't help."""
    everywhere: bool = False
    """Whether all access is denied: the same is told of every queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollFailed:
    """A queue couldn't be polled; it is tried again."""

    queue: str
    reason: str
    retry_in: float
    lasting: bool = False
    """Whether it takes a person: the queue is not there, or the credential may not poll it."""
    everywhere: bool = False
    """Whether all access is denied: the same is told of every queue."""
    unusable: bool = False
    """Whether the broker's file can't be used as it is; if that lasts, the worker ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRecovered:
    """A queue answers again."""

    queue: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueThrottled:
    """A queue refuses more than it is asked now: requests to it are spaced."""

    queue: str
    rate: float
    """Requests a second, of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUnthrottled:
    """A queue takes all that it is asked again."""

    queue: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorStarted:
    """Several worker processes are kept running from now on."""

    processes: int
    reload: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessDied:
    """A worker process ended unasked, or could not be started; another takes its place."""

    pid: int | None
    how: str
    restart_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloading:
    """Source files changed: the worker processes are replaced."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthServed:
    """Probes and Prometheus may ask from now on."""

    port: int
    metrics: bool
    """Whether there are any: what they take may not be installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUnused:
    """A queue is to be polled that no task of the app uses: its name may be misspelt."""

    queue: str
    near: str | None
    """The queue of the app's tasks that is spelt nearly the same."""


JobEvent = (
    JobStarted
    | JobSucceeded
    | JobRetried
    | JobSnoozed
    | JobReleased
    | TaskUnknown
    | JobExpired
    | JobPoisoned
    | LeaseLost
    | SettleFailed
    | JobStuck
)
Event = (
    JobEvent
    | BundleSplit
    | MessagePoisoned
    | LoopBlocked
    | RightMissing
    | RenewalFailed
    | PollFailed
    | PollRecovered
    | QueueThrottled
    | QueueUnthrottled
    | WorkerStarted
    | WorkerStopping
    | WorkerStopped
    | SupervisorStarted
    | ProcessDied
    | Reloading
    | HealthServed
    | QueueUnused
)
Listener = Callable[[Event], None]
