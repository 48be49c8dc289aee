"""Tells at its start which rights a worker will miss, before a job suffers from it."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from qworker._queue_names import poison_queue_of
from qworker.brokers.base import Broker, Right
from qworker.errors import AccessDenied, BrokerError
from qworker.events import RightMissing


class RightsCheck:
    """Checks each queue once, beside the work: to renew, to settle, and to give up.

    A missing right is told and no more: it may be given at any time, and what is granted takes minutes to arrive.
    """

    def __init__(
        self,
        broker: Broker,
        emit: Callable[[RightMissing], None],
        as_renewals: Callable[[Callable[[], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]],
    ) -> None:
        """Take the way that renewals go: asking that way first, the first of them finds a connection."""
        self._broker = broker
        self._emit = emit
        self._as_renewals = as_renewals
        self._checks: dict[str, asyncio.Task[None]] = {}

    def begin(self, queue: str) -> None:
        """Check a queue that has just answered, unless it was checked before; one that doesn't answer says why."""
        if queue not in self._checks:
            self._checks[queue] = asyncio.get_running_loop().create_task(self._check(queue))

    async def stop(self) -> None:
        """End the checks under way."""
        for check in self._checks.values():
            check.cancel()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)

    async def _check(self, queue: str) -> None:
        await self._as_renewals(partial(self._ask, queue, "update"))
        await self._ask(queue, "delete")
        await self._ask(poison_queue_of(queue), "put")

    async def _ask(self, queue: str, right: Right) -> None:
        try:
            await self._broker.queue(queue).check_right(right)
        except AccessDenied as error:
            self._emit(RightMissing(queue=queue, right=right, reason=str(error)))
        except BrokerError:
            pass
