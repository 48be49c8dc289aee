"""A call to a broker that is tried a few times."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from qworker.errors import AnswerLost, BrokerBusy, BrokerFull, BrokerUnavailable

T = TypeVar("T")
_PAUSES: Final = (0.1, 0.5, 2.0)
"""Seconds before each further try."""


async def patiently(call: Callable[[], Awaitable[T]], until: float | None = None) -> T:
    """Try a call again, a few times and not after *until*, if it was refused for now or not answered."""
    for pause in _PAUSES:
        try:
            return await call()
        except (BrokerBusy, BrokerFull, BrokerUnavailable, AnswerLost) as error:
            asked = error.retry_after if isinstance(error, BrokerBusy) else None
            rest = pause if asked is None else asked
            if until is not None and time.monotonic() + rest >= until:
                raise
        await asyncio.sleep(rest)
    return await call()
