"""What becomes of a job that fails: it is tried again, or given up and kept with the reason.

    python -m examples.retries_and_poison             # enqueues four jobs
    qworker run examples.retries_and_poison           # executes them; Ctrl-C ends it
    python -m examples.retries_and_poison show        # prints what was given up, and why

A poison queue is not emptied by anyone but you.
"""

import asyncio
import sys

from qworker import INJECTED, Backoff, Context, Reject, Retry, Snooze, default_app, task
from qworker.poison.record import decode_poison

QUEUE = "orders"
BANK_ANSWERS_AT = 3
soon = Backoff(base=1, factor=2, max=60)  # rests of about 1, 2, 4 … seconds, each up to a fifth shorter


@task(queue=QUEUE, max_attempts=3, backoff=soon)
def charge(order: int, *, ctx: Context = INJECTED) -> None:
    """Fail twice, then succeed: the same message reappears after each failure."""
    if ctx.attempt < BANK_ANSWERS_AT:
        raise ConnectionError(f"the bank did not answer (attempt {ctx.attempt})")
    print(f"order {order} is charged at attempt {ctx.attempt}")


@task(queue=QUEUE, max_attempts=2, backoff=soon)
def deliver(order: int) -> None:
    """Fail at each attempt: after the last, the job goes to the queue orders-poison."""
    raise Retry(f"no courier for order {order}", after=1)  # like any exception, with a delay of its own


@task(queue=QUEUE)
def refund(order: int) -> None:
    """Say that trying again is no use: the job goes to orders-poison at once."""
    raise Reject(f"order {order} was never paid")


asked: set[str] = set()


@task(queue=QUEUE, max_attempts=1)
def invoice(order: int, *, ctx: Context = INJECTED) -> None:
    """Ask to be called later, which is no failure: it spends no attempt, so that max_attempts=1 is enough."""
    if ctx.job_id not in asked:
        asked.add(ctx.job_id)
        raise Snooze("the accounts are not ready", after=1)
    print(f"order {order} is invoiced at attempt {ctx.attempt}")


async def show() -> None:
    """Read a poison queue: it is a queue like any other, and a record in it holds the job's message unmodified."""
    for message in await default_app.broker.queue(f"{QUEUE}-poison").peek(32):
        record = decode_poison(message.body)
        print(f"{record.task} was given up at attempt {record.attempts}: {record.failure}")
        print(f"    its message: {record.body}")
    await default_app.aclose()


if __name__ == "__main__":
    if sys.argv[1:] == ["show"]:
        asyncio.run(show())
    else:
        for each in (charge, deliver, refund, invoice):
            each.enqueue(7)
