"""What tests need: of an application that uses qworker, and of a broker.

The suite that a broker must pass is in ``qworker.testing.contract``, which needs pytest; random histories of a queue
are in ``qworker.testing.model``, which needs hypothesis.
"""

from qworker.testing.clock import FakeClock
from qworker.testing.context import make_context, running
from qworker.testing.events import EventRecorder
from qworker.testing.worker import Happened, arun_until_idle, run_until_idle

__all__ = [
    "EventRecorder",
    "FakeClock",
    "Happened",
    "arun_until_idle",
    "make_context",
    "run_until_idle",
    "running",
]
