"""A job: one enqueued call of a task."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, dataclass_transform

T = TypeVar("T")

_RANDOM_BYTES: Final = 10
_DIGITS: Final = 2 * _RANDOM_BYTES
_VARIANT: Final = {digit: "89ab"[number % 4] for number, digit in enumerate("0123456789abcdef")}
"""The digit that stands for two random bits behind the bits of the variant."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _frozen_to_type_checkers(cls: type[T]) -> type[T]:
    """Make a dataclass that type checkers refuse to change; at run time, to make one would take three times as long."""
    return dataclass(slots=True)(cls)


@dataclass(frozen=True, slots=True)
class Reason:
    """What is kept of a failure beside its job."""

    type: str
    message: str


@_frozen_to_type_checkers
class Job:
    """One enqueued call of a task, its arguments as JSON values. Nothing of it is to be changed."""

    id: str
    task: str
    args: list[Any] = field(default_factory=list, repr=False)
    kwargs: dict[str, Any] = field(default_factory=dict, repr=False)
    enqueued_at: datetime | None = None
    """When the producer made it; None if the producer did not say."""
    expires_at: datetime | None = None
    """After this it is not worth starting; None means always worth it."""
    releases: int = 0
    """How many of its deliveries were given back by no fault of its own."""
    state: Any = field(default=None, repr=False)
    """What its last checkpoint saved, as a JSON value."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    last: bool = False
    """Whether it was noted that its last attempt begins, or comes next: if no outcome follows, it is given up."""
    attempts: int = 0
    """How many attempts were made of it while it was in another message, a bundle."""
    given_up: Reason | None = None
    """Why it belongs into the poison queue, which did not take it when it was given up."""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What else its envelope holds: keys of a newer version, or of a producer's own, to be written back."""

    def expired(self, now: datetime) -> bool:
        """Say whether it is too late to start it."""
        return self.expires_at is not None and now >= self.expires_at


def new_job_id() -> str:
    """Return a UUID of version 7 (RFC 9562): unique anywhere, and ordered by the time it was made."""
    (job_id,) = new_job_ids(1)
    return job_id


def new_job_ids(count: int) -> list[str]:
    """Return as many of them, made at the same time."""
    digits = f"{time.time_ns() // 1_000_000:012x}"
    moment = f"{digits[:8]}-{digits[8:]}"
    random = os.urandom(_RANDOM_BYTES * count).hex()
    return [
        f"{moment}-7{some[:3]}-{_VARIANT[some[3]]}{some[4:7]}-{some[7:19]}"
        for some in (random[at : at + _DIGITS] for at in range(0, len(random), _DIGITS))
    ]


def utc_now() -> datetime:
    """Return the wall clock's time, in UTC."""
    return datetime.now(UTC)
