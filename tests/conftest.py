"""What every test may ask for."""

import pytest

pytest_plugins = ["azurite_server", "fault_proxy", "stage", "fault_report"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
