import asyncio
import contextlib
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import qworker
from doubles import ScriptedBroker
from qworker import App, ConfigurationError, InvalidArguments, default_app
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.errors import InvalidBrokerURL, MessageTooLarge, UnknownTask
from qworker.wire.envelope import decode


@pytest.fixture
def app() -> App:
    return App(broker="sqlite://")


async def bodies(app: App, queue: str = "default") -> list[str]:
    return [message.body for message in await app.broker.queue(queue).peek(32)]


# Registration


def test_a_task_is_named_by_module_and_function(app: App) -> None:
    @app.task
    def outer() -> None: ...

    class Holder:
        @staticmethod
        def method() -> None: ...

    assert f"{__name__}.test_a_task_is_named_by_module_and_function.outer" == outer.name
    assert f"{__name__}.test_a_task_is_named_by_module_and_function.Holder.method" == app.task(Holder.method).name
    assert {outer.name, f"{outer.name.removesuffix('outer')}Holder.method"} == set(app.tasks)
    assert outer is app.get_task(outer.name)


def test_options_reach_the_task(app: App) -> None:
    @app.task(name="mail.send", queue="mail", max_attempts=3, timeout=30, executor="process")
    def send() -> None: ...

    assert ("mail.send", "mail", 3, 30.0, "process") == (
        send.name,
        send.queue,
        send.options.policy.max_attempts,
        send.options.timeout,
        send.options.executor,
    )
    assert {"mail.send": send} == app.tasks
    assert "<App of 1 tasks>" == repr(app)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"__spec__": None, "__file__": "/somewhere/tasks.py"}, "tasks"),
        ({"__spec__": None}, "__main__"),
        ({"__spec__": type("Spec", (), {"name": "shop.tasks"})}, "shop.tasks"),
        ({"__spec__": type("Spec", (), {"name": "shop.__main__"})}, "shop"),
    ],
)
def test_a_task_of_a_script_is_named_as_a_worker_will_import_it(
    app: App, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, Any], expected: str
) -> None:
    main = ModuleType("__main__")
    vars(main).update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", main)

    def send() -> None: ...

    send.__module__, send.__qualname__ = "__main__", "send"
    assert f"{expected}.send" == app.task(send).name


def test_two_tasks_of_one_name_are_refused(app: App) -> None:
    @app.task(name="same")
    def first() -> None: ...

    with pytest.raises(ConfigurationError, match=r"two functions are named 'same', at .*test_app.py:\d+ and at"):

        @app.task(name="same")
        def second() -> None: ...

    assert first is app.get_task("same")


def test_a_module_may_be_read_twice(app: App) -> None:
    def define() -> Any:
        @app.task(name="again")
        def again() -> None: ...

        return again

    first, second = define(), define()
    assert first is not second
    assert second is app.get_task("again")


def test_a_function_without_code_can_be_a_task(app: App) -> None:
    assert "builtins.len" == app.task(len).name


def test_an_unknown_task_names_the_known(app: App) -> None:
    app.task(name="known")(lambda: None)
    with pytest.raises(UnknownTask, match="unknown task 'other'; registered: known"):
        app.get_task("other")


def test_the_bare_decorator_is_that_of_the_default_app() -> None:
    assert default_app.task == qworker.task


# The broker


def test_making_an_app_connects_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWORKER_BROKER", "nonsense://")
    app = App()
    with pytest.raises(InvalidBrokerURL):
        _ = app.broker


def test_the_broker_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QWORKER_BROKER", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    assert f"sqlite:///{tmp_path}/qworker.db" == App().broker.label
    monkeypatch.setenv("QWORKER_BROKER", "sqlite:///other.db")
    assert f"sqlite:///{tmp_path}/other.db" == App().broker.label
    assert f"sqlite:///{tmp_path}/mine.db" == App(broker="sqlite:///mine.db").broker.label
    assert [] == list(tmp_path.iterdir())


async def test_another_broker_can_be_used(app: App) -> None:
    @app.task(name="t")
    async def send() -> None: ...

    await send.aenqueue()
    first, second = app.broker, SqliteBroker(None)
    app.use_broker(second)
    await send.aenqueue()
    await send.aenqueue()
    assert (1, 2) == (await first.queue("default").count(), await second.queue("default").count())
    app.use_broker("sqlite://")
    assert app.broker is not second
    await first.aclose()
    await second.aclose()


async def test_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = ScriptedBroker()
    app = App(broker=broker)

    @app.task(name="t")
    async def send() -> None: ...

    await app.aclose()
    assert 1 == broker.closed
    send.enqueue()
    app.close()
    assert 2 == broker.closed
    send.enqueue()
    await app.aclose()
    assert 4 == broker.closed


# Enqueueing


def test_enqueue_in_a_script(app: App) -> None:
    @app.task(name="t")
    def send(text: str) -> None: ...

    job = send.enqueue("hi")
    [body] = asyncio.run(bodies(app))
    assert job.id == decode(body, message_id="").id
    app.close()


