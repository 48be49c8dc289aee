"""Facts of which there are many a second: only a listener that asks for them is told, and without one none is made."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from qworker.events import Event

Operation = Literal["get", "put", "update", "delete", "count"]
"""What a worker asks a queue for."""
Result = Literal["ok", "lost", "denied", "busy", "unreachable", "unanswered", "refused"]
"""How it was answered: done; the receipt is stale; no right; overloaded; never reached; no answer; another error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """A queue was asked for messages, and answered or failed to."""

    queue: str
    messages: int | None
    """How many came; None if it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMade:
    """A queue was asked for something."""

    queue: str
    operation: Operation
    result: Result
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewed:
    """A lease begins its length anew."""

    queue: str


Routine = Polled | RequestMade | LeaseRenewed


class RoutineListener(ABC):
    """A listener that is told of these too; called on any thread, as each listener is."""

    @abstractmethod
    def __call__(self, event: Event | Routine) -> None:
        """Take note of an event."""
