"""A child process starts as its parent did, and ends with it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import alike
from proc import is_alive
from running import run
from stage import APPS, Stage, WorkerProcess
from waiting import wait_until

OPTIONS = ["-X", "dev", "-X", "int_max_str_digits=5000", "-W", "error:x", "-B", "-O", "-u", "-d", "-b", "-s"]
COMMAND = "import sys; from qworker.__main__ import main; sys.path.append('/added'); sys.argv[1:] = {arguments}; main()"


def ended(command: list[str], folder: Path, env: dict[str, str]) -> None:
    """Run a command to its end, in circumstances that are odd in every way that a child could miss."""
    odd = ["sh", "-c", 'umask 027; ulimit -n 777; exec nice -n 3 "$0" "$@"', *command]
    done = subprocess.run(odd, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


def told(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    worker, child = (json.loads((folder / f"{name}.json").read_text()) for name in ("worker", "child"))
    return worker, child


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("way", ["by name", "by a script", "by -c"])
def test_a_child_is_like_its_worker(sqlite_stage: Stage, tmp_path: Path, way: str, processes: str) -> None:
    arguments = ["run", "alike", "--burst", "-q", sqlite_stage.queue, "-p", processes]
    sqlite_stage.enqueue(alike.on_loop, str(tmp_path / "worker.json"))
    sqlite_stage.enqueue(alike.in_child, str(tmp_path / "child.json"))
    script = tmp_path / "bin" / "start.py"
    script.parent.mkdir()
    script.write_text(COMMAND.format(arguments=arguments))
    command = {
        "by name": ["-m", "qworker", *arguments],
        "by a script": [str(script)],
        "by -c": ["-c", script.read_text()],
    }
    ended([sys.executable, *OPTIONS, *command[way]], tmp_path, sqlite_stage.env())
    worker, child = told(tmp_path)
    assert worker["environment"]["SET_BY_THE_PROGRAM"] == "yes"
    assert {"int_max_str_digits": "5000", "dev": True} == worker["xoptions"]
    assert (5000, alike.LIMIT, [777, 777]) == (worker["digits"], worker["recursion"], worker["limits"][0])
    # A worker hears SIGTERM and SIGINT itself; only its child leaves them to it. Python adds nothing to a child's path.
    assert {"2", "15"} == set(child.pop("ignored")) - set(worker.pop("ignored"))
    assert child["flags"].pop("safe_path")
    worker["flags"].pop("safe_path")
    assert worker == child


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_a_handler_changes_is_not_where_the_next_child_begins(
    sqlite_stage: Stage, tmp_path: Path, processes: str
) -> None:
    sqlite_stage.enqueue(alike.wander, str(tmp_path / "worker.json"))
    sqlite_stage.enqueue(alike.whereabouts, str(tmp_path / "child.json"))
    worker = sqlite_stage.worker("--burst", "-c", "1", "-p", processes, app="alike")
    assert 0 == worker.wait(), worker.output
    assert [str(tmp_path)] * 2 == [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("worker", "child")]


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("way", ["deleted", "moved", "replaced by a file"])
def test_a_child_starts_though_its_workers_folder_is_gone(
    sqlite_stage: Stage, tmp_path: Path, way: str, processes: str
) -> None:
    """As when an old release is deleted while its worker still runs."""
    release = tmp_path / "release"
    release.mkdir()
    arguments = ["alike", "-q", sqlite_stage.queue, "-p", processes, "--log-format", "json"]
    worker = WorkerProcess(arguments, sqlite_stage.env(), release)
    wait_until(lambda: len(worker.lines("worker.started")) == int(processes), what="the start")
    release.rename(tmp_path / "moved")
    if way != "moved":
        shutil.rmtree(tmp_path / "moved")
    if way == "replaced by a file":
        release.touch()
    sqlite_stage.enqueue(alike.number, str(tmp_path / "child.json"))
    wait_until(lambda: worker.lines("job.succeeded") or worker.lines("job.poisoned"), what="the job's end")
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    assert [] == worker.lines("job.poisoned")
    assert (tmp_path / "child.json").exists()


def test_a_child_that_keeps_the_interpreters_lock_ends_with_its_worker(sqlite_stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    sqlite_stage.enqueue(alike.compute_in_c, str(file))
    worker = sqlite_stage.worker(app="alike")
    child = _pid_in(file)
    try:
        worker.process.kill()
        wait_until(lambda: not is_alive(child), within=10, what="the child's end")
    finally:
        if is_alive(child):
            os.kill(child, 9)


def test_a_worker_that_blocks_its_loop_ends_with_its_supervisor(sqlite_stage: Stage, tmp_path: Path) -> None:
    """It can't hear that its standard input has ended."""
    file = tmp_path / "pid"
    sqlite_stage.enqueue(alike.block, str(file))
    worker = sqlite_stage.worker("-p", "2", "--grace", "0.5s", app="alike")
    blocked = _pid_in(file)
    try:
        worker.process.kill()
        wait_until(lambda: not is_alive(blocked), within=20, what="the worker's end")
    finally:
        if is_alive(blocked):
            os.kill(blocked, 9)


ENTRY = """
import logging
logging.configured_by_entry = True
from models import app
"""
MODELS = """
import logging
from qworker import App
app = App()
if not hasattr(logging, "configured_by_entry"):
    raise RuntimeError("the program is not set up yet")

@app.task(executor="process", max_attempts=1)
def use() -> None:
    print("used", flush=True)

if __name__ == "__main__":
    use.enqueue()
"""


def test_a_child_imports_first_what_the_worker_was_given(tmp_path: Path) -> None:
    """As a Django project's module that calls django.setup() before it imports any model."""
    (tmp_path / "entry.py").write_text(ENTRY)
    (tmp_path / "models.py").write_text(MODELS)
    env = {name: value for name, value in os.environ.items() if not name.startswith("QWORKER_")}
    qworker = [sys.executable, "-m", "qworker"]
    for reference in ("entry", "entry:app"):
        run([*qworker, "enqueue", "models.use", "--app", "entry"], cwd=tmp_path, environment=env)
        assert "used\n" in run([*qworker, "run", reference, "--burst"], cwd=tmp_path, environment=env)


def _pid_in(file: Path) -> int:
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"), what="the job's start")
    return int(file.read_text())


UNGUARDED = """
import asyncio, in_child
from qworker.events import JobRetried
from qworker.testing import EventRecorder

async def main():
    recorder = EventRecorder()
    async with in_child.app.worker(listeners=[recorder]):
        await in_child.add.aenqueue(1, 2)
        print((await recorder.wait_for(JobRetried)).failure)

asyncio.run(main())
"""


def test_a_program_that_starts_a_worker_when_it_is_imported_is_told(tmp_path: Path) -> None:
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    env = os.environ | {"PYTHONPATH": str(APPS)}
    command = [sys.executable, "unguarded.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "ConfigurationError: a worker with child processes starts where its module is imported" in done.stdout
    assert "" == done.stderr
