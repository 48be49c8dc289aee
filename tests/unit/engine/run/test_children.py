import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import in_child
import qworker.engine.run.children as engine_children
from qworker.engine.run.child import ChildCall
from qworker.engine.run.children import ChildDied, Children, NoChild
from qworker.errors import LeaseLost
from qworker.job import Job
from qworker.outcome import Failed, Failure, Outcome, Rejected, RetryAsked, Succeeded
from qworker.system.descriptors import EXHAUSTED
from waiting import wait_until


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    children.close()


async def no_state(_: Any) -> None:
    pytest.fail("no state is expected")


def call(name: str, *args: Any, state: Any = None, module: str = "in_child") -> ChildCall:
    job = Job("j1", f"in_child.{name}", list(args), state=state)
    return ChildCall(module, name, "", job, "work", 1, None)


async def test_a_child_runs_one_call_after_another(children: Children) -> None:
    assert Succeeded() == await children.run(call("add", 1, 2), no_state)
    first = children._idle[0]._process.pid
    assert Succeeded() == await children.run(call("add", 2, 1), no_state)
    assert [first] == [child._process.pid for child in children._idle]


@pytest.mark.parametrize("number", sorted(EXHAUSTED))
async def test_want_of_descriptors_or_processes_is_told_from_a_childs_death(
    children: Children, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_process(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 — the number counts
    with monkeypatch.context() as patched:
        patched.setattr("qworker.engine.run.children._start", no_process)
        with pytest.raises(NoChild, match=f"^no process can be started: {os.strerror(number)}$"):
            await children.run(call("add", 1, 2), no_state)
    assert before == len(os.listdir("/proc/self/fd"))  # noqa: PTH208 — the same
    assert Succeeded() == await children.run(call("add", 1, 2), no_state)


async def test_two_calls_at_once_have_a_child_each(children: Children) -> None:
    outcomes = await asyncio.gather(*(children.run(call("add", 1, 2), no_state) for _ in range(2)))
    assert [Succeeded(), Succeeded()] == outcomes
    assert 2 == len(children._idle)


async def test_what_a_handler_asks_for_comes_back(children: Children) -> None:
    assert isinstance(await children.run(call("ask", "reject"), no_state), Rejected)
    asked = await children.run(call("ask", "retry"), no_state)
    assert isinstance(asked, RetryAsked)
    assert ("Retry", "again", 7) == (asked.failure.type, asked.failure.message, asked.after)
    left = await children.run(call("ask", "exit"), no_state)
    assert isinstance(left, Failed)
    assert ("SystemExit", "3") == (left.failure.type, left.failure.message)
    assert 1 == len(children._idle)


def failure_of(outcome: Outcome) -> Failure:
    assert isinstance(outcome, Failed | Rejected)
    return outcome.failure


async def test_a_failure_tells_the_line_of_the_handler(children: Children) -> None:
    failure = failure_of(await children.run(call("add", 1, 1), no_state))
    assert "AssertionError" == failure.type
    assert failure.where.startswith("in_child.py:")
    assert failure.where.endswith(" in add")


async def test_arguments_are_checked_in_the_child_too(children: Children) -> None:
    assert "InvalidArguments" == failure_of(await children.run(call("add", "one", 2), no_state)).type


@pytest.mark.parametrize(("module", "name"), [("in_child", "not_a_task"), ("in_child", "missing"), ("nowhere", "add")])
async def test_a_task_that_is_not_there_fails(children: Children, module: str, name: str) -> None:
    assert isinstance(await children.run(call(name, module=module), no_state), Failed)


async def test_checkpoints_are_saved_one_by_one_by_the_worker(children: Children) -> None:
    saved: list[Any] = []

    async def save(state: Any) -> None:
        saved.append(state)

    assert Succeeded() == await children.run(call("count_on", 5, state=2), save)
    assert [3, 4, 5] == saved


async def test_a_checkpoint_that_fails_is_raised_in_the_handler(children: Children) -> None:
    async def lost(_: Any) -> None:
        raise LeaseLost("m1")

    assert "LeaseLost" == failure_of(await children.run(call("save", 1), lost)).type
    assert "InvalidArguments" == failure_of(await children.run(call("save", "no number"), no_state)).type


@pytest.mark.parametrize(
    ("number", "how"), [(0, "exit code 7"), (signal.SIGKILL, "killed by SIGKILL"), (40, "killed by signal 40")]
)
async def test_a_child_that_dies_is_told(children: Children, number: int, how: str) -> None:
    with pytest.raises(ChildDied, match=how):
        await children.run(call("die", number), no_state)
    assert Succeeded() == await children.run(call("add", 1, 2), no_state)


@pytest.mark.parametrize("name", ["hidden_coroutine", "hidden_generator"])
async def test_what_was_never_run_has_not_succeeded(children: Children, name: str) -> None:
    assert "TypeError" == failure_of(await children.run(call(name), no_state)).type


async def test_an_idle_child_that_died_costs_no_job(children: Children) -> None:
    assert Succeeded() == await children.run(call("add", 1, 2), no_state)
    process = children._idle[0]._process
    process.kill()
    process.wait()
    assert Succeeded() == await children.run(call("add", 1, 2), no_state)


async def test_sigterm_is_the_workers_business(children: Children) -> None:
    assert Succeeded() == await children.run(call("add", 1, 2), no_state)
    pid = children._idle[0]._process.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    assert Succeeded() == await children.run(call("add", 1, 2), no_state)
    assert pid == children._idle[0]._process.pid


async def test_a_cancelled_call_kills_its_child(children: Children, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    running = asyncio.create_task(children.run(call("hang", str(file)), no_state))
    while not (file.exists() and file.read_text().endswith("\n")):  # noqa: ASYNC110 — another process writes it
        await asyncio.sleep(0.01)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


async def test_much_output_blocks_nobody(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    assert Succeeded() == await children.run(call("shout", 2_000_000), no_state)
    child = children._idle[0]._process.pid
    shown = capfd.readouterr()
    assert (f"{child}\n", 2_000_000) == (shown.out, len(shown.err))


def test_a_child_ends_with_its_worker(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    script = f"""if __name__ == "__main__":
    import asyncio, in_child
    asyncio.run(in_child.app.broker.create_queue("default"))
    in_child.hang.enqueue({str(file)!r})
    async def main():
        async with in_child.app.worker() as worker:
            await worker.stop_requested()
    asyncio.run(main())
"""
    (tmp_path / "worker.py").write_text(script)
    env = os.environ | {"PYTHONPATH": str(Path(in_child.__file__).parent)}
    with subprocess.Popen([sys.executable, str(tmp_path / "worker.py")], env=env) as worker:
        wait_until(lambda: file.exists() and file.read_text().endswith("\n"), what="the child")
        worker.kill()
    wait_until(lambda: not Path(f"/proc/{file.read_text().strip()}").exists(), what="the child's end")


async def test_another_thread_that_forks_waits_until_a_child_has_started(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is forked before lives on with the pipe by which the child's start is told, and holds up the event loop."""
    forking, forked = threading.Event(), threading.Event()

    def fork() -> None:
        forking.set()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        forked.set()
        os.waitpid(pid, 0)

    thread = threading.Thread(target=fork)
    start = engine_children._start

    def start_while_another_forks(*given: Any) -> Any:
        thread.start()
        assert forking.wait(10)
        assert not forked.wait(0.2)
        return start(*given)

    monkeypatch.setattr(engine_children, "_start", start_while_another_forks)
    assert Succeeded() == await children.run(call("add", 1, 2), no_state)
    assert forked.wait(10)
    thread.join()
