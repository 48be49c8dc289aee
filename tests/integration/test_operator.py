"""What an operator does to queues from the command line, on each broker."""

import contextlib
import json
import os
import pty
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from typing import Any, Final
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

import billing
from azurite_server import Azurite, connection_string
from qworker.cli import main
from qworker.job import Job
from qworker.outcome import Failure
from qworker.poison.record import PoisonRecord, decode_poison, encode_poison
from qworker.poison.replay import replay
from qworker.poison.selection import Selection
from qworker.poison.sweep import Pass, Progress
from qworker.wire.bundle import bundled
from qworker.wire.envelope import encode
from running import ROOT
from stage import Stage, WorkerProcess
from waiting import wait_until

NOW: Final = datetime.now(UTC)
GATE: Final = "import sys; from qworker.cli import main; import qworker.poison.replay; sys.stdin.readline(); main()"
SECRET: Final = "argument-canary"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.out.splitlines()]


Command = Callable[..., Ended]


@pytest.fixture
def command(stage: Stage, run: Command) -> Command:
    """Run a command on each broker."""
    return run


@pytest.fixture
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, in which a pipe reads what it prints and no terminal is there."""
    name = "sqlite_stage" if "sqlite_stage" in request.fixturenames else "stage"
    monkeypatch.setenv("QWORKER_BROKER", request.getfixturevalue(name).url)
    monkeypatch.setattr(sys, "stdin", StringIO())

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["qworker", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        read = capsys.readouterr()
        return Ended(int(ended.value.code or 0), read.out, read.err)

    return call


def poisoned(n: int, *, hours: float = 0, task: str | None = None, job_id: str = "") -> str:
    """Return a record of a job: of the task even or odd, unless another is named."""
    kind, error = ("odd", "KeyError") if n % 2 else ("even", "app.NoError")
    task = task or kind
    job = Job(job_id or f"j{n}", task, kwargs={"n": n, "to": SECRET})
    failure = Failure(error, f"no {n}", "Traceback:\n  in the handler\n", "app.py:7 in odd")
    at = NOW - timedelta(hours=hours)
    return encode_poison(PoisonRecord(encode(job), "mail", failure, 5, "host:1", at, f"m{n}", job.id, task))


def put(stage: Stage, *bodies: str, suffix: str = "-poison") -> None:
    async def fill() -> None:
        for each in ("", "-poison"):
            await stage.app.broker.create_queue(stage.queue + each)
        for body in bodies:
            await stage.app.broker.queue(stage.queue + suffix).put(body)

    stage.app._portal.run(fill())


def make_older(stage: Stage, hours: Mapping[int, float]) -> None:
    """Have some jobs given up, by their numbers, so many hours before they were."""
    with contextlib.closing(sqlite3.connect(stage.url.removeprefix("sqlite:///"))) as file, file:
        for n, by in hours.items():
            change = "UPDATE messages SET inserted_at = inserted_at - ? WHERE instr(body, ?)"
            assert 1 == file.execute(change, (by * 3_600_000, f'"message_id":"m{n}"')).rowcount


def taken(stage: Stage, suffix: str = "-poison") -> Counter[int]:
    """Take what is visible; say how many of each number."""

    async def bodies() -> list[str]:
        queue, found = stage.app.broker.queue(stage.queue + suffix), []
        while batch := await queue.get(32, visibility=600):
            found += [message.body for message in batch]
        return found

    return Counter(n_of(body) for body in stage.app._portal.run(bodies()))


def n_of(body: str) -> int:
    fields = json.loads(body)
    return int(json.loads(decode_poison(body).body if "poison" in fields else body)["kwargs"]["n"])


def test_the_table_of_queues(stage: Stage, command: Command) -> None:
    name = stage.queue
    made = command("queues", "create", name)
    assert (0, f"{name} created\n", "") == (made.code, made.out, made.err)
    assert f"{name} exists already\n" == command("queues", "create", name).out
    put(stage, encode(Job("j1", "t")), suffix="")
    put(stage, poisoned(1), poisoned(2))

    table = command("queues")
    assert ["QUEUE", "MESSAGES", "OLDEST", "GIVEN", "UP"] == table.lines[0]
    (row,) = [line for line in table.lines if line[0] == name]
    assert ("1", "2") == (row[1], row[3])
    assert row[2].endswith("s")
    assert f"{name}-poison" not in table.out
    (of_this,) = [each for each in command("queues", "--json").json if each["queue"] == name]
    assert (1, 2) == (of_this["messages"], of_this["given_up"])
    assert 0 <= of_this["oldest_seconds"] < 60
    assert "2\n" == command("queues", "count", f"{name}-poison").out
    assert {"queue": name, "messages": 1} == command("queues", "count", name, "--json").json


def test_a_peek_shows_what_each_message_is(stage: Stage, command: Command) -> None:
    now = datetime.now(UTC)
    bodies = [
        encode(Job("j1", "mail.send", [SECRET], enqueued_at=now - timedelta(minutes=5.5), state={"page": SECRET}))[:-1]
        + ',"last":true}',
        bundled([encode(Job(f"b{n}", "mail.many", [SECRET])) for n in range(3)], "text"),
        poisoned(1),  # is no record here, where anybody may put one
        "no envelope",
        encode(Job("j2", "base", ttl=7199, headers={"trace": SECRET}), "base64"),
    ]
    put(stage, *bodies, suffix="")
    put(stage, poisoned(1, hours=3))

    shown = command("queues", "peek", stage.queue)
    assert (0, "", 6) == (shown.code, shown.err, len(shown.lines))
    rows = {line[1]: " ".join(line) for line in shown.lines[1:]}
    assert "j1 mail.send 0 5m last attempt, has a checkpoint" == rows["mail.send"]
    assert rows["mail.many"].endswith("bundle of 3 jobs")
    assert any("no job: 'task' is missing" in row for row in rows.values())
    assert rows["base"].endswith("worth starting for 119m")
    assert any("no job: it is neither a JSON object nor Base64" in row for row in rows.values())
    assert SECRET not in shown.out

    listed = command("queues", "peek", stage.queue, "--json")
    (with_ttl,) = (each for each in listed.json if each["job"] == "j2")
    lasts = datetime.fromisoformat(with_ttl["start_by"]) - datetime.fromisoformat(with_ttl["inserted_at"])
    assert 7199 == lasts.total_seconds()
    assert {None} == {each["start_by"] for each in listed.json if each["job"] != "j2"}
    assert {"job": 1, "bundle": 3, "other": 0} == {each["kind"]: each["jobs"] for each in listed.json}
    [_, record] = command("queues", "peek", f"{stage.queue}-poison").lines
    assert record[:3] == ["j1", "odd", "5"]
    assert " ".join(record).endswith("s KeyError: no 1")
    assert ["poison"] == [each["kind"] for each in command("queues", "peek", f"{stage.queue}-poison", "--json").json]
    assert SECRET not in listed.out
    asked = command("queues", "peek", stage.queue, "--args")
    assert ["args", f'["{SECRET}"]'] in asked.lines
    assert ["checkpoint", '{"page":', f'"{SECRET}"}}'] in asked.lines
    assert ["body", "no", "envelope"] in asked.lines
    assert SECRET in json.dumps(
        [each["contents"] for each in command("queues", "peek", stage.queue, "--json", "--args").json]
    )
    assert "2 of about 5 (-n 32 shows more)\n" == command("queues", "peek", stage.queue, "-n", "2").err
    assert {0} == set(_dequeue_counts(stage))


def _dequeue_counts(stage: Stage) -> list[int]:
    peeked = stage.app._portal.run(stage.app.broker.queue(stage.queue).peek(32))
    return [each.dequeue_count for each in peeked]


def test_what_can_not_be_undone_is_asked_for(stage: Stage, command: Command) -> None:
    name = stage.queue
    put(stage, encode(Job("j1", "t")), suffix="")
    put(stage, poisoned(1))
    for arguments in (["queues", "clear", name], ["queues", "delete", name], ["poison", "purge", name]):
        refused = command(*arguments)
        assert (2, "", 1) == (refused.code, refused.out, len(refused.err.splitlines()))
        assert "There is no terminal to ask on, and nothing was done: use --yes" in refused.err
    assert (1, 1) == (stage.remaining(), len(stage.poisoned()))

    assert f"{name} cleared\n" == command("queues", "clear", name, "--yes").out
    assert "1 job deleted\n" == command("poison", "purge", name, "--yes").out
    assert (0, []) == (stage.remaining(), stage.poisoned())
    assert {"queue": name, "deleted": True} == command("queues", "delete", name, "-y", "--json").json
    gone = command("queues", "count", name)
    assert (66, "", f"qworker: queue '{name}' does not exist\n") == (gone.code, gone.out, gone.err)


def test_a_no_is_taken_for_an_answer(sqlite_stage: Stage) -> None:
    put(sqlite_stage, poisoned(1))
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "qworker", "poison", "purge", sqlite_stage.queue],
        env=sqlite_stage.env(),
        cwd=sqlite_stage.folder,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    with process:
        assert b"" == process.communicate(timeout=60)[0]
    assert 1 == process.returncode
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert f"Delete all of about 1 job in {sqlite_stage.queue}-poison?" in said
    assert "qworker: nothing was done" in said
    assert 1 == len(sqlite_stage.poisoned())


def test_what_was_given_up_is_listed_and_shown(stage: Stage, command: Command) -> None:
    put(stage, *(poisoned(n, hours=n) for n in range(4)))
    put(stage, "x" * 65_536)

    listed = command("poison", "list", stage.queue)
    assert (0, "", 6) == (listed.code, listed.err, len(listed.lines))
    assert [["j3", "odd"], ["KeyError:", "no", "3"]] in [[line[:2], line[3:]] for line in listed.lines]
    assert "not recorded" in listed.out

    def ids(*options: str) -> set[str]:
        return {each["job"] for each in command("poison", "list", stage.queue, "--json", *options).json}

    assert {"j0", "j2"} == ids("--task", "even") == ids("--error", "NoError") == ids("--error", "app.*")
    assert set() == ids("--older", "90m"), "a worker's clock doesn't say when a job was given up"
    assert {"j0", "j1", "j2", "j3", None} == ids("--newer", "90m")
    assert {"j1", "j3"} == ids("--job", "j1", "--job", "m3")
    nothing = command("poison", "list", stage.queue, "--task", "none")
    assert (0, "", 1) == (nothing.code, nothing.out, len(nothing.err.splitlines()))

    here = ["-q", stage.queue]
    shown = command("poison", "show", "j1", *here)
    assert (0, "") == (shown.code, shown.err)
    for line in (
        f"queue      {stage.queue}",
        "error      KeyError: no 1",
        "attempts   5",
        "at         app.py:7 in odd",
    ):
        assert line in shown.out.splitlines()
    assert "traceback\n    Traceback:\n      in the handler\n" in shown.out
    assert SECRET not in shown.out
    assert SECRET in command("poison", "show", "m1", *here, "--args").out
    (as_json,) = command("poison", "show", "j1", *here, "--json").json
    assert ("KeyError", 5) == (as_json["error"]["type"], as_json["attempts"])
    assert ["queue", stage.queue] in command("poison", "show", record_id(stage, 1)).lines
    missing = command("poison", "show", "j9")
    assert (66, "", "qworker: no job or message 'j9' was given up\n") == (missing.code, missing.out, missing.err)


def test_which_are_older_is_known_by_the_brokers_clock(sqlite_stage: Stage, run: Command) -> None:
    put(sqlite_stage, *(poisoned(n) for n in range(4)))
    make_older(sqlite_stage, {1: 1, 2: 2, 3: 3})

    def ids(*options: str) -> set[str]:
        return {each["job"] for each in run("poison", "list", sqlite_stage.queue, "--json", *options).json}

    assert {"j2", "j3"} == ids("--older", "90m")
    assert {"j0", "j1"} == ids("--newer", "90m")
    assert {"j1"} == ids("--newer", "90m", "--older", "30m")
    assert ["j3", "odd", "3h"] in [line[:3] for line in run("poison", "list", sqlite_stage.queue).lines]
    assert "1 job deleted\n" == run("poison", "purge", sqlite_stage.queue, "--older", "150m", "--yes").out


def test_a_replay_says_that_a_ttl_counts_anew(sqlite_stage: Stage, run: Command) -> None:
    failure = Failure("ValueError", "no")
    jobs = [Job("j1", "t", ttl=3), Job("j2", "t"), Job("j3", "t", ttl=9)]
    put(sqlite_stage, *(encode_poison(PoisonRecord(encode(job), "mail", failure, 1, "h:1", NOW, "m")) for job in jobs))
    queue = sqlite_stage.queue
    assert f"2 jobs put back into {queue}; the ttl of 1 counts anew\n" == run("poison", "replay", queue, "-n", "2").out
    assert {"queue": queue, "jobs": 1, "looked_at": 1, "left": 0, "ttl_anew": 1} == run(
        "poison", "replay", queue, "--json"
    ).json


def record_id(stage: Stage, n: int) -> str:
    """Return the id of the poison message of job n, which is unlike those in other queues."""
    peeked = stage.app._portal.run(stage.app.broker.queue(f"{stage.queue}-poison").peek(32))
    return next(message.id for message in peeked if f'"j{n}"' in message.body)


def test_a_job_is_known_by_the_beginning_of_its_id(stage: Stage, command: Command) -> None:
    ids = ["01a2254f-0001-7000", "01a2254f-0002-7000", "01a2254f-0003-7000", "01a2254f-0003-7000-more", "0fff"]
    records = [poisoned(n, job_id=job) for n, job in enumerate(ids)]
    put(stage, *records, records[0])
    here = ["-q", stage.queue]

    def jobs(*arguments: str) -> list[str]:
        return [each["job"] for each in command("poison", *arguments, "--json").json]

    assert [ids[1]] == jobs("show", "01a2254f-0002", *here) == jobs("show", "01A2254F-0002", *here)
    assert [ids[0]] * 2 == jobs("show", "01a2254f-0001", *here)
    assert [ids[2]] == jobs("show", ids[2], *here)  # the whole of one, and the beginning of another
    several = command("poison", "show", "01a2", *here)
    told = f"qworker: the ids of 4 jobs begin with '01a2': {', '.join(ids[:3])} …\n"
    assert (2, "", told) == (several.code, several.out, several.err)
    assert 66 == command("poison", "show", "0ff", *here).code  # too little is no beginning

    only = [stage.queue, "--job"]
    assert 2 == command("poison", "replay", *only, "01a2").code
    assert 66 == command("poison", "purge", *only, "beef", "--yes").code
    assert 6 == len(jobs("list", stage.queue))
    assert [ids[1]] == jobs("list", *only, "01a2254f-0002")
    assert f"1 job put back into {stage.queue}\n" == command("poison", "replay", *only, "01a2254f-0002").out
    assert "2 jobs deleted\n" == command("poison", "purge", *only, "01a2254f-0001", "--yes").out
    assert 2 == len(jobs("list", stage.queue, "-n", "2"))


def test_without_a_queue_all_are_meant(sqlite_stage: Stage, run: Command) -> None:
    sqlite_stage.app._portal.run(sqlite_stage.app.broker.create_queue("empty"))
    nothing = run("poison", "replay")
    assert (0, "", "no job was given up\n") == (nothing.code, nothing.out, nothing.err)
    put(sqlite_stage, *map(poisoned, range(4)))
    first, sqlite_stage.queue = sqlite_stage.queue, f"z{sqlite_stage.queue}"
    put(sqlite_stage, *map(poisoned, range(4)))
    listed = run("poison", "list", "--task", "odd", "--json").json
    assert {first: 2, sqlite_stage.queue: 2} == Counter(each["queue"] for each in listed)
    replayed = run("poison", "replay", "--task", "odd", "-n", "3").out
    assert [f"2 jobs put back into {first}", f"1 job put back into {sqlite_stage.queue}"] == replayed.splitlines()
    assert ["2 jobs deleted", "3 jobs deleted"] == run("poison", "purge", "-y").out.splitlines()


def test_more_than_can_be_seen(stage: Stage, command: Command) -> None:
    """40 in the poison queue, of which a look shows 32."""
    put(stage, *map(poisoned, range(40)))
    name = stage.queue

    listed = command("poison", "list", name)
    assert 33 == len(listed.lines)
    assert listed.err.startswith(f"{name}-poison: looked at 32 of about 40, ")
    hidden = {f"j{n}" for n in range(40)} - {line[0] for line in listed.lines}
    assert f"job      {min(hidden)}".split() == command("poison", "show", min(hidden), "-q", name).lines[0]

    dry = command("poison", "replay", name, "--error", "KeyError", "--dry-run")
    assert [["JOBS", "TASK", "ERROR"], ["20", "odd", "KeyError"]] == dry.lines[:2]
    assert (f"20 jobs would be put back into {name}", "") == (dry.out.splitlines()[-1], dry.err)
    as_json = command("poison", "purge", name, "--dry-run", "--json").json
    assert (40, 40, True, 2) == (as_json["jobs"], as_json["looked_at"], as_json["dry_run"], len(as_json["found"]))
    some = command("poison", "purge", name, "--task", "odd", "-n", "3", "--yes")
    assert ("3 jobs deleted\n", "") == (some.out, some.err)
    replayed = command("poison", "replay", name, "--task", "even")
    assert (0, f"20 jobs put back into {name}\n", "") == (replayed.code, replayed.out, replayed.err)
    assert Counter(range(0, 40, 2)) == taken(stage, "")
    left = taken(stage)
    assert (17, 17, set()) == (len(left), sum(left.values()), left.keys() - set(range(1, 40, 2)))

    # All of it is invisible now, as it is while another command is at work.
    again = command("poison", "replay", name)
    assert (0, f"0 jobs put back into {name}\n") == (again.code, again.out)
    assert again.err.startswith("about 17 more could not be looked at")
    assert "about 17 more are invisible" in command("poison", "list", name).err


def start(stage: Stage, *arguments: str, point: str = "", code: str = GATE) -> "subprocess.Popen[str]":
    """Start a command, which waits for a line before it begins."""
    env = stage.env() | {"QWORKER_LEASE": "2"} | ({"QWORKER_FAULTPOINT": point} if point else {})
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=env, cwd=stage.folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_ctrl_c_ends_a_replay_in_one_line_and_with_nothing_lost(stage: Stage) -> None:
    put(stage, *map(poisoned, range(64)))
    name = stage.queue
    process = start(stage, "poison", "replay", name, "--task", "even", point="after-replay-put:3:INT")
    out, err = process.communicate("begin\n", timeout=60)

    back = taken(stage, "")
    said = f"qworker: interrupted: {len(back)} jobs put back into {name}, the others are still in {name}-poison\n"
    assert (130, "", said) == (process.returncode, out, err)
    assert 3 <= len(back) < 32
    assert Counter(range(64)) == back + taken(stage)  # visible at once, and each of them once


def test_a_filtered_replay_is_killed_and_another_goes_on(stage: Stage) -> None:
    put(stage, *map(poisoned, range(64)))
    filtered = ["poison", "replay", stage.queue, "--task", "even"]
    victim, other = start(stage, *filtered, point="after-replay-put:9:KILL"), start(stage, *filtered)
    victim.communicate("begin\n", timeout=60)  # what it has leased stays invisible for a while
    other.communicate("begin\n", timeout=60)
    assert (0, -signal.SIGKILL) == (other.returncode, victim.returncode)

    wait_until(partial(all_was_visible, stage), what="the end of the leases")
    back = taken(stage, "")
    assert set(range(0, 64, 2)) == set(back)
    assert max(back.values()) <= 2
    assert Counter(range(1, 64, 2)) == taken(stage)


def all_was_visible(stage: Stage) -> bool:
    """Put back what is visible and even; return whether nothing was invisible, as what the killed one held was."""
    told: list[Progress] = []
    even = Selection(task="even")
    stage.app._portal.run(replay(stage.app.broker, stage.queue, Pass(selection=even, told=told.append)))
    return told[-1].looked_at == told[-1].there


def test_a_pipe_that_is_closed_ends_it_quietly(sqlite_stage: Stage) -> None:
    put(sqlite_stage, *map(poisoned, range(3)))
    reader, writer = os.pipe()
    os.close(reader)
    listing = subprocess.run(
        [sys.executable, "-m", "qworker", "poison", "list", sqlite_stage.queue],
        env=sqlite_stage.env(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (141, "") == (listing.returncode, listing.stderr)


def test_a_bar_is_for_terminals_only(sqlite_stage: Stage) -> None:
    put(sqlite_stage, *map(poisoned, range(3)))
    ours, theirs = pty.openpty()
    ended = subprocess.run(
        [sys.executable, "-m", "qworker", "poison", "replay", sqlite_stage.queue],
        env=sqlite_stage.env() | {"TERM": "xterm", "COLUMNS": "80"},
        cwd=sqlite_stage.folder,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    assert f"3 jobs put back into {sqlite_stage.queue}\n" == ended.stdout
    assert f"{sqlite_stage.queue}-poison" in os.read(ours, 65_536).decode()
    os.close(ours)


def test_the_commands_of_the_page_do_what_it_says(sqlite_stage: Stage, run: Command) -> None:
    page = (ROOT / "docs/operating.md").read_text()
    session = page.partition("## Commands on queues")[2].partition("```console\n")[2].partition("```")[0]
    put(sqlite_stage, *(poisoned(n, task=f"shop.t{n}") for n in range(6)))
    make_older(sqlite_stage, dict.fromkeys(range(6), 0.5))
    said = []
    for line in session.splitlines():
        program, *arguments = shlex.split(line.removeprefix("$ "))
        assert "qworker" == program
        named = [{"mail": sqlite_stage.queue, "JOB": "j1"}.get(argument, argument) for argument in arguments]
        said.append(run(*named))
    assert {0} == {ended.code for ended in said}, said
    counted = [said[number].out.splitlines()[-1] for number in (2, 6, 7, 8)]
    put_back = f"put back into {sqlite_stage.queue}"
    assert ["0", f"6 jobs would be {put_back}", f"6 jobs {put_back}", "0 jobs deleted"] == counted
    assert 3 == len(said[4].lines) - 1
    assert ["job", "j1"] == said[5].lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["queues"],
        ["queues", "create", "mail"],
        ["queues", "delete", "mail", "--yes"],
        ["queues", "clear", "mail", "--yes"],
        ["queues", "peek", "mail"],
        ["poison", "list"],
        ["poison", "list", "mail"],
        ["poison", "show", "j1"],
        ["poison", "replay", "mail"],
        ["poison", "purge", "mail", "--yes"],
    ],
    ids=" ".join,
)
def test_a_right_that_is_missing_is_one_line(
    arguments: list[str], azurite: Azurite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QWORKER_BROKER", connection_string(azurite.port, "d3Jvbmcga2V5"))
    monkeypatch.setattr(sys, "argv", ["qworker", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    read = capsys.readouterr()
    assert (1, "", 1) == (ended.value.code, read.out, len(read.err.splitlines()))
    assert "did not accept the credential to" in read.err


def test_a_bad_handler_is_seen_understood_and_mended_and_its_jobs_are_replayed(stage: Stage, command: Command) -> None:
    """With 500 jobs; fewer on Azurite, which takes its time."""
    queue, count = stage.queue, 500 if stage.url.startswith("sqlite") else 50
    billing.bill.using(queue=queue).enqueue_many([(n, "USD") for n in range(count)])
    bad = stage.worker("--health-port", "0", app="billing")
    wait_until(lambda: counted(bad, "poisoned") == count, what="the end of all")

    picture = command("top", "--once", "--interval", "0.2s", "--queue", queue, "--from", address_of(bad))
    assert [queue, "0", "0", "0", str(count)] in picture.lines
    dry = command("poison", "replay", queue, "--dry-run", "--json")
    assert [{"task": "billing.bill", "error": "ValueError", "jobs": count}] == dry.json["found"]
    job = command("poison", "list", queue, "--json").json[0]["job"]
    shown = command("poison", "show", job).out
    assert "no rate for USD" in shown
    assert "billing.py:15 in bill" in shown

    bad.send(signal.SIGTERM)
    assert 0 == bad.wait()
    good = stage.worker("--health-port", "0", app="billing", env={"CURRENCIES": "EUR,USD"})
    good.wait_for("worker.started")
    assert f"1 job put back into {queue}\n" == command("poison", "replay", queue, "-n", "1").out
    wait_until(lambda: counted(good, "succeeded") == 1, what="the one to try")
    assert f"{count - 1} jobs put back into {queue}\n" == command("poison", "replay", queue).out
    wait_until(lambda: counted(good, "succeeded") == count, what="all the others")
    assert "0\n" == command("queues", "count", queue).out == command("queues", "count", f"{queue}-poison").out


def address_of(worker: WorkerProcess) -> str:
    return f"http://127.0.0.1:{worker.wait_for('health.served')['port']}"


def counted(worker: WorkerProcess, outcome: str) -> float:
    """Return how many attempts came to this, as a worker's metrics say."""
    with urlopen(f"{address_of(worker)}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = (sample for family in families for sample in family.samples if sample.name == "qworker_jobs_total")
    return sum(sample.value for sample in samples if sample.labels["outcome"] == outcome)
