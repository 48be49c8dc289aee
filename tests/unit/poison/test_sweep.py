import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from doubles import ScriptedBroker, ScriptedQueue, message
from qworker.brokers.base import Broker, Message
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.errors import AccessDenied, AnswerLost, LeaseLost, PartlyPurged
from qworker.outcome import Failure
from qworker.poison.purge import look_through, purge
from qworker.poison.record import PoisonRecord, encode_poison
from qworker.poison.replay import replay
from qworker.poison.selection import GivenUp, Selection
from qworker.poison.sweep import Done, Leased, Pass, Progress, Sweep

AT = datetime(2027, 1, 1, tzinfo=UTC)
EVEN = Selection(task="even")


def poisoned(n: int) -> str:
    task = "odd" if n % 2 else "even"
    body = json.dumps({"task": task, "kwargs": {"n": n}})
    return encode_poison(
        PoisonRecord(body, "mail", Failure("ValueError", "no"), 5, "host:1", AT, f"o{n}", f"j{n}", task)
    )


def n_of(body: str) -> int:
    return int(json.loads(body)["kwargs"]["n"])


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    broker = SqliteBroker(None)
    for name in ("mail", "mail-poison"):
        await broker.create_queue(name)
    yield broker
    await broker.aclose()


async def fill(broker: Broker, count: int) -> None:
    await broker.queue("mail-poison").put_many([poisoned(n) for n in range(count)])


async def visible(broker: Broker, queue: str = "mail-poison") -> Counter[str]:
    """Take what is visible, and say how many of each body."""
    taken: Counter[str] = Counter()
    while batch := await broker.queue(queue).get(32, visibility=600):
        taken.update(seen.body for seen in batch)
    return taken


async def test_what_is_meant_is_put_back_and_the_rest_is_visible_at_once(broker: Broker) -> None:
    await fill(broker, 100)
    told: list[Progress] = []

    assert 50 == await replay(broker, "mail", Pass(selection=EVEN, told=told.append))

    assert Counter(poisoned(n) for n in range(1, 100, 2)) == await visible(broker)
    assert set(range(0, 100, 2)) == {n_of(body) for body in await visible(broker, "mail")}
    assert (Progress(100), Progress(100, 100, 50)) == (told[0], told[-1])


async def test_two_at_once_with_a_selection_lose_and_double_nothing(broker: Broker) -> None:
    await fill(broker, 200)
    counts = await asyncio.gather(*(replay(broker, "mail", Pass(selection=EVEN)) for _ in range(2)))
    assert 100 == sum(counts)
    assert min(counts) > 0
    assert Counter(range(0, 200, 2)) == Counter(map(n_of, (await visible(broker, "mail")).elements()))
    assert Counter(poisoned(n) for n in range(1, 200, 2)) == await visible(broker)


async def test_a_purge_deletes_what_is_meant_and_nothing_else(broker: Broker) -> None:
    await fill(broker, 100)
    assert 50 == await purge(broker, "mail", Pass(selection=EVEN))
    assert Counter(poisoned(n) for n in range(1, 100, 2)) == await visible(broker)
    assert 0 == await broker.queue("mail").count()


async def test_a_look_changes_nothing_and_sees_all(broker: Broker) -> None:
    await fill(broker, 70)
    seen: list[GivenUp] = []
    assert 35 == await look_through(broker, "mail", seen.append, Pass(selection=EVEN))
    assert {f"j{n}" for n in range(0, 70, 2)} == {each.job_id for each in seen}
    assert 70 == sum((await visible(broker)).values())


@pytest.mark.parametrize("limit", [1, 20, 40])
async def test_no_more_than_asked_for_and_the_others_are_given_back(broker: Broker, limit: int) -> None:
    await fill(broker, 100)
    assert limit == await purge(broker, "mail", Pass(selection=EVEN, limit=limit))
    assert 100 - limit == sum((await visible(broker)).values())


async def test_without_a_selection_a_limit_leases_no_more_than_that(broker: Broker) -> None:
    await fill(broker, 10)
    asked: list[int] = []

    async def act(leased: Leased, done: Done) -> None:
        asked.append(sum((await visible(broker)).values()))
        done()

    sweep = Sweep(broker.queue("mail-poison"), Pass(selection=Selection(), lease=60, limit=2))
    await sweep.run(act)
    assert [8, 0] == sorted(asked, reverse=True)


