"""What a job costs, in counts that no other load on the machine can change: requests, transactions and calls.

A limit here is what it costs now and a tenth more. Less is welcome: lower it then. docs/performance.md has the times.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from azure.core.pipeline.transport import HttpRequest

from azurite_server import KEY, connection_string
from doubles import ScriptedBroker, message
from fault_proxy import FaultProxy
from idle import arun_until_idle
from qworker import App
from qworker.brokers.azure.broker import AzureBroker
from qworker.brokers.azure.transport import Answer, BareTransport
from qworker.brokers.sqlite.writer import Writer
from qworker.job import Job
from qworker.wire.envelope import encode

JOBS = 640


@contextmanager
def calls_counted() -> Iterator[Counter[str]]:
    """Count the calls of Python functions in this thread, by the file they are in: few of them are fast at nothing."""
    counted: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            counted[frame.f_code.co_filename] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield counted
    finally:
        sys.setprofile(before)


def ours(counted: Counter[str]) -> int:
    """Return how many of the calls were of qworker's own functions: what those of libraries are, they decide."""
    return sum(count for file, count in counted.items() if "qworker/" in file and "tests/" not in file)


def app_with(broker: Any) -> App:
    app = App(broker=broker)

    @app.task(name="noop")
    async def noop(number: int) -> None: ...

    return app


# Azure


@pytest.mark.parametrize(("bundle", "most"), [(1, (1.0, 2.15)), (100, (7 / JOBS, 0.05))])
async def test_requests_a_job(fault_proxy: FaultProxy, bundle: int, most: tuple[float, float]) -> None:
    """Single messages take a put, a delete and a share of a get; bundles a hundredth of each."""
    app = app_with(AzureBroker.from_connection_string(fault_proxy.connection_string))
    await app.broker.create_queue("default")
    await app.get_task("noop").using(bundle=bundle).aenqueue_many([(n,) for n in range(JOBS)])
    puts = fault_proxy.requests["put"]
    await arun_until_idle(app, concurrency=32)
    await app.aclose()
    asked = fault_proxy.requests
    assert (JOBS * most[0], JOBS * most[0]) == pytest.approx((puts, asked["delete"]), abs=1)
    assert puts + asked["get"] + asked["update"] + asked["delete"] <= JOBS * most[1]


async def test_calls_of_an_azure_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(_: BareTransport, request: HttpRequest, **__: Any) -> Answer:
        return Answer(204, {"x-ms-popreceipt": "r2"}, b"")

    monkeypatch.setattr(BareTransport, "send", send)
    broker = AzureBroker.from_connection_string(connection_string(1, KEY))
    queue = broker.queue("mail")
    await queue.delete("id", "receipt")
    with calls_counted() as counted:
        for _ in range(100):
            await queue.delete("id", "receipt")
    await broker.aclose()
    assert ours(counted) <= 17 * 100
    assert sum(counted.values()) <= 160 * 100


async def test_calls_of_a_job() -> None:
    broker = ScriptedBroker()
    app = app_with(broker)
    queue = broker.queue("default")
    waiting = [message(encode(Job(f"j{n}", "noop", [n])), number=n) for n in range(JOBS)]
    queue.will("get", *(waiting[start : start + 32] for start in range(0, JOBS, 32)))
    with calls_counted() as counted:
        await arun_until_idle(app, concurrency=32)
    assert JOBS == len(queue.called("delete"))
    assert len(queue.called("get")) <= 30
    assert ours(counted) <= 148 * JOBS
    assert sum(counted.values()) <= 250 * JOBS


async def test_calls_of_an_enqueue() -> None:
    broker = ScriptedBroker()
    noop = app_with(broker).get_task("noop")
    await noop.aenqueue(0)
    with calls_counted() as counted:
        await noop.aenqueue_many([(n,) for n in range(JOBS)])
    assert ours(counted) <= 24 * JOBS
    assert sum(counted.values()) <= 50 * JOBS


# SQLite


async def test_transactions_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transactions: Counter[bool] = Counter()
    set_durable = Writer._set_durable

    def counted(self: Writer, connection: Any, *, durable: bool) -> None:
        transactions[durable] += 1
        set_durable(self, connection, durable=durable)

    monkeypatch.setattr(Writer, "_set_durable", counted)
    app = app_with(f"sqlite:///{tmp_path}/q.db")
    await app.get_task("noop").aenqueue_many([(n,) for n in range(5000)])
    assert transactions[True] <= 10
    await arun_until_idle(app, concurrency=32)
    await app.aclose()
    assert sum(transactions.values()) <= 0.1 * 5000
