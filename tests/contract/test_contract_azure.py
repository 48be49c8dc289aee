from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
from hypothesis import settings

from azurite_server import Azurite
from qworker.brokers.azure.broker import AzureBroker
from qworker.testing.contract import BrokerContract, Harness, RealHarness
from qworker.testing.model import QueueMachine


class TestAzurite(BrokerContract):
    @pytest.fixture
    async def harness(self, azurite: Azurite) -> AsyncIterator[Harness]:
        harness = RealHarness(AzureBroker.from_connection_string(azurite.connection_string))
        yield harness
        await harness.aclose()


class Machine(QueueMachine):
    connection_string: ClassVar[str]

    async def open_harness(self) -> Harness:
        return RealHarness(AzureBroker.from_connection_string(self.connection_string))


@pytest.fixture(autouse=True, scope="module")
def connect(azurite: Azurite) -> None:
    Machine.connection_string = azurite.connection_string


TestHistories = Machine.TestCase
TestHistories.settings = settings(max_examples=4, stateful_step_count=15, deadline=None, print_blob=True)
