"""Asks a broker for its queues, and workers for their metrics, at each look of `qworker top`. No answer ends it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

import aiohttp

from qworker._queue_names import POISON_SUFFIX, check_task_queue, poison_queue_of
from qworker.brokers.base import MAX_BATCH, Broker
from qworker.errors import QueueBeingDeleted, QueueNotFound, QworkerError
from qworker.operate.top.model import Look, QueueSeen, Scrape
from qworker.poison.selection import GivenUp

_AT_ONCE = 8
"""Queues that are asked at the same time."""


class MetricsSource(Protocol):
    """Where a worker's metrics are; see scrape.Endpoint."""

    name: str

    async def scrape(self, session: aiohttp.ClientSession) -> Scrape | str:
        """Return the metrics, or the reason why there are none."""


class Sources:
    """A broker, and workers; *queues*: those to look at, or all that are there."""

    def __init__(self, broker: Broker, queues: Sequence[str], endpoints: Sequence[MetricsSource]) -> None:
        self._broker = broker
        self._queues = queues
        self._endpoints = endpoints

    async def look(self) -> Look:
        """Ask all of them at the same time."""
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            scraping = asyncio.gather(*(endpoint.scrape(session) for endpoint in self._endpoints))
            (queues, problem), scrapes = await asyncio.gather(self._see_queues(), scraping)
        found = {endpoint.name: scrape for endpoint, scrape in zip(self._endpoints, scrapes, strict=True)}
        return Look(time.monotonic(), queues, found, problem)

    async def _see_queues(self) -> tuple[Sequence[QueueSeen], str]:
        if not self._broker.exists():
            return (
                (),
                f"{self._broker.label} does not exist yet: is this the right directory, and is QWORKER_BROKER set?",
            )
        try:
            names = self._queues or await self._list()
        except QworkerError as error:
            return (), str(error)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def see(name: str) -> QueueSeen:
            async with turns:
                return await self._see(name)

        seen = await asyncio.gather(*map(see, names))
        return seen, "" if seen else f"there are no queues at {self._broker.label}"

    async def _list(self) -> list[str]:
        names = await self._broker.list_queues()
        poison = {poison_queue_of(name) for name in names}
        return [name for name in names if name not in poison]

    async def _see(self, name: str) -> QueueSeen:
        try:
            messages = await self._broker.queue(check_task_queue(name)).count()
        except QworkerError as error:
            return QueueSeen(name, problem=str(error))
        try:
            poison = self._broker.queue(name + POISON_SUFFIX)
            there = await poison.count()
            seen = await poison.peek(MAX_BATCH) if there else []
        except (QueueNotFound, QueueBeingDeleted):
            return QueueSeen(name, messages)
        except QworkerError as error:
            return QueueSeen(name, messages, problem=str(error))
        return QueueSeen(name, messages, there, [GivenUp.of(message) for message in seen])