async def test_cancelled_it_ends_what_it_has_begun_and_gives_the_rest_back(broker: Broker) -> None:
    await fill(broker, 64)
    begun, go_on = asyncio.Event(), asyncio.Event()
    poison = broker.queue("mail-poison")

    async def act(leased: Leased, done: Done) -> None:
        begun.set()
        await go_on.wait()
        await poison.delete(leased.message.id, leased.message.receipt)
        done()

    sweep = Sweep(poison, Pass(selection=EVEN, lease=60))
    run = asyncio.create_task(sweep.run(act))
    await begun.wait()
    run.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert 16 == sweep.progress.done
    assert 48 == sum((await visible(broker)).values())


class Poison(ScriptedQueue):
    """A poison queue of so many messages, of which a get brings those that it is told to."""

    def __init__(self, *batches: list[int], there: int) -> None:
        super().__init__("mail-poison")
        self._there = there
        self.will("get", *([message(poisoned(n), number=n) for n in batch] for batch in batches))

    async def count(self) -> int:
        return self._there


async def forget(leased: Leased, done: Done) -> None:
    done()


async def test_a_held_message_is_renewed_when_half_of_its_lease_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("qworker.poison.sweep.time.monotonic", lambda: now)
    poison = Poison([1], [2], [3], there=9)

    async def later() -> list[Message]:
        nonlocal now
        now += 30
        return [message(poisoned(2), number=2)]

    poison._answers["get"][1] = later
    await Sweep(poison, Pass(selection=Selection(task="none"), lease=60)).run(forget)

    updates = [(name, receipt, visibility) for name, receipt, visibility, _ in poison.called("update")]
    assert [("m1", "r1", 60), ("m2", "r1", 60)] == updates[:2]
    assert {"m1", "m2", "m3"} == {name for name, _, visibility in updates if not visibility}
    assert ("m1", "r2", 0) in updates


async def test_leases_that_end_too_soon_do_not_keep_it_going() -> None:
    poison = Poison(*([1, 3] for _ in range(50)), there=4)
    sweep = Sweep(poison, Pass(selection=EVEN, lease=2))
    await sweep.run(forget)
    assert (Progress(4, 2, 0), 6) == (sweep.progress, len(poison.called("get")))


async def test_what_can_not_be_given_back_is_left_to_its_lease() -> None:
    poison = Poison([1, 3], there=2)
    poison.will("update", AccessDenied("no"), LeaseLost("m3"))
    await Sweep(poison, Pass(selection=EVEN, lease=60)).run(forget)
    assert 2 == len(poison.called("update"))


async def purged(poison: Poison) -> int:
    broker = ScriptedBroker()
    broker.queues["mail-poison"] = poison
    return await purge(broker, "mail")


async def test_what_another_has_by_now_is_not_counted_and_what_was_deleted_unheard_is() -> None:
    taken = Poison([0], there=1)
    taken.will("delete", LeaseLost("m0"))
    assert 0 == await purged(taken)
    unheard = Poison([0], there=1)
    unheard.will("delete", AnswerLost("lost"), LeaseLost("m0"))
    assert 1 == await purged(unheard)


async def test_an_end_before_the_end_says_how_much_was_deleted() -> None:
    poison = Poison([0, 2, 4], there=3)
    poison.will("delete", None, AccessDenied("no right"), None)
    with pytest.raises(PartlyPurged, match=r"only 2 jobs of the poison queue of 'mail' were deleted, .*: no right"):
        await purged(poison)
    denied = Poison([0], there=1)
    denied.will("delete", AccessDenied("no right"))
    with pytest.raises(AccessDenied):
        await purged(denied)


async def test_what_was_put_back_and_not_deleted_in_time_is_not_put_back_again() -> None:
    broker = ScriptedBroker()
    broker.queues["mail-poison"] = poison = Poison([0], [0], there=3)
    poison.will("delete", LeaseLost("m0"), None)
    assert 1 == await replay(broker, "mail")
    assert (1, 2) == (len(broker.queue("mail").called("put")), len(poison.called("delete")))
