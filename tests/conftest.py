"""What every test may ask for."""

import pytest

pytest_plugins = ["azurite_server", "fault_report", "fault_proxy", "stage", "troubled", "kept", "watched"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
