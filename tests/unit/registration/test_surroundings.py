"""What surrounds plain functions, in their threads and child processes."""

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import surrounded
from idle import run_until_idle
from qworker import App, current
from qworker.errors import ConfigurationError
from qworker.events import JobPoisoned, JobSucceeded
from qworker.registration.surroundings import Surroundings


@pytest.fixture
def app() -> Iterator[App]:
    app = App(broker="sqlite://")
    yield app
    app.close()


def failures(app: App) -> list[str]:
    return [str(event.failure) for event in run_until_idle(app).of(JobPoisoned)]


def test_hooks_are_around_a_plain_function_in_its_thread_the_first_outermost(app: App) -> None:
    seen: list[tuple[str, Any]] = []

    @app.around_thread
    def outer() -> Iterator[None]:
        seen.append(("outer", (threading.current_thread(), current().task)))
        yield
        seen.append(("outer ends", threading.current_thread()))

    @app.around_thread
    @contextmanager
    def inner() -> Iterator[None]:
        seen.append(("inner", threading.current_thread()))
        yield

    @app.task(name="plain")
    def plain() -> None:
        seen.append(("function", threading.current_thread()))

    plain.enqueue()
    assert 1 == len(run_until_idle(app).of(JobSucceeded))
    thread = seen[2][1]
    assert threading.current_thread() is not thread
    assert [("outer", (thread, "plain")), *((what, thread) for what in ("inner", "function", "outer ends"))] == seen


def test_they_are_around_nothing_else(app: App) -> None:
    entered: list[str] = []

    @app.around_thread
    def note() -> Iterator[None]:
        entered.append(current().task)
        yield

    @app.task
    async def on_loop() -> None: ...

    @app.task(name="plain")
    def plain() -> None: ...

    plain()
    on_loop.enqueue()
    plain.enqueue()
    run_until_idle(app)
    assert ["plain"] == entered


def test_they_see_what_the_function_raises_and_what_they_raise_fails_the_attempt(app: App) -> None:
    seen: list[str] = []

    @app.around_thread
    def hook() -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            seen.append(str(error))
            raise KeyError("from the hook") from error

    @app.task(max_attempts=1)
    def fails() -> None:
        raise ValueError("from the function")

    fails.enqueue()
    assert ["KeyError: 'from the hook'"] == failures(app)
    assert ["from the function"] == seen


def test_one_that_swallows_an_error_makes_a_success_of_it(app: App) -> None:
    app.around_thread(lambda: suppress(ValueError))

    @app.task(max_attempts=1)
    def fails() -> None:
        raise ValueError

    fails.enqueue()
    assert [] == failures(app)


def test_a_timeout_ends_the_function_within_them(app: App) -> None:
    ended = threading.Event()

    @app.around_thread
    def hook() -> Iterator[None]:
        try:
            yield
        finally:
            ended.set()

    @app.task(max_attempts=1, timeout=0.05)
    def endless() -> None:
        while True:
            pass

    endless.enqueue()
    [failure] = failures(app)
    assert "timeout" in failure
    assert ended.is_set()


def test_without_hooks_the_call_is_the_call_itself() -> None:
    def call() -> None: ...

    assert call is Surroundings().around(call)


def test_child_processes_have_them_too_and_are_set_up_before_their_first_job(tmp_path: Path) -> None:
    surrounded.app.use_broker("sqlite://")
    file = tmp_path / "lines"
    surrounded.note.enqueue_many([(str(file), number) for number in range(2)])
    assert 2 == len(run_until_idle(surrounded.app, concurrency=1).of(JobSucceeded))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [{"n": number, "within": ["hook"], "set_up": 1, "again": number} for number in range(2)] == lines


def test_a_setup_that_fails_is_a_failed_attempt_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    surrounded.stubborn.use_broker("sqlite://")
    file = tmp_path / "tries"
    monkeypatch.setenv("TRIES", str(file))
    surrounded.late.enqueue()
    happened = run_until_idle(surrounded.stubborn)
    assert 1 == len(happened.of(JobSucceeded))
    assert "2" == file.read_text()


async def _coroutine() -> None: ...


async def _async_generator() -> AsyncIterator[None]:
    yield


def _needs(one: int) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (3, "it must be a function, not a int"),
        (_coroutine, "_coroutine is 'async def'"),
        (_async_generator, "_async_generator is 'async def'"),
        (asynccontextmanager(_async_generator), "_async_generator is 'async def'"),
        (_needs, "_needs is called without arguments"),
        (contextmanager(_needs), "_needs is called without arguments"),
    ],
)
@pytest.mark.parametrize("where", ["around_thread", "child_setup"])
def test_what_can_not_be_called_there_is_refused(app: App, wrong: Any, says: str, where: str) -> None:
    register: Callable[[Any], object] = app.around_thread if where == "around_thread" else _as_setup
    with pytest.raises(ConfigurationError, match=f"^{where}: {says}"):
        register(wrong)


def _as_setup(setup: Any) -> App:
    return App(child_setup=setup)