async def test_enqueue_within_a_running_loop(app: App) -> None:
    @app.task(name="t")
    def send(text: str) -> None: ...

    jobs = [send.enqueue("one"), await send.aenqueue("two")]
    assert {job.id for job in jobs} == {decode(body, message_id="").id for body in await bodies(app)}
    await app.aclose()


def test_enqueue_in_threads(app: App) -> None:
    @app.task(name="t")
    def send(number: int) -> None: ...

    threads = [threading.Thread(target=send.enqueue, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = asyncio.run(bodies(app))
    assert [[number] for number in range(20)] == sorted(decode(body, message_id="").args for body in sent)
    app.close()


async def test_enqueue_many(app: App) -> None:
    @app.task(name="t", queue="mail")
    def send(to: str, times: int = 1) -> None: ...

    jobs = send.enqueue_many([("a",), {"to": "b", "times": 2}])
    jobs += await send.aenqueue_many([("c",)])
    assert {job.id for job in jobs} == {decode(body, message_id="").id for body in await bodies(app, "mail")}
    await app.aclose()


async def test_nothing_is_sent_when_one_of_many_is_wrong() -> None:
    broker = ScriptedBroker()
    app = App(broker=broker)

    @app.task(name="t")
    def send(text: str) -> None: ...

    for calls, error in (
        ([("a",), ("b", "c")], InvalidArguments),
        ([("a",), ("x" * 70_000,)], MessageTooLarge),
    ):
        with pytest.raises(error):
            send.enqueue_many(calls)
        with pytest.raises(error):
            await send.aenqueue_many(calls)
    assert {} == broker.queues


async def test_base64_where_the_app_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(broker="sqlite://", encoding="base64")
    app.task(name="t")(print_nothing).enqueue()
    [body] = await bodies(app)
    assert not body.startswith("{")
    assert "t" == decode(body, message_id="").task
    await app.aclose()
    monkeypatch.setenv("QWORKER_ENCODING", "base64")
    other = App(broker="sqlite://")
    other.task(name="t")(print_nothing).enqueue()
    [body] = await bodies(other)
    assert not body.startswith("{")
    await other.aclose()


def print_nothing() -> None: ...


FORKING = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
from qworker import App

app = App(broker="sqlite:///jobs.db")

@app.task(name="t")
def send(who: str) -> None: ...

send.enqueue("parent before")
if pid := os.fork():
    assert (pid, 0) == os.waitpid(pid, 0)
    send.enqueue("parent after")
else:
    send.enqueue("child")
    send.enqueue("child again")
"""


def test_enqueue_after_a_fork(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKING], cwd=tmp_path, check=True, timeout=60)
    app = App(broker=f"sqlite:///{tmp_path}/jobs.db")

    async def who() -> list[str]:
        found = sorted(decode(body, message_id="").args[0] for body in await bodies(app))
        await app.aclose()
        return found

    assert ["child", "child again", "parent after", "parent before"] == asyncio.run(who())


SCRIPT = """
import qworker

@qworker.task
def send(who: str) -> None: ...

if __name__ == "__main__":
    print(send.enqueue("me").task)
"""


def test_a_script_that_enqueues_and_ends(tmp_path: Path) -> None:
    """The job is there although the script closes nothing."""
    (tmp_path / "shop.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "shop.py"],
        cwd=tmp_path,
        env={"QWORKER_BROKER": "sqlite:///jobs.db"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ("shop.send\n", "") == (done.stdout, done.stderr)
    app = App(broker=f"sqlite:///{tmp_path}/jobs.db")

    async def count() -> int:
        count = await app.broker.queue("default").count()
        await app.aclose()
        return count

    assert 1 == asyncio.run(count())


def test_threads_that_come_first_at_once_get_one_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    all_making = threading.Barrier(8)

    def slowly(url: str, folder: Path | None) -> SqliteBroker:
        with contextlib.suppress(threading.BrokenBarrierError):
            all_making.wait(1)
        return SqliteBroker(None)

    monkeypatch.setattr("qworker.app.broker_from_url", slowly)
    app = App(broker="sqlite://", encoding="text")
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append((app.broker, app._enqueuer._broker))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(app.broker, app.broker)] * 8 == found


def test_using_another_broker_closes_what_was_opened_to_the_first() -> None:
    first, second = ScriptedBroker(), ScriptedBroker()
    app = App(broker=first)

    @app.task
    def ok() -> None: ...

    ok.enqueue()
    app.use_broker(second)
    assert (1, 0) == (first.closed, second.closed)
    ok.enqueue()
    assert 1 == len(second.queue("default").called("put"))
    app.close()
    assert (1, 1) == (first.closed, second.closed)


@pytest.mark.parametrize("name", ["app", "broker", "encoding", "log_format", "log_level", "processes", "reload"])
async def test_a_setting_that_is_not_a_workers_is_refused(app: App, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^worker\(\): {name}: not of a worker, but of its App"):
        async with app.worker(**{name: "x"}):  # type: ignore[arg-type] # not told apart from listeners
            raise AssertionError
