"""What every test may ask for."""

import signal
from collections.abc import Iterator

import pytest
import structlog
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


@pytest.fixture(autouse=True)
def structlog_as_it_was() -> Iterator[None]:
    """Leave it as no program has configured it: even ``capture_logs`` configures it, for good."""
    yield
    structlog.reset_defaults()
