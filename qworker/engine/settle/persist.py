"""Trying a call of the broker again and again: what becomes of a job has to get through."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from itertools import chain, repeat
from typing import Final

from qworker.engine.guard.access import Suspended
from qworker.errors import AnswerLost, BrokerBusy, BrokerFull, BrokerUnavailable

_PAUSES: Final = (0.1, 0.3, 1.0, 2.0)
"""Seconds between tries; the last is repeated."""


async def persist(call: Callable[[], Awaitable[None]], *, seconds: float, while_busy: float = math.inf) -> None:
    """Try a call again and again for some seconds, unless it is refused for good.

    A broker that is too busy says that nothing was done; by itself, that ends only with the lease, or *while_busy*.
    """
    began = time.monotonic()
    pauses = chain(_PAUSES, repeat(_PAUSES[-1]))
    while True:
        try:
            await call()
        except (BrokerBusy, BrokerFull, BrokerUnavailable, AnswerLost, Suspended) as error:
            if isinstance(error, Suspended) and error.missing:
                raise
            is_busy = isinstance(error, BrokerBusy)
            pause = _PAUSES[0] if is_busy else next(pauses)  # what comes next to a busy queue, its admission decides
            if time.monotonic() + pause >= began + (while_busy if is_busy else seconds):
                raise
        else:
            return
        await asyncio.sleep(pause)
