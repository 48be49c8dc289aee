"""What every test may ask for."""

import signal

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is. A failure prints what it takes to see it again.
settings.register_profile("qworker", deadline=None, print_blob=True)
settings.load_profile("qworker")

pytest_plugins = ["azurite_server", "fault_report", "fault_proxy", "stage", "troubled", "kept", "watched"]


def pytest_configure() -> None:
    """Have workers hear a SIGINT: tests that a shell has started in its background ignore it, as do their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
