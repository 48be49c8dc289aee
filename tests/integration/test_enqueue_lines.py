"""qworker enqueue --from, as a user sees it: what is enqueued, what is said, and how to go on."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fault_actions import Answer
from fault_exchange import Exchange
from fault_proxy import FaultProxy
from fault_rules import Rule
from stage import MakeStage, Stage
from waiting import until, wait_until


def command(stage: Stage, *options: str) -> list[str]:
    return [sys.executable, "-m", "qworker", "enqueue", "jobs.quick", "-q", stage.queue, "--from", *options]


def run(stage: Stage, *options: str, **streams: Any) -> "subprocess.CompletedProcess[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(
        command(stage, *options), cwd=stage.folder, env=stage.env(), text=True, timeout=60, check=False, **pipes
    )


def write_lines(stage: Stage, jobs: int) -> str:
    (stage.folder / "jobs.jsonl").write_text("".join(f'{{"args":[{n}]}}\n' for n in range(1, jobs + 1)))
    return "jobs.jsonl"


def queued(stage: Stage) -> Counter[int]:
    """Return the arguments of what is in the queue."""

    async def bodies() -> list[str]:
        queue, found = stage.app.broker.queue(stage.queue), list[str]()
        while batch := await queue.get(32, visibility=60):
            found += [message.body for message in batch]
        return found

    return Counter(json.loads(body)["args"][0] for body in stage.app._portal.run(bodies()))


def test_the_lines_of_a_pipe_are_run(stage: Stage) -> None:
    lines = '{"kwargs":{"n":1}}\nnonsense\n{"args":[2],"task":"jobs.rest","kwargs":{"seconds":0}}\n'
    ended = run(stage, "-", input=lines)
    assert (65, "qworker: line 2: it is not a JSON object\n") == (ended.returncode, ended.stderr)
    assert re.fullmatch(r"2 jobs enqueued in \d+\.\d s, 1 bad line\n", ended.stdout)
    stage.worker("--burst").wait()
    assert [1, 2] == sorted(line["n"] for line in stage.history.read() if line["what"] == "end")


@dataclass(frozen=True)
class LateRefusal:
    """Refuse a request that others, which came later, are done before."""

    proxy: FaultProxy

    async def apply(self, exchange: Exchange) -> None:
        await until(lambda: self.proxy.requests["put"] > 150)
        await Answer(403, "AuthorizationPermissionMismatch").apply(exchange)


def test_what_a_broker_has_refused_can_be_enqueued_later(fault_proxy: FaultProxy, stage_on: MakeStage) -> None:
    """Puts are under way beside each other: what is refused need not come last."""
    stage = stage_on(fault_proxy.connection_string)
    fault_proxy.add(Rule(LateRefusal(fault_proxy), on="put", nth=100))
    file = write_lines(stage, 300)
    ended = run(stage, file)
    assert (1, "", 1) == (ended.returncode, ended.stdout, len(ended.stderr.splitlines()))
    said = re.search(r"go on with (--start-line \d+ --skip-lines \d+-\d+)$", ended.stderr.strip())
    assert said is not None, ended.stderr

    again = run(stage, file, *said[1].split())

    assert (0, "") == (again.returncode, again.stderr)
    assert Counter(range(1, 301)) == queued(stage)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_one_line(sqlite_stage: Stage, number: signal.Signals) -> None:
    lines = b'{"args":[1]}\n{"args":[2]}\n{"args":'
    sqlite_stage.app._portal.run(sqlite_stage.app.broker.create_queue(sqlite_stage.queue))
    with subprocess.Popen(
        command(sqlite_stage, "-"),
        cwd=sqlite_stage.folder,
        env=sqlite_stage.env(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as work:
        try:
            assert work.stdin is not None
            work.stdin.write(lines)
            work.stdin.flush()
            wait_until(lambda: 2 == sqlite_stage.remaining())
            work.send_signal(number)
            assert work.stderr is not None
            said = work.stderr.read()
        finally:
            work.kill()
    assert 128 + number == work.returncode
    assert re.fullmatch(rb"qworker: interrupted; 2 jobs enqueued in \d+\.\d s: go on with --start-line 3\n", said)


def test_a_closed_pipe_does_not_hide_what_was_done(sqlite_stage: Stage) -> None:
    file = write_lines(sqlite_stage, 2)
    reader, closed = os.pipe()
    os.close(reader)
    ended = run(sqlite_stage, file, stdout=closed)
    assert (0, "2 jobs enqueued in ") == (ended.returncode, ended.stderr[:19])
    with (sqlite_stage.folder / file).open("a") as lines:
        lines.write("nonsense\n")
    ended = run(sqlite_stage, file, stderr=closed)
    assert (1, "go on with --start-line 1\n") == (ended.returncode, ended.stdout[-26:])
    assert 1 == run(sqlite_stage, file, stdout=closed, stderr=closed).returncode
    os.close(closed)


def test_a_terminal_has_a_bar_and_a_pipe_has_none(sqlite_stage: Stage) -> None:
    file = write_lines(sqlite_stage, 2)
    (sqlite_stage.folder / file).write_text('{"args":[1]}\n{"args":["\x1b[31m"]}\n{"[bold]":1}\n')
    piped = run(sqlite_stage, file)
    assert "\x1b" not in piped.stdout + piped.stderr
    assert 2 == len(piped.stderr.splitlines())

    terminal, theirs = pty.openpty()
    ended = run(sqlite_stage, file, stderr=theirs)
    os.close(theirs)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert (65, "1 job enqueued in") == (ended.returncode, ended.stdout[:17])
    assert "qworker: line 3: no such key: '[bold]'" in shown
    assert "1 jobs" in shown
    assert "━" in shown


def test_a_damaged_file_ends_it_with_its_own_code(sqlite_stage: Stage) -> None:
    file = write_lines(sqlite_stage, 2)
    Path(sqlite_stage.folder / "notes.db").write_text("not a database, but somebody's notes\n" * 100)
    ended = run(sqlite_stage, file, "--broker", "sqlite:///notes.db")
    assert (78, 1) == (ended.returncode, len(ended.stderr.splitlines()))
    assert ended.stderr.endswith("go on with --start-line 1\n")
