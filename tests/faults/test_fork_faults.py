"""Fault 10: what a handler forks is no worker, whatever it does."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

import forking
from explanations import Line
from fault_report import Fault
from proc import is_alive
from qworker.task import Task
from stage import Stage
from waiting import wait_until
from watched import Watched

LEASE: Final = 4
CAME_BACK: Final = 1
CODES: Final = {"leave": 7, "target": 0, "preexec": 0, "terminate": -signal.SIGTERM}
"""The exit codes of children that don't come back from their handler."""
MISBEHAVING: Final[dict[str, list[Task[..., Any]]]] = {
    "return": [forking.on_loop, forking.in_thread, forking.in_child],
    "raise": [forking.on_loop, forking.in_thread],
    "exit": [forking.on_loop, forking.in_thread],
    "save": [forking.on_loop, forking.in_thread],
    "wait": [forking.on_loop],
    "leave": [forking.on_loop, forking.in_thread],
    "target": [forking.by_library],
    "preexec": [forking.by_library],
    "terminate": [forking.by_library],
}
LINGERING: Final[list[Task[..., Any]]] = [forking.on_loop, forking.in_thread, forking.in_child, forking.by_library]


@pytest.mark.fault(10)
@pytest.mark.usefixtures("no_orphans")
def test_what_a_handler_forks_is_no_worker(watched: Watched, fault: Fault, tmp_path: Path) -> None:
    """Its children come back while it runs, and after its death, while it runs elsewhere."""
    stage = watched.stage
    go, back, done = (tmp_path / name for name in ("go", "back", "done"))
    environment = {"GO": str(go), "BACK": str(back), "DONE": str(done)}
    worker = stage.worker("-c", "32", "--lease", str(LEASE), app="forking", env=environment)
    calls = [(task, then) for then, tasks in MISBEHAVING.items() for task in tasks]
    ends = {stage.enqueue(task, n, then).id: CODES.get(then, CAME_BACK) for n, (task, then) in enumerate(calls)}
    codes = {line["job"]: line["code"] for line in wait_for(stage, "child", {*ends})}
    lingering = {stage.enqueue(task, n, "linger").id for n, task in enumerate(LINGERING)}
    orphans = {line["pid"] for line in wait_for(stage, "forked", lingering)}
    other = stage.worker("-c", "32", "--lease", str(LEASE), app="forking", env=environment)
    other.wait_for("worker.started")
    time.sleep(fault.scale(short=0.0, full=3.0 * LEASE))  # in which they are renewed
    assert ends == codes
    assert len(ends) + len(lingering) == stage.remaining()
    assert [] == stage.history.lines("settled")

    go.touch()
    wait_for(stage, "settled", {*ends})
    assert len(lingering) == stage.remaining()
    stage.kill(worker)
    killed = time.monotonic()
    starts = wait_for(stage, "start", lingering, each=2)
    again = max(line["at"] for line in starts if "worker" not in line) - killed  # without the start of a child process
    back.touch()
    wait_until(lambda: not any(map(is_alive, orphans)), what="the end of all children")
    assert len(lingering) == stage.remaining()

    done.touch()
    wait_for(stage, "settled", lingering)
    verdict = stage.verdict()
    settled = [(line["pid"], line["as"]) for line in stage.history.lines("settled")]
    fault.did(
        "forks on the loop, in a thread, in a child process, by multiprocessing and subprocess: the child "
        "returns, raises, exits, saves a state, awaits, lives on after its worker was killed"
    )
    fault.saw(
        f"{len(codes) + len(orphans)} children settled nothing; "
        f"beside living children of a killed worker, jobs ran again after {again:.2f} s, L = {LEASE}"
    )
    verdict.assert_clean()
    by_workers = {(worker.process.pid, "succeeded"): len(ends), (other.process.pid, "succeeded"): len(lingering)}
    assert by_workers == Counter(settled)
    assert again <= LEASE + 2
    if watched.proxy:
        delivered = {message for seen in watched.seen("get") for message in seen.ids}
        deleted = Counter(seen.message_id for seen in watched.seen("delete") if seen.message_id in delivered)
        assert dict.fromkeys(delivered, 1) == deleted


@pytest.fixture
def no_orphans(watched: Watched) -> Iterator[None]:
    """Kill what is still there of handlers and their children, if the test fails: it would be waited for."""
    yield
    mine = f"HISTORY={watched.stage.history.file}".encode()
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mine in file.read_bytes().split(b"\0"):
                os.kill(int(file.parent.name), signal.SIGKILL)


def wait_for(stage: Stage, what: str, jobs: set[str], each: int = 1) -> list[Line]:
    """Wait until each of the jobs has so many lines of a kind, and return them."""

    def found() -> list[Line]:
        lines = [line for line in stage.history.lines(what) if line["job"] in jobs]
        return lines if len(lines) == each * len(jobs) else []

    lines: list[Line] = wait_until(found, what=what)
    return lines
