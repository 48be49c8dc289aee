"""An app on a broker in memory, for tests of what a worker does with its messages."""

from collections.abc import AsyncIterator

import pytest

from qworker import App
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.testing import EventRecorder, FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Return the broker's: the lease of the engine runs on the machine's own."""
    return FakeClock()


@pytest.fixture
async def broker(clock: FakeClock) -> AsyncIterator[SqliteBroker]:
    broker = SqliteBroker(None, clock=clock)
    await broker.create_queue("default")
    yield broker
    await broker.aclose()


@pytest.fixture
def app(broker: SqliteBroker) -> App:
    return App(broker=broker)


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()
