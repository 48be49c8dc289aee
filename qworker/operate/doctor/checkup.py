"""Asks a broker and its queues how they are; each question by itself, so that none hides another's answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from qworker._queue_names import check_task_queue, poison_queue_of
from qworker.brokers.base import MAX_BATCH, Broker, Condition, Queue, Right
from qworker.errors import AccessDenied, InvalidQueueName, QueueBeingDeleted, QueueNotFound, QworkerError
from qworker.operate.doctor import findings, queue_findings
from qworker.operate.doctor.findings import Finding
from qworker.operate.doctor.queue_findings import RIGHTS
from qworker.wire.bodies import Encoding

_ROUND_TRIPS: Final = 7
"""Requests whose time is taken; the one before them opens the connection."""
_AT_ONCE: Final = 4
"""Queues that are asked at the same time."""
_READ: Final = "a worker doesn't need this; it takes the right to read (r, Storage Queue Data Reader)"

Check = Callable[[], Awaitable[list[Finding]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The checks to make, beside those of the broker itself."""

    queues: Sequence[str]
    """Empty: whichever are there."""
    encoding: Encoding
    processes: int
    poll_max: float
    counts: bool
    """Whether workers ask for the lengths of queues."""


async def check_up(broker: Broker, plan: Plan) -> list[Finding]:
    """Return the findings, in the order in which they are printed."""
    if not broker.exists():
        todo = "the first job or worker creates it; is this the right directory, and is QWORKER_BROKER set?"
        bad_names = [each for name in plan.queues for each in _of_name(name)]
        return [
            Finding("broker", "failed", f"{broker.label} does not exist yet", todo),
            *bad_names,
            _polling(broker, plan, 1),
        ]
    of_place = await _of_place(broker)
    names, unlisted = await _queues(broker, plan)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def of_queue(name: str) -> list[Finding]:
        async with turns:
            return await _of_queue(broker, name, plan.encoding)

    of_queues = await asyncio.gather(*map(of_queue, names))
    return [*of_place, *unlisted, *(each for found in of_queues for each in found), _polling(broker, plan, len(names))]


async def alone(check: str, ask: Check, queue: str | None = None) -> list[Finding]:
    """Return the findings of one check; a check that raises has failed."""
    try:
        return await ask()
    except QworkerError as error:
        return [Finding(check, "failed", str(error), "", queue)]
    except Exception as error:  # noqa: BLE001 — the others go on; its text might hold a secret
        return [Finding(check, "failed", f"unexpected: {type(error).__name__}", "", queue)]


async def _of_place(broker: Broker) -> list[Finding]:
    found = await alone("broker", lambda: _round_trips(broker))
    return found if broker.remote else [*found, *await alone("writes", lambda: _writes(broker))]


async def _round_trips(broker: Broker) -> list[Finding]:
    seconds: list[float] = []
    unanswered = None
    quickest = await broker.examine()
    for _ in range(_ROUND_TRIPS):
        began = time.monotonic()
        try:
            condition = await broker.examine()
        except QworkerError as error:
            unanswered = str(error)
            break
        took = time.monotonic() - began
        if not seconds or took < min(seconds):
            quickest = condition
        seconds.append(took)
    return [
        Finding("broker", "ok", f"{broker.label} answers"),
        *_of_condition(quickest, remote=broker.remote),
        findings.of_times(seconds, remote=broker.remote, unanswered=unanswered),
    ]


def _of_condition(condition: Condition, *, remote: bool) -> list[Finding]:
    if remote:
        version = findings.of_version(condition.api_version, condition.version_asked)
        return [findings.of_clock(condition.clock_ahead), version]
    journal, free = condition.journal_mode, condition.free_bytes
    return [
        *([] if journal is None else [findings.of_journal(journal)]),
        *([] if free is None else [findings.of_disk(free)]),
    ]


async def _writes(broker: Broker) -> list[Finding]:
    await broker.check_writable()
    return [Finding("writes", "ok", "the file can be written")]


async def _queues(broker: Broker, plan: Plan) -> tuple[Sequence[str], list[Finding]]:
    """Return the queues to check; where none is named and none can be found, why."""
    if plan.queues:
        return plan.queues, []
    listed: list[str] = []

    async def list_them() -> list[Finding]:
        names = await broker.list_queues()
        poison = {poison_queue_of(name) for name in names}
        listed.extend(name for name in names if name not in poison)
        if listed:
            return []
        return [Finding("queue", "warning", "there is no queue", "name one with --app or --queue")]

    found = await alone("queue", list_them)
    return listed, found


async def _of_queue(broker: Broker, name: str, encoding: Encoding) -> list[Finding]:
    if bad_name := _of_name(name):
        return bad_name
    queue, poison = broker.queue(name), broker.queue(poison_queue_of(name))
    return [
        *await _of_one(queue, broker.remote, lambda: _contents(queue, encoding)),
        *await _of_one(poison, broker.remote, lambda: _contents(poison, None)),
    ]


def _of_name(name: str) -> list[Finding]:
    try:
        check_task_queue(name)
    except InvalidQueueName as error:
        return [Finding("queue", "failed", str(error), "give it another name", name)]
    return []


async def _of_one(queue: Queue, remote: bool, look: Check) -> list[Finding]:  # noqa: FBT001 — of two callers
    """Return the findings on one queue, which may be a poison queue."""
    try:
        found = [Finding("queue", "ok", f"exists, with {_about(await queue.count())}", "", queue.name)]
    except (QueueNotFound, QueueBeingDeleted):
        return [queue_findings.of_missing(queue.name)]
    except AccessDenied as error:
        found = [_unseen("queue", queue.name, error)]
    except QworkerError as error:
        found = [Finding("queue", "failed", str(error), "", queue.name)]
    if remote:
        found += await alone("rights", lambda: _rights(queue), queue.name)
    return [*found, *await alone("contents", look, queue.name)]


def _about(messages: int) -> str:
    return f"about {messages} message{'' if messages == 1 else 's'}"


async def _rights(queue: Queue) -> list[Finding]:
    denied: dict[Right, str] = {}
    for right in RIGHTS:
        try:
            await queue.check_right(right)
        except AccessDenied as error:
            denied[right] = str(error)
    return queue_findings.of_rights(queue.name, denied, poison=queue.name.endswith("-poison"))


async def _contents(queue: Queue, encoding: Encoding | None) -> list[Finding]:
    """Look at the visible messages; without an *encoding*, only at the time until they expire."""
    try:
        seen = await queue.peek(MAX_BATCH)
    except AccessDenied as error:
        return [_unseen("contents", queue.name, error)]
    of_encoding = [] if encoding is None else [queue_findings.of_encoding(queue.name, seen, encoding)]
    return [*of_encoding, queue_findings.of_ttl(queue.name, seen)]


def _unseen(check: str, queue: str, error: AccessDenied) -> Finding:
    return Finding(check, "warning", f"can't be looked at: {error}", _READ, queue)


def _polling(broker: Broker, plan: Plan, queues: int) -> Finding:
    return findings.of_polling(
        len(plan.queues) or queues, plan.processes, plan.poll_max, remote=broker.remote, counts=plan.counts
    )
