"""Finds jobs that were given up, and tells all that is known of them, to people and to scripts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from qworker._queue_names import POISON_SUFFIX, poison_queue_of
from qworker.brokers.base import MAX_BATCH, Broker
from qworker.errors import ConfigurationError, QueueBeingDeleted, QueueNotFound
from qworker.operate.missing import NotFound
from qworker.operate.words import NONE, age, iso
from qworker.poison.purge import look_through
from qworker.poison.selection import GivenUp
from qworker.poison.sweep import Pass

_LEAST: Final = 4
"""Characters of an id's beginning by which a job may be called."""
_WHOLE: Final = 36
"""Characters of an id that qworker or the service has made."""
_FEW: Final = 3
Named = tuple[str, GivenUp]
"""A job that was given up, after the name of the queue that it came from."""


@dataclass(frozen=True, slots=True)
class Look:
    """The result of a look into one poison queue."""

    queue: str
    """The queue that the jobs came from."""
    seen: list[GivenUp]
    there: int
    """Messages in it, about, the invisible ones too."""

    def hidden(self) -> str:
        """Return one line about the jobs that could not be seen; nothing if all could."""
        rest = self.there - len(self.seen)
        if rest <= 0:
            return ""
        if len(self.seen) < MAX_BATCH:
            return f"{self.queue}-poison: about {rest} more are invisible: a replay or purge holds them"
        return (
            f"{self.queue}-poison: looked at {len(self.seen)} of about {self.there}, no more can be shown at a time; "
            f"'qworker poison replay {self.queue} --dry-run' counts all"
        )


async def look(broker: Broker, queue: str | None) -> list[Look]:
    """Look into the poison queue of *queue*, or into all. Raises QueueNotFound."""
    if queue is not None:
        return [await _look(broker, queue)]
    looks = await asyncio.gather(
        *(_look(broker, name) for name in await queues_with_poison(broker)), return_exceptions=True
    )
    for failed in looks:
        if isinstance(failed, BaseException) and not isinstance(failed, QueueNotFound | QueueBeingDeleted):
            raise failed
    return [found for found in looks if isinstance(found, Look)]


async def find(broker: Broker, queue: str | None, name: str, lease: int) -> list[Named]:
    """Return the job or message, or its copies, that an id or the beginning of an id names.

    Where it is not among those that can be seen, all are leased for a moment. Raises QueueNotFound, NotFound, and
    ConfigurationError if several ids begin so.
    """
    looks = await look(broker, queue)
    seen = [(found.queue, each) for found in looks for each in found.seen if goes_by(name, each)]
    exact = [(where, each) for where, each in seen if name in each.ids]
    if exact:
        return exact
    for found in looks:
        if found.there > len(found.seen):
            copies: list[GivenUp] = []
            see = partial(_keep, copies, name)
            await look_through(broker, found.queue, see, Pass(lease=lease))
            seen = [each for each in seen if each[0] != found.queue] + [(found.queue, each) for each in copies]
    if not seen:
        raise NotFound(f"no job or message {name!r} was given up" + (f" in {queue}" if queue else ""))
    meant = [(where, each) for where, each in seen if name in each.ids] or seen
    ids = sorted({id_of(each) for _, each in meant})
    if len(ids) > 1:
        some = ", ".join(ids[:_FEW]) + (" …" if len(ids) > _FEW else "")
        raise ConfigurationError(f"the ids of {len(ids)} jobs begin with {name!r}: {some}")
    return meant


async def whole_ids(broker: Broker, queue: str | None, names: Sequence[str], lease: int) -> list[str]:
    """Return the full ids for ids or beginnings of ids. Raises the errors of `find`."""
    return [name if len(name) >= _WHOLE else id_of((await find(broker, queue, name, lease))[0][1]) for name in names]


def goes_by(name: str, given_up: GivenUp) -> bool:
    """Say whether a job or message may be called so: by an id, or by four characters or more that an id begins with."""
    return name in given_up.ids or (
        len(name) >= _LEAST and any(each.lower().startswith(name.lower()) for each in given_up.ids)
    )


def _keep(kept: list[GivenUp], name: str, given_up: GivenUp) -> None:
    if goes_by(name, given_up):
        kept.append(given_up)


def block(queue: str, given_up: GivenUp, *, private: bool) -> dict[str, str]:
    """Return everything about one job; its body only if *private* data may be shown."""
    told = {
        "job": given_up.job_id or NONE,
        "message": given_up.message_id,
        "queue": queue,
        "task": given_up.task or NONE,
        "given up": f"{age(given_up.at, given_up.seen_at)} ago, {iso(given_up.at)}",
        "error": error_of(given_up),
    }
    if (record := given_up.record) is not None:
        told |= {"attempts": str(record.attempts), "worker": record.worker}
        told |= {"at": record.failure.where} if record.failure.where else {}
        told |= {"traceback": record.failure.traceback} if record.failure.traceback else {}
    return told | ({"body": given_up.body} if private else {})


def as_json(queue: str, given_up: GivenUp, *, whole: bool = False, private: bool = False) -> dict[str, Any]:
    """Return the same for a script; the traceback only if it is to be *whole*."""
    told: dict[str, Any] = {
        "queue": queue,
        "job": given_up.job_id,
        "message": given_up.message_id,
        "task": given_up.task,
        "given_up_at": iso(given_up.at),
        "attempts": None,
        "worker": None,
        "error": None,
        "problem": given_up.problem or None,
    }
    if (record := given_up.record) is not None:
        failure = record.failure
        error = {"type": failure.type, "message": failure.message, "where": failure.where}
        error |= {"traceback": failure.traceback} if whole else {}
        told |= {"attempts": record.attempts, "worker": record.worker, "error": error}
    return told | ({"body": given_up.body} if private else {})


def id_of(given_up: GivenUp) -> str:
    """Return the id that a person would call it by."""
    return given_up.job_id or given_up.message_id


def error_of(given_up: GivenUp) -> str:
    """Return why it was given up, in one line."""
    if given_up.record is not None:
        return str(given_up.record.failure)
    return given_up.problem or "not recorded: no room beside its body"


async def queues_with_poison(broker: Broker) -> list[str]:
    """Return the names of the queues that have a poison queue."""
    names = await broker.list_queues()
    return [name.removesuffix(POISON_SUFFIX) for name in names if name.endswith(POISON_SUFFIX)]


async def _look(broker: Broker, queue: str) -> Look:
    poison = broker.queue(poison_queue_of(queue))
    seen = await poison.peek(MAX_BATCH)
    return Look(queue, [GivenUp.of(message) for message in seen], await poison.count())
