from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from qworker.brokers.base import Message
from qworker.brokers.sqlite.broker import SqliteBroker, SqliteQueue
from qworker.errors import LeaseLost
from qworker.testing.clock import FakeClock
from qworker.testing.contract import FakeHarness, Harness
from qworker.testing.model import Lease, ModelMessage, ModelQueue, QueueMachine


class Machine(QueueMachine):
    async def open_harness(self) -> Harness:
        clock = FakeClock()
        return FakeHarness(SqliteBroker(None, clock=clock), clock)


async def keeps_what_is_deleted(self: SqliteQueue, message_id: str, receipt: str) -> None:
    await update(self, message_id, receipt, visibility=1)


async def deletes_with_any_receipt(self: SqliteQueue, message_id: str, receipt: str) -> None:
    with suppress(LeaseLost):
        await delete(self, message_id, receipt)


async def never_expires(self: SqliteQueue, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
    return await put(self, body, delay=delay)


async def forgets_the_delay(self: SqliteQueue, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
    return await put(self, body, ttl=ttl)


async def leases_too_long(self: SqliteQueue, limit: int = 1, *, visibility: int) -> list[Message]:
    return await get(self, limit, visibility=visibility + 1)


async def loses_new_bodies(
    self: SqliteQueue, message_id: str, receipt: str, *, visibility: int, body: str | None = None
) -> str:
    return await update(self, message_id, receipt, visibility=visibility)


put, get, update, delete = SqliteQueue.put, SqliteQueue.get, SqliteQueue.update, SqliteQueue.delete


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("delete", keeps_what_is_deleted),
        ("delete", deletes_with_any_receipt),
        ("put", never_expires),
        ("put", forgets_the_delay),
        ("get", leases_too_long),
        ("update", loses_new_bodies),
    ],
)
def test_histories_find_a_fault(monkeypatch: pytest.MonkeyPatch, operation: str, fault: Callable[..., Any]) -> None:
    monkeypatch.setattr(SqliteQueue, operation, fault)
    search = settings(
        max_examples=300,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=search)


def test_a_message_is_visible_from_its_moment_to_its_end() -> None:
    queue = ModelQueue({"a": ModelMessage("x", visible_at=5, expires_at=8)})
    assert [set(), {"a"}, {"a"}, set()] == [queue.visible(now) for now in (4.9, 5, 7.9, 8)]


def test_only_the_newest_receipt_holds() -> None:
    queue = ModelQueue({"a": ModelMessage("x", visible_at=0, expires_at=10)})
    queue.leased("a", "first", visible_at=1)
    queue.leased("a", "second", visible_at=20)
    assert queue.held(Lease("a", "first"), now=2) is None
    assert queue.messages["a"] is queue.held(Lease("a", "second"), now=2)
    assert queue.held(Lease("a", "second"), now=10) is None


def test_a_queue_is_unsettled_near_its_moments() -> None:
    queue = ModelQueue({"a": ModelMessage("x", visible_at=5, expires_at=8)})
    assert [True, False, False, True, False] == [queue.is_settled(now, 0.25) for now in (4.7, 4.8, 5.2, 6, 8.1)]
