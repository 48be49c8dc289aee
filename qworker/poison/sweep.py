"""One pass over a poison queue: its messages are leased, looked at, dealt with or given back."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from qworker.brokers.base import MAX_BATCH, Message, Queue, Urgency
from qworker.errors import BrokerError, LeaseLost
from qworker.poison.patience import patiently
from qworker.poison.selection import EVERYTHING, GivenUp, Selection, Unreplayable

_DELIVERIES: Final = 3
"""How often a pass may get each message that was there, on average: leases that end too soon must not keep it going."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass has come."""

    there: int
    """Messages in the poison queue when it began, about; those that were invisible count too."""
    looked_at: int = 0
    done: int = 0
    """Messages that were meant, and dealt with."""
    ttl_anew: int = 0
    """How many of those were put back with a ttl, which counts anew."""
    left: int = 0
    """Messages that were meant, and hold nothing that could be put back: they stay."""
    why_left: str = ""
    """Why the first of them stays."""


Told = Callable[[Progress], None]
"""Told after each step of a pass."""


@dataclass(frozen=True, slots=True)
class Leased:
    """A message of the poison queue that is this pass's until its lease ends."""

    message: Message
    given_up: GivenUp
    until: float
    """When half of its lease is over, on the monotonic clock: time to be done with it."""


class Done(Protocol):
    """Called once a message that is meant was dealt with."""

    def __call__(self, *, ttl_anew: bool = False) -> None:
        """Take whether it has a ttl that counts anew."""


Act = Callable[[Leased, Done], Awaitable[None]]
"""Deals with a message that is meant, and deletes it. Raises Unreplayable for one that has to stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A pass over a poison queue: the messages that are meant, how many at most, and how long each is leased."""

    selection: Selection = EVERYTHING
    limit: int | None = None
    """Messages; None for all that there were when it began."""
    lease: int = 60
    """Seconds after which others can have what a killed pass had leased."""
    told: Told = lambda _: None
    """Called with each Progress."""


ALL: Final = Pass()


class Sweep:
    """Gets what is in a poison queue, once; the messages that are not meant are held until the end, then given back.

    Held ones are invisible to other passes, and to this one, so that each get brings others; their leases are renewed.
    Killed, it leaves them to become visible when their leases end. Cancelled, it ends what it has begun with a batch
    and gives the rest back; cancelled once more, it drops everything.
    """

    def __init__(self, poison: Queue, over: Pass, leave: Callable[[GivenUp], bool] = lambda _: False) -> None:
        """Take the queue, and what the pass is to be; messages to *leave* were not there when it began."""
        self.progress = Progress(0)
        self._poison = poison
        self._pass = over
        self._leave = leave
        self._seen: set[str] = set()
        self._unreplayable: set[str] = set()
        self._held = _Held(poison, over.lease)

    async def run(self, act: Act) -> None:
        """Have *act* called for each message that is meant, a batch at a time. Raises what it raises, after its batch.

        It looks at no more messages than there were when it began.
        """
        there = await patiently(self._poison.count)
        self._tell(there=there)
        deliveries = _DELIVERIES * there
        try:
            while (room := self._room()) and deliveries > 0:
                await self._held.renew()
                until = time.monotonic() + self._pass.lease / 2
                batch = await self._poison.get(room, visibility=self._pass.lease)
                if not batch:
                    return
                deliveries -= len(batch)
                await _to_the_end(self._deal_with(leased, act) for leased in self._meant(batch, until))
        finally:
            await self._held.give_back()

    def hold(self, leased: Leased) -> None:
        """Keep a message that is meant, instead of deleting it, and give it back in the end."""
        self._held.add(leased.message, leased.until)

    async def _deal_with(self, leased: Leased, act: Act) -> None:
        try:
            await act(leased, self._done)
        except Unreplayable as why:
            self.hold(leased)
            self._unreplayable.add(leased.message.id)
            first = self.progress.why_left or f"message {leased.message.id}: {why}"
            self._tell(left=len(self._unreplayable), why_left=first)

    def _room(self) -> int:
        """Return how many messages to get next."""
        left = self.progress.there - self.progress.looked_at
        if self._pass.limit is not None and self.progress.done >= self._pass.limit:
            return 0
        if self._pass.limit is not None and self._pass.selection.takes_all:
            left = min(left, self._pass.limit - self.progress.done)
        return min(left, MAX_BATCH)

    def _meant(self, batch: Iterable[Message], until: float) -> list[Leased]:
        meant: list[Leased] = []
        for message in batch:
            given_up = GivenUp.of(message)
            full = self._pass.limit is not None and self.progress.done + len(meant) >= self._pass.limit
            if self._leave(given_up):
                self._held.add(message, until)
                continue
            if message.id not in self._seen:
                self._seen.add(message.id)
                self._tell(looked_at=self.progress.looked_at + 1)
            if full or not self._pass.selection.takes(given_up):
                self._held.add(message, until)
            else:
                meant.append(Leased(message, given_up, until))
        return meant

    def _done(self, *, ttl_anew: bool = False) -> None:
        self._tell(done=self.progress.done + 1, ttl_anew=self.progress.ttl_anew + ttl_anew)

    def _tell(self, **news: Any) -> None:
        self.progress = replace(self.progress, **news)
        self._pass.told(self.progress)


async def _to_the_end(steps: Iterable[Awaitable[None]]) -> None:
    """Take steps, also if this is cancelled meanwhile: what has begun is not left half done."""
    work = asyncio.gather(*steps, return_exceptions=True)
    try:
        ended = await asyncio.shield(work)
    except asyncio.CancelledError:
        await work
        raise
    for error in ended:
        if isinstance(error, BaseException):
            raise error


class _Held:
    """Messages that are kept leased."""

    def __init__(self, queue: Queue, lease: int) -> None:
        self._queue = queue
        self._lease = lease
        self._receipts: dict[str, tuple[str, float]] = {}
        """For each message its receipt, and when to renew it."""

    def add(self, message: Message, until: float) -> None:
        self._receipts[message.id] = message.receipt, until

    async def renew(self) -> None:
        """Renew the leases of which half is over."""
        now = time.monotonic()
        await self._update([name for name, (_, until) in self._receipts.items() if until <= now], self._lease)

    async def give_back(self) -> None:
        """Let all be visible again."""
        await self._update([*self._receipts], 0)

    async def _update(self, names: Sequence[str], visibility: int) -> None:
        for first in range(0, len(names), MAX_BATCH):
            some = names[first : first + MAX_BATCH]
            await asyncio.gather(*(self._update_one(name, visibility) for name in some))

    async def _update_one(self, name: str, visibility: int) -> None:
        receipt, _ = self._receipts.pop(name)
        until = time.monotonic() + self._lease / 2
        with suppress(BrokerError):  # it becomes visible by itself, when its lease ends
            await self._queue.admit(Urgency.SETTLEMENT, within=self._lease / 2)
            receipt = await self._queue.update(name, receipt, visibility=visibility)
            if visibility:
                self._receipts[name] = receipt, until


async def delete(poison: Queue, leased: Leased) -> bool:
    """Delete a message; return False if another pass has it by now. Raises what the broker answered."""
    message, doubtful = leased.message, False

    async def once() -> None:
        nonlocal doubtful
        await poison.admit(Urgency.SETTLEMENT, within=leased.until - time.monotonic())
        try:
            await poison.delete(message.id, message.receipt)
        except LeaseLost:
            if not doubtful:  # else the try whose answer was lost has done it
                raise
        except BrokerError:
            doubtful = True
            raise

    try:
        await patiently(once, leased.until)
    except LeaseLost:
        return False
    return True
