from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.testing.clock import FakeClock
from qworker.testing.contract import BrokerContract, FakeHarness, Harness
from qworker.testing.model import QueueMachine


class TestFile(BrokerContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[Harness]:
        clock = FakeClock()
        harness = FakeHarness(SqliteBroker(tmp_path / "queues.db", clock=clock), clock)
        yield harness
        await harness.aclose()


class TestMemory(BrokerContract):
    @pytest.fixture
    async def harness(self) -> AsyncIterator[Harness]:
        clock = FakeClock()
        harness = FakeHarness(SqliteBroker(None, clock=clock), clock)
        yield harness
        await harness.aclose()


class Machine(QueueMachine):
    async def open_harness(self) -> Harness:
        clock = FakeClock()
        return FakeHarness(SqliteBroker(None, clock=clock), clock)


TestHistories = Machine.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=60, deadline=None, print_blob=True)
