"""An end to what is in a poison queue: its messages are deleted."""

from collections.abc import Callable

from qworker._queue_names import check_task_queue, poison_queue_of
from qworker.brokers.base import Broker, Queue
from qworker.errors import BrokerError, PartlyPurged
from qworker.poison.selection import EVERYTHING, GivenUp, Selection
from qworker.poison.sweep import Done, Leased, Sweep, Told, delete


async def purge(  # noqa: PLR0913 — one parameter an option
    broker: Broker,
    queue: str,
    *,
    selection: Selection = EVERYTHING,
    limit: int | None = None,
    lease: int = 60,
    told: Told = lambda _: None,
) -> int:
    """Delete what is in the poison queue of *queue*; return how many messages.

    At most *limit* messages of the *selection* are deleted, and at most as many as there were when it began. Killed, it
    leaves what it had leased to others after *lease* seconds. *told* is called with each Progress.

    Raises InvalidQueueName, or what the broker answered: within PartlyPurged if something was deleted before.
    """
    poison = _poison_queue(broker, queue)

    async def act(leased: Leased, done: Done) -> None:
        if await delete(poison, leased):
            done()

    sweep = Sweep(poison, selection, lease=lease, limit=limit, told=told)
    try:
        await sweep.run(act)
    except BrokerError as error:
        if sweep.progress.done:
            raise PartlyPurged(sweep.progress.done, queue, error) from error
        raise
    return sweep.progress.done


async def look_through(  # noqa: PLR0913 — one parameter an option
    broker: Broker,
    queue: str,
    see: Callable[[GivenUp], None],
    *,
    selection: Selection = EVERYTHING,
    limit: int | None = None,
    lease: int = 60,
    told: Told = lambda _: None,
    replayable: bool = False,
) -> int:
    """Have *see* called for what `replay` or `purge` would deal with, and give all of it back; return how many.

    With *replayable*, it leaves out what could not be put back, as a replay does. Meanwhile all is invisible to others.

    Raises InvalidQueueName, or what the broker answered.
    """
    sweep = Sweep(_poison_queue(broker, queue), selection, lease=lease, limit=limit, told=told)

    seen: set[str] = set()

    async def act(leased: Leased, done: Done) -> None:
        sweep.hold(leased)
        if leased.message.id not in seen:  # else its lease had ended too soon
            seen.add(leased.message.id)
            if replayable:
                leased.given_up.as_new()
            see(leased.given_up)
            done()

    await sweep.run(act)
    return sweep.progress.done


def _poison_queue(broker: Broker, queue: str) -> Queue:
    return broker.queue(poison_queue_of(check_task_queue(queue)))
