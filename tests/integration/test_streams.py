"""Standard streams that are closed, full, or read by nobody: no traceback, no hang, and what was done stays done."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents import Runner
from qworker.errors import QueueNotFound
from qworker.job import Job
from qworker.wire.envelope import encode
from stage import Stage

HANDLERS = """
from qworker import task

@task(max_attempts=1)
async def quick() -> None: ...

@task(max_attempts=1)
def prints() -> None: print("printed by the handler" * 9_999, flush=True)

@task(max_attempts=1, executor="process")
def in_child() -> None: print("printed in a child" * 9_999, flush=True)
"""
CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")
WORKERS_STREAMS = (*CLOSED, "2> /dev/full > /dev/full", "2> >(true) > >(true)")
LOOKS = (
    "queues",
    "queues count default",
    "queues peek default --json",
    "poison list default --json",
    "doctor",
    "tasks odd",
    "top --once -n 0.1",
    "--help",
    "run --help",
    "--version",
)


Streams = tuple[str, str, str]
AS_TYPED: dict[str, Streams] = {
    "<&-": ("closed", "output", "errors"),
    ">&-": (os.devnull, "closed", "errors"),
    "2>&-": (os.devnull, "output", "closed"),
    "<&- >&- 2>&-": ("closed", "closed", "closed"),
    "> /dev/full": (os.devnull, "/dev/full", "errors"),
    "2> /dev/full": (os.devnull, "output", "/dev/full"),
    "2> /dev/full > /dev/full": (os.devnull, "/dev/full", "/dev/full"),
    "| true; exit ${PIPESTATUS[0]}": (os.devnull, "unread", "errors"),
}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    running = Runner()
    yield running
    running.close()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "odd.py").write_text(HANDLERS)
    return tmp_path


def shell(line: str, stage: Stage, here: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run what a user would type; $Q is the command."""
    known = stage.env() | {"Q": f"{sys.executable} -m qworker", "PYTHONPATH": str(here)}
    return subprocess.run(
        ["/bin/bash", "-c", line],
        cwd=here,
        env=known | env,
        capture_output=True,
        text=True,
        errors="replace",  # of a terminal in latin-1
        timeout=100,
        check=False,
    )


def forked(command: str, streams: str, runner: Runner, stage: Stage, here: Path) -> tuple[int, str]:
    """Run a command in a fork, which has loaded all; return its exit code and what came to standard error."""
    typed = ["qworker", *shlex.split(command)]
    code, _, errors = runner.run_with(typed, here, stage.env() | {"PYTHONPATH": str(here)}, AS_TYPED[streams])
    return code, errors


def fill(stage: Stage) -> None:
    async def put() -> None:
        for queue in ("default", "default-poison"):
            await stage.app.broker.create_queue(queue)
        for name in ("quick", "prints", "in_child"):
            await stage.app.broker.queue("default").put(encode(Job(name, f"odd.{name}")))

    stage.app._portal.run(put())


def count(stage: Stage, queue: str = "default") -> int:
    async def ask() -> int:
        try:
            return await stage.app.broker.queue(queue).count()
        except QueueNotFound:
            return -1

    return stage.app._portal.run(ask())


@pytest.mark.parametrize("closed", CLOSED)
def test_a_closed_stream_is_one_that_nobody_reads(closed: str, sqlite_stage: Stage, here: Path, runner: Runner) -> None:
    fill(sqlite_stage)
    for command in LOOKS[:7]:
        code, errors = forked(command, closed, runner, sqlite_stage, here)
        assert (0, False) == (code, "Traceback" in errors), command
    assert 2 == forked("poison purge default", closed, runner, sqlite_stage, here)[0]
    assert 0 == forked("enqueue odd.quick --from -", closed, runner, sqlite_stage, here)[0]
    assert 0 == shell(f"$Q enqueue odd.quick {closed}", sqlite_stage, here).returncode
    assert 4 == count(sqlite_stage)


@pytest.mark.parametrize("command", LOOKS)
def test_what_can_not_be_shown_is_one_line_or_none(
    command: str, sqlite_stage: Stage, here: Path, runner: Runner
) -> None:
    fill(sqlite_stage)
    code, errors = forked(command, "> /dev/full", runner, sqlite_stage, here)
    assert (1, 1) == (code, len(errors.splitlines())), errors
    assert "No space left on device" in errors
    assert (141, "") == forked(command, "| true; exit ${PIPESTATUS[0]}", runner, sqlite_stage, here)


