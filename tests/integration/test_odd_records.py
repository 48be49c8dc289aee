"""One odd message in a queue, or record in a poison queue, is shown as bad and hinders no command."""

import asyncio
import contextlib
import io
import itertools
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from odd_records import RECORD, messages, records
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.cli import main
from qworker.lines.escaping import has_hidden
from qworker.outcome import Failure
from qworker.poison.record import PoisonRecord, encode_poison

SOUND = encode_poison(
    PoisonRecord(
        '{"task":"sound"}',
        "mail",
        Failure("KeyError", "the sound one"),
        5,
        "host:1",
        datetime(2026, 1, 1, tzinfo=UTC),
        "m0",
        "sound-id",
        "sound",
    )
)
COMMANDS = [
    "poison list",
    "poison list mail --json",
    "poison list --older 1s --task t* --error *",
    "poison show j7 --args",
    "poison show 1 --json --args",
    "queues peek mail-poison -n 32 --args",
    "queues peek mail-poison -n 32",
    "queues peek mail-poison -n 32 --json --args",
    "queues peek mail -n 32",
    "queues peek mail -n 32 --json --args",
    "queues",
    "top --once -n 0.1",
    "doctor --queue mail",
    "doctor --queue mail --json",
    "poison replay mail --dry-run",
    "poison replay mail --newer 1h --json",
    "poison purge mail --dry-run --json",
]


class Commands:
    """Commands on a file that is new for each example."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._paths: Iterator[Path] = (folder / f"{number}.db" for number in itertools.count())
        self._monkeypatch = monkeypatch

    def begin(self, **queues: list[str]) -> None:
        url = f"sqlite:///{next(self._paths)}"
        self._monkeypatch.setenv("QWORKER_BROKER", url)
        asyncio.run(_fill(Path(url.removeprefix("sqlite:///")), queues))

    def run(self, text: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        self._monkeypatch.setattr(sys, "argv", ["qworker", *text.split()])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), out.getvalue(), err.getvalue()


async def _fill(path: Path, queues: dict[str, list[str]]) -> None:
    broker = SqliteBroker(path)
    for name, bodies in queues.items():
        queue = name.replace("_", "-")
        await broker.create_queue(queue)
        for body in bodies:
            await broker.queue(queue).put(body)
    await broker.aclose()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.chdir(tmp_path)
    return Commands(tmp_path, monkeypatch)


@settings(
    deadline=None,
    max_examples=15,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to make an example smaller takes a minute for each step
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(records(), min_size=1, max_size=5), st.lists(messages(), max_size=3))
def test_no_record_hinders_a_command(commands: Commands, poison: list[str], jobs: list[str]) -> None:
    commands.begin(mail=jobs, mail_poison=[*poison, SOUND])
    for command in COMMANDS:
        code, out, err = commands.run(command)
        assert code in {0, 1, 66}, (command, err)
        assert not has_hidden((out + err).replace("\n", "")), command
        if "--json" in command and code != 66:
            json.loads(out)
        if command == "poison list":
            assert "KeyError: the sound one" in out
    code, out, err = commands.run("poison replay mail")
    _, left, _ = commands.run("poison list mail --json")
    assert (code == 1) == ("left in mail-poison that can't be put back; message " in err) == bool(json.loads(left))
    assert "sound-id" not in left


def odd(**said: Any) -> str:
    return json.dumps({"v": 1, "poison": dict(RECORD) | said, "body": '{"task":"t"}'})


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (odd(at="2026-01-01T00:00:00"), "'at' has no time zone: write 2026-11-23T05:00:00Z"),
        (odd(at="9999-12-31T23:59:59-14:00"), "'at' must be a time as in 2026-11-23T05:00:00Z"),
        (odd(at="0001-01-01T00:00:00+14:00"), "'at' must be a time as in 2026-11-23T05:00:00Z"),
        (odd(at=1e11), "'at' must be a time as in 2026-11-23T05:00:00Z"),
        (odd(attempts=10**4299), "'attempts' must be a whole number, 0 to 1000000"),
        (odd(attempts=-5), "'attempts' must be a whole number, 0 to 1000000"),
        (odd(job_id="j\x1b[31m\n"), "'job_id' holds a control character, or one that turns the direction of text"),
        (odd(job_id=""), "'job_id' must be a text"),
    ],
)
def test_an_odd_record_is_shown_as_bad_and_stays(commands: Commands, record: str, why: str) -> None:
    commands.begin(mail=[], mail_poison=[record, SOUND])
    code, out, _ = commands.run("poison list mail")
    assert (0, 3) == (code, len(out.splitlines()))
    assert out.splitlines()[1].endswith(f"it is no sound record of a poisoned job: {why}")
    code, out, err = commands.run("poison replay mail")
    assert (1, "1 job put back into mail\n") == (code, out)
    reason = f"it is no sound record of a poisoned job: {why}"
    assert f"1 message left in mail-poison that can't be put back; message 1: {reason}\n" == err
    assert "1 job deleted\n" == commands.run("poison purge mail --yes")[1]


def test_a_body_that_no_message_may_hold_is_left_by_each_replay(commands: Commands) -> None:
    bad = json.dumps({"v": 1, "poison": RECORD, "body": "\x01"})
    commands.begin(mail=[], mail_poison=[bad, SOUND])
    for put_back in ("1 job", "0 jobs"):
        code, out, err = commands.run("poison replay mail")
        assert (1, f"{put_back} put back into mail\n") == (code, out)
        assert "message 1: a message can't hold the character U+0001 (at 0): escape it" in err


def test_texts_of_others_can_not_fake_a_line(commands: Commands) -> None:
    failure = {"type": "E\x1b[2J", "message": "x\u202e\n2  default  t  1s  ValueError: faked", "where": "w\u200f"}
    commands.begin(
        mail=[json.dumps({"task": "t", "args": ["\u2066\r\nfaked"], "headers": {"a\nfaked": "\x07"}})],
        mail_poison=[odd(error=failure)],
    )
    for command in ("poison list", "poison show j7 --args", "queues peek mail --args", "top --once -n 0.1"):
        code, out, _ = commands.run(command)
        assert 0 == code
        assert not has_hidden(out.replace("\n", ""))
        assert not any(line.startswith(("faked", "2  default")) for line in out.splitlines())


def test_what_says_it_is_a_record_in_the_main_queue_is_none(commands: Commands) -> None:
    commands.begin(mail=[SOUND])
    assert "no job: 'task' is missing" in commands.run("queues peek mail")[1]
