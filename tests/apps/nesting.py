"""A task that runs one event loop in another, which the app is known to do."""

import asyncio

import nest_asyncio

from jobs import app
from qworker import current

__all__ = ["app"]


async def _inner() -> int:
    await asyncio.sleep(0)
    return 5


@app.task(max_attempts=1)
async def nest() -> None:
    nest_asyncio.apply()
    current().log.info("nested", got=asyncio.run(_inner()))
