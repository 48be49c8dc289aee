"""Tells how long queues are, and how old the oldest of their messages."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from qworker._queue_names import POISON_SUFFIX
from qworker.brokers.base import MAX_BATCH, Broker
from qworker.errors import QueueBeingDeleted, QueueNotFound

_AT_ONCE: Final = 8
"""Queues that are asked at the same time."""


@dataclass(frozen=True, slots=True)
class Length:
    """The length of one queue, and how old its messages are."""

    name: str
    messages: int
    oldest: datetime | None
    """The time at which the oldest message of a peek was put; None if none is visible."""
    oldest_age: timedelta | None
    """Its age at the peek, also by the broker's clock."""
    poison: int | None
    """None if it has no poison queue."""


async def lengths(broker: Broker) -> list[Length]:
    """Return what there is to say of each queue, but of poison queues only beside their own."""
    names = set(await broker.list_queues())
    alone = sorted(name for name in names if name.removesuffix(POISON_SUFFIX) not in names - {name})
    turns = asyncio.Semaphore(_AT_ONCE)

    async def length_of(name: str) -> Length | None:
        poison = name + POISON_SUFFIX
        async with turns:
            return await _length(broker, name, poison if poison in names else None)

    return [length for length in await asyncio.gather(*map(length_of, alone)) if length is not None]


async def _length(broker: Broker, name: str, poison: str | None) -> Length | None:
    """Return what is to be said of a queue; None if it is gone by now."""
    queue = broker.queue(name)
    try:
        messages, seen = await queue.count(), await queue.peek(MAX_BATCH)
    except (QueueNotFound, QueueBeingDeleted):
        return None
    oldest = min(seen, key=lambda message: message.inserted_at, default=None)
    try:
        given_up = None if poison is None else await broker.queue(poison).count()
    except (QueueNotFound, QueueBeingDeleted):
        given_up = None
    when, how_old = (None, None) if oldest is None else (oldest.inserted_at, oldest.seen_at - oldest.inserted_at)
    return Length(name, messages, when, how_old, given_up)