def test_a_process_of_its_own_that_can_not_show_it_says_so_or_nothing(sqlite_stage: Stage, here: Path) -> None:
    fill(sqlite_stage)
    full = shell("$Q queues > /dev/full", sqlite_stage, here)
    assert (1, 1) == (full.returncode, len(full.stderr.splitlines())), full.stderr
    unread = shell("$Q queues | true; exit ${PIPESTATUS[0]}", sqlite_stage, here)
    assert unread.returncode in {0, 141}  # 0: it was quicker than true
    assert "" == unread.stderr


@pytest.mark.parametrize("where", ["> /dev/full", ">&-", "2> /dev/full > /dev/full", "| true; exit ${PIPESTATUS[0]}"])
def test_what_was_done_is_never_denied(where: str, sqlite_stage: Stage, here: Path, runner: Runner) -> None:
    fill(sqlite_stage)
    for command, queue, left in (
        ("enqueue odd.quick", "default", 4),
        ("queues create mail", "mail", 0),
        ("queues clear default --yes --json", "default", 0),
        ("poison replay default", "default", 0),
        ("poison purge default --yes --json", "default-poison", 0),
        ("queues delete default --yes", "default", -1),
    ):
        code, errors = forked(command, where, runner, sqlite_stage, here)
        assert 0 == code, (command, errors)
        assert "Traceback" not in errors
        assert left == count(sqlite_stage, queue)
    ended = shell(f"$Q enqueue odd.quick {where}", sqlite_stage, here)
    assert (0, False) == (ended.returncode, "Traceback" in ended.stderr)
    ended = shell("$Q enqueue odd.quick > /dev/full", sqlite_stage, here)
    assert 36 == len(ended.stderr.strip())  # the id is told where it can be


def test_an_error_that_can_not_be_told_has_its_code(sqlite_stage: Stage, here: Path, runner: Runner) -> None:
    fill(sqlite_stage)
    for where in ("2>&-", "2> /dev/full"):
        assert 66 == forked("queues count nowhere", where, runner, sqlite_stage, here)[0]
    assert 66 == shell("$Q queues count nowhere 2> /dev/full > /dev/full", sqlite_stage, here).returncode


@pytest.mark.parametrize(("processes", "loop"), [(1, "asyncio"), (1, "auto"), (2, "in turn")])
@pytest.mark.parametrize("streams", WORKERS_STREAMS)
def test_a_worker_does_its_jobs(streams: str, processes: int, loop: str, sqlite_stage: Stage, here: Path) -> None:
    fill(sqlite_stage)
    if processes == 2:  # whose workers have streams from their supervisor, whichever loop they run
        loop = ("asyncio", "auto")[WORKERS_STREAMS.index(streams) % 2]
    ended = shell(f"$Q run odd --burst -p {processes} --loop {loop} -l debug {streams}", sqlite_stage, here)
    assert (0, "") == (ended.returncode, "".join(each for each in ended.stderr.splitlines() if "Traceback" in each))
    assert (0, 0) == (count(sqlite_stage), count(sqlite_stage, "default-poison"))


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_a_terminal_can_not_show_is_escaped(encoding: str, sqlite_stage: Stage, here: Path) -> None:
    fill(sqlite_stage)
    (here / "lines").write_text('{"args": [1]}\n"…"\n{"…€": 1}\n')
    for command, code in (
        ("run --help", 0),
        ("tasks odd", 0),
        ("enqueue --from lines", 2),
        ("enqueue odd.quick --from lines", 65),
        ("run pröjekt€", 2),
        ("queues peek default", 0),
    ):
        ended = shell(f"$Q {command}", sqlite_stage, here, PYTHONIOENCODING=encoding)
        assert (code, False) == (ended.returncode, "Traceback" in ended.stderr), ended.stderr


def test_a_directory_that_was_deleted_is_one_line(sqlite_stage: Stage, here: Path) -> None:
    (here / "gone").mkdir()
    fill(sqlite_stage)
    for command, code in (
        ("queues", 0),
        ("tasks odd", 0),
        ("run odd --burst -q other", 0),
        ("run nowhere", 2),
        ("enqueue odd.quick", 0),
        ("queues --broker sqlite:///relative.db", 2),
    ):
        ended = shell(
            f"cd gone; rmdir ../gone; $Q {command}; code=$?; mkdir ../gone 2> /dev/null; exit $code", sqlite_stage, here
        )
        (here / "gone").mkdir(exist_ok=True)
        lines = [line for line in ended.stderr.splitlines() if "shell-init" not in line and '"event"' not in line]
        assert (code, False) == (ended.returncode, "Traceback" in ended.stderr), (command, ended.stderr)
        assert len(lines) <= 1, lines
