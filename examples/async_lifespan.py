"""One HTTP connection pool for all jobs of a worker, opened before the first and closed after the last.

    python -m examples.async_lifespan https://www.python.org https://peps.python.org
    qworker run examples.async_lifespan --burst

A page that can't be had now is asked for again, 5 and 10 seconds later; --burst doesn't wait for that.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, ClientTimeout

from qworker import INJECTED, App, Context


@asynccontextmanager
async def open_pool(_app: App) -> AsyncIterator[dict[str, ClientSession]]:
    """Surround a worker's life; a producer never gets here."""
    async with ClientSession(timeout=ClientTimeout(10)) as session:
        print("the pool is open")
        yield {"http": session}  # what each handler finds as ctx.resources
    print("the pool is closed")


app = App(lifespan=open_pool)


@app.task(max_attempts=3, timeout=30)
async def measure_page(url: str, *, ctx: Context = INJECTED) -> None:
    """Run on the event loop, up to --concurrency at once; an exception is a failed attempt."""
    session: ClientSession = ctx.resources["http"]
    async with session.get(url) as response:
        response.raise_for_status()
        print(f"{url} has {len(await response.read())} bytes")


if __name__ == "__main__":
    measure_page.enqueue_many((url,) for url in sys.argv[1:])
