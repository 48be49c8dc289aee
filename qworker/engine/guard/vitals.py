"""What a worker can say of itself from one moment to the next."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qworker.brokers.base import Broker

_COUNT_WITHIN: Final = 10.0
"""Seconds that a queue gets to say how long it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """A worker at one moment."""

    running: int
    waiting: int
    """Jobs that were received and have not started."""
    slots: int
    polls_late: float
    """Seconds by which the poll is late that should have been made, or answered, first; 0 if none should."""
    keeper_late: float
    """Seconds by which the lease keeper is late to look at its leases."""
    stopping: bool


async def lengths(broker: Broker, queues: Iterable[str]) -> dict[str, int]:
    """Return how many messages are in each queue, about; without those that didn't say."""
    names = tuple(queues)
    counts = await asyncio.gather(*(_length(broker, name) for name in names))
    return {name: count for name, count in zip(names, counts, strict=True) if count is not None}


async def _length(broker: Broker, name: str) -> int | None:
    try:
        async with asyncio.timeout(_COUNT_WITHIN):
            return await broker.queue(name).count()
    except Exception:  # noqa: BLE001 — what is wrong with a broker, polls tell
        return None
