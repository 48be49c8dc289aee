"""No library: a loop written by hand on azure-storage-queue's aio client, as its samples have it, but 32 at a time.

It has no retries, no leases that are renewed, no envelope: it is what the SDK costs by itself.
"""

import asyncio
import json
import time
from functools import cache

from azure.storage.queue import QueueClient as BlockingClient
from azure.storage.queue.aio import QueueClient

from bench.contestants import work

_AT_ONCE = 32


def _client() -> QueueClient:
    return QueueClient.from_connection_string(work.URL, "bench", api_version="2025-11-05")


def enqueue(count: int) -> None:
    """Enqueue jobs 32 at a time."""
    asyncio.run(_enqueue(count))


def enqueue_timed() -> None:
    """Enqueue one job that says how late it was started."""
    _blocking_client().send_message(json.dumps({"task": "timed", "args": [time.time()]}))


@cache
def _blocking_client() -> BlockingClient:
    return BlockingClient.from_connection_string(work.URL, "bench", api_version="2025-11-05")


async def _enqueue(count: int) -> None:
    async with _client() as client:
        numbers = iter(range(count))

        async def put() -> None:
            for number in numbers:
                await client.send_message(f'{{"task":"noop","args":[{number}]}}')

        await asyncio.gather(*(put() for _ in range(_AT_ONCE)))


async def _work() -> None:
    async with _client() as client:
        while True:
            pages = client.receive_messages(messages_per_page=32, visibility_timeout=60).by_page()
            page = await anext(pages, None)
            messages = [] if page is None else [message async for message in page]
            for message in messages:
                _run(**json.loads(message.content))
            await asyncio.gather(*(client.delete_message(message) for message in messages))
            if not messages:
                await asyncio.sleep(0.1)


def _run(task: str, args: list[float]) -> None:
    if task == "timed":
        work.started(*args)
    else:
        work.done()


if __name__ == "__main__":
    asyncio.run(_work())
