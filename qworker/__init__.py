"""Background jobs on Azure Storage Queue, and on an SQLite file with the same semantics."""

import qworker.system.import_path  # noqa: I001 — before all that might be the project's own by mistake
import qworker.system.interrupts  # noqa: F401 — before the rest, which takes a moment

from qworker.app import App, default_app, task
from qworker.context import INJECTED, Context, current
from qworker.defaults import TaskDefaults
from qworker.errors import (
    ConfigurationError,
    EnqueueUncertain,
    InvalidArguments,
    MessageTooLarge,
    PartlyEnqueued,
    QworkerError,
)
from qworker.failing import FailedAttempt
from qworker.job import Job
from qworker.outcome import Reject, Retry, Snooze
from qworker.retry import Backoff
from qworker.task import Task

__all__ = [
    "INJECTED",
    "App",
    "Backoff",
    "ConfigurationError",
    "Context",
    "EnqueueUncertain",
    "FailedAttempt",
    "InvalidArguments",
    "Job",
    "MessageTooLarge",
    "PartlyEnqueued",
    "QworkerError",
    "Reject",
    "Retry",
    "Snooze",
    "Task",
    "TaskDefaults",
    "current",
    "default_app",
    "task",
]
