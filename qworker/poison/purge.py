"""An end to what is in a poison queue: its messages are deleted."""

from collections.abc import Callable

from qworker._queue_names import check_task_queue, poison_queue_of
from qworker.brokers.base import Broker, Queue
from qworker.errors import BrokerError, PartlyPurged
from qworker.poison.selection import GivenUp
from qworker.poison.sweep import ALL, Done, Leased, Pass, Sweep, delete


async def purge(broker: Broker, queue: str, over: Pass = ALL) -> int:
    """Delete the messages of the poison queue of *queue*; return how many.

    It deletes no more messages than there were when it began. If it is killed, others get the rest of its messages
    when their leases end.

    Raises InvalidQueueName, or the error of the broker: within PartlyPurged if something was deleted before.
    """
    poison = _poison_queue(broker, queue)

    async def act(leased: Leased, done: Done) -> None:
        if await delete(poison, leased):
            done()

    sweep = Sweep(poison, over)
    try:
        await sweep.run(act)
    except BrokerError as error:
        if sweep.progress.done:
            raise PartlyPurged(sweep.progress.done, queue, error) from error
        raise
    return sweep.progress.done


async def look_through(
    broker: Broker, queue: str, see: Callable[[GivenUp], None], over: Pass = ALL, *, replayable: bool = False
) -> int:
    """Have *see* called for what `replay` or `purge` would deal with, and give all of it back; return how many.

    With *replayable*, it leaves out what could not be put back, as a replay does. Meanwhile all is invisible to others.

    Raises InvalidQueueName, or what the broker answered.
    """
    sweep = Sweep(_poison_queue(broker, queue), over)

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
