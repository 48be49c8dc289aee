"""A job: one enqueued call of a task."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
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
    ttl: int | None = None
    """Seconds after its put that it is worth starting for; None means always."""
    expires_at: datetime | None = None
    """After this it is not worth starting: another way to say a ttl, for producers that have a moment instead."""
    releases: int = 0
    """How many of its deliveries were given back by no fault of its own."""
    state: Any = field(default=None, repr=False)
    """What its last checkpoint saved, as a JSON value."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    begun: bool = False
    """Whether it was noted that its handler was called, of a job with a ttl: it is started again however late it is."""
    last: bool = False
    """Whether it was noted that its last attempt begins, or comes next: if no outcome follows, it is given up."""
    waited: int = 0
    """Seconds of its ttl that passed while it was in another message, a bundle, and not begun."""
    attempts: int = 0
    """How many attempts were made of it while it was in another message, a bundle."""
    given_up: Reason | None = None
    """Why it belongs into the poison queue, which did not take it when it was given up."""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What else its envelope holds: keys of a newer version, or of a producer's own, to be written back."""
    unknown: int = 0
    """How many of the releases were of workers that don't know its task."""

    @property
    def has_ttl(self) -> bool:
        """Whether there is a time after which it is not worth starting."""
        return self.ttl is not None or self.expires_at is not None

    def start_by(self, inserted_at: datetime) -> datetime | None:
        """Return until when it is worth starting, by the clock of the broker, which has its message since then."""
        ends = [] if self.expires_at is None else [self.expires_at]
        if self.ttl is not None:
            with suppress(OverflowError):  # the end of the year 9999
                ends.append(inserted_at + timedelta(seconds=self.ttl - self.waited))
        return min(ends, default=None)

    def expired(self, inserted_at: datetime, now: datetime) -> bool:
        """Say whether it is too late to start it for the first time; both moments are the broker's.

        A broker's moments may be cut to whole seconds: a job may start a second late, but none is dropped early.
        """
        end = self.start_by(inserted_at)
        return end is not None and now > end


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
