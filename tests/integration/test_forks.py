"""A producer on Azure that forks: its children's ends are not felt, whatever they do, and however they were made."""

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Final

import pytest

from azure_service import KEY, PUT_DONE, make_certificate, serving
from azurite_server import connection_string

_PROGRAM: Final = Path(__file__).parents[1] / "apps/forked_producer.py"
_ROUNDS: Final = 12
_AT_ONCE: Final = 5.0
"""Seconds: half of what a request takes that is never answered, and much more than one that is."""


@pytest.mark.parametrize("kind", ["sync", "async", "uvloop"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_child_leaves_its_parents_connections_alone(kind: str, scheme: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("QWORKER_TEST_SEED", random.randrange(10**6)))
    certificate = make_certificate(tmp_path / "certificate.pem")
    async with serving(certificate if scheme == "https" else None) as service:
        service.answer = PUT_DONE
        environment = {"SSL_CERT_FILE": str(certificate), "QWORKER_BROKER": text(service.port, scheme)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(_PROGRAM), kind, str(seed), str(_ROUNDS)),
            env=os.environ | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, complaints = await process.communicate()
    where = f"QWORKER_TEST_SEED={seed}"
    rounds = [json.loads(line) for line in printed.decode().splitlines() if line.startswith("{")]
    assert (0, "") == (process.returncode, complaints.decode()), where
    assert _ROUNDS == len(rounds), where
    assert {} == {line["did"]: line["took"] for line in rounds if line["took"] > _AT_ONCE}, where
    assert 1 + sum(line["put"] for line in rounds) == len(service.requests), "nothing was put twice"


def text(port: int, scheme: str) -> str:
    return connection_string(port, KEY).replace("http", scheme)
