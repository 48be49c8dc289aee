import asyncio
import errno
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from qworker._exits import MORE_TO_DO, NOTHING_TO_POLL
from qworker.events import ProcessDied, Reloading
from qworker.processes import supervisor as supervisor_module
from qworker.processes.supervisor import Supervisor
from qworker.testing import EventRecorder
from waiting import until


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()


def supervisor_of(
    code: str, recorder: EventRecorder, *arguments: str, processes: int = 1, **options: Any
) -> Supervisor:
    """Return the supervisor of processes that run some Python code."""
    command = [sys.executable, "-c", code, *arguments]
    return Supervisor(command, processes, **{"grace": 5.0, "emit": recorder, **options})


async def stopped(supervisor: Supervisor, *, after: Any) -> int:
    running = asyncio.create_task(supervisor.run())
    await after
    supervisor.stop()
    return await asyncio.wait_for(running, 30)


async def test_what_can_not_be_started_is_tried_again_and_told_in_a_line(recorder: EventRecorder) -> None:
    supervisor = Supervisor(["/no/such/program"], 1, grace=5.0, emit=recorder)
    assert 0 == await stopped(supervisor, after=recorder.wait_for(ProcessDied))
    [died] = recorder.of(ProcessDied)
    assert (None, 1.0) == (died.pid, died.restart_in)
    assert died.how.startswith("it can't be started: [Errno 2]")


async def test_a_process_without_a_descriptor_for_its_reports_is_started_later(recorder: EventRecorder) -> None:
    def no_line() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    supervisor = Supervisor(["true"], 2, grace=5.0, emit=recorder, open_line=no_line)
    assert 0 == await stopped(supervisor, after=recorder.wait_for(ProcessDied))
    assert {"it can't be started: [Errno 24] Too many open files"} == {died.how for died in recorder.of(ProcessDied)}


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (3, 1), (78, 1)])
async def test_a_process_that_does_not_end_well_when_told_to_is_a_failure(
    recorder: EventRecorder, tmp_path: Path, code: int, expected: int
) -> None:
    ends = f"import sys, pathlib; pathlib.Path(sys.argv[1]).touch(); sys.stdin.read(1); sys.exit({code})"
    ignores = f"import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit({code})); {ends}"
    file = tmp_path / "started"

    async def started() -> None:
        while not file.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)

    assert expected == await stopped(supervisor_of(ignores, recorder, str(file)), after=started())


async def test_a_process_that_ends_before_it_listens_is_no_failure(recorder: EventRecorder, tmp_path: Path) -> None:
    deaf = "import sys, time, pathlib; pathlib.Path(sys.argv[1]).touch(); time.sleep(1000)"
    file = tmp_path / "started"

    async def started() -> None:
        while not file.exists():  # noqa: ASYNC110 — another process makes it
            await asyncio.sleep(0.01)

    assert 0 == await stopped(supervisor_of(deaf, recorder, str(file)), after=started())


async def test_a_process_that_has_to_be_killed_is_a_failure(recorder: EventRecorder, tmp_path: Path) -> None:
    stays = (
        "import signal, sys, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(1000)"
    )
    file = tmp_path / "started"

    async def started() -> None:
        while not file.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)

    supervisor = supervisor_of(stays, recorder, str(file), grace=-4.9)
    assert 1 == await stopped(supervisor, after=started())


_COUNTS_DOWN = """
import pathlib, sys
file = pathlib.Path(sys.argv[1])
left = int(file.read_text())
file.write_text(str(left - 1))
sys.exit(int(sys.argv[2]) if left else int(sys.argv[3]))
"""


@pytest.mark.parametrize(("then", "expected"), [(0, 0), (NOTHING_TO_POLL, 1)])
async def test_a_burst_goes_on_while_there_is_more_to_do(
    recorder: EventRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: int, expected: int
) -> None:
    monkeypatch.setattr(supervisor_module, "_SHORTEST_LIFE", 0.0)
    file = tmp_path / "left"
    file.write_text("3")
    supervisor = supervisor_of(_COUNTS_DOWN, recorder, str(file), str(MORE_TO_DO), str(then), once=True)
    assert expected == await asyncio.wait_for(supervisor.run(), 30)
    assert "-1" == file.read_text()
    assert [] == recorder.of(ProcessDied)


async def test_one_that_crashes_in_a_burst_is_replaced(
    recorder: EventRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_FIRST_PAUSE", 0.01)
    file = tmp_path / "left"
    file.write_text("1")
    supervisor = supervisor_of(_COUNTS_DOWN, recorder, str(file), "1", "0", once=True)
    assert 0 == await asyncio.wait_for(supervisor.run(), 30)
    assert ["exit code 1"] == [died.how for died in recorder.of(ProcessDied)]


async def test_after_a_broken_version_a_change_starts_the_next_at_once(
    recorder: EventRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_FIRST_PAUSE", 1000.0)
    saved: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
    file = tmp_path / "left"
    file.write_text("2")
    supervisor = supervisor_of(_COUNTS_DOWN, recorder, str(file), "2", "0", once=True, changes=saved.get)
    running = asyncio.create_task(supervisor.run())
    for number in (1, 2):
        await until(lambda: len(recorder.of(ProcessDied)) == number)  # noqa: B023 — called only here
        saved.put_nowait(("tasks.py",))
    assert 0 == await asyncio.wait_for(running, 30)
    assert [1000.0, 1000.0] == [died.restart_in for died in recorder.of(ProcessDied)]
    assert 2 == len(recorder.of(Reloading))


async def test_signals_that_meet_a_process_as_it_ends_hide_no_exit_code(
    recorder: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "asyncio")
    supervisor = Supervisor(["sleep", "1000"], 30, grace=60.0, emit=recorder)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(supervisor._children) == 30)
    while not running.done():
        supervisor.stop()
        await asyncio.sleep(0)
    assert 0 == await running
    assert [] == caplog.messages
