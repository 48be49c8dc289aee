"""Many small jobs in few messages: each is still checked, run, tried again and given up by itself.

    python -m examples.many_small_jobs                # enqueues 1,000 jobs in 10 messages
    qworker run examples.many_small_jobs --burst      # executes them, and ends when nothing is left

Worth it where a queue's 2,000 messages a second, or what its requests cost, would be the limit.
"""

import asyncio

from qworker import Reject, default_app, task

QUEUE = "readings"
BROKEN = 13
HOTTEST = 60.0


@task(queue=QUEUE, bundle=100)
async def store(sensor: int, celsius: float) -> None:
    """Refuse one reading: it goes to readings-poison, the others of its message don't."""
    if celsius > HOTTEST:
        raise Reject(f"sensor {sensor} is broken: it says {celsius} °C")


async def produce() -> None:
    await store.aenqueue_many([(sensor, 999.0 if sensor == BROKEN else 20.5) for sensor in range(1_000)])
    messages = await default_app.broker.queue(QUEUE).count()
    print(f"1,000 jobs are in {messages} messages")
    await default_app.aclose()


if __name__ == "__main__":
    asyncio.run(produce())
