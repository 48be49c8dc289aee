"""Callables of every sort: each works in all ways as a task, or is refused where it is written."""

import functools
import operator
import re
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

import any_callable
from qworker import INJECTED, App, ConfigurationError, Context
from qworker.events import JobPoisoned, JobSucceeded
from qworker.middleware import CallNext
from qworker.registration.options import Executor
from qworker.testing import EventRecorder, arun_until_idle


@pytest.fixture
def app() -> App:
    return App(broker="sqlite://")


# Handlers


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("name", any_callable.WRITTEN)
async def test_it_works_in_a_thread_and_in_a_child_process(tmp_path: Path, name: str, executor: Executor) -> None:
    app = any_callable.app
    assert {*any_callable.WRITTEN} == {*app.tasks}
    app.use_broker("sqlite://")
    if executor == "thread":
        function, app = app.tasks[name].function, App(broker="sqlite://")
        app.task(name=name)(function)
    task, file = app.get_task(name), tmp_path / "written"
    assert name == "undressed" or [*task.signature.parameters] == ["file", "text"]
    await task.aenqueue(str(file), text="x")
    happened = await arun_until_idle(app)
    assert [] == happened.of(JobPoisoned)
    assert any_callable.WRITTEN[name] == file.read_text()
    await app.aclose()


class Caller:
    async def __call__(self, n: int, *, ctx: Context = INJECTED) -> None:
        assert 7 == n + ctx.attempt

    async def method(self, n: int) -> None:
        assert 6 == n

    @staticmethod
    async def static(n: int) -> None:
        assert 6 == n


async def coroutine(n: int) -> None:
    assert 6 == n


def hidden(n: int) -> Awaitable[None]:
    return coroutine(n)


@pytest.mark.parametrize(
    "given",
    [
        Caller(),
        Caller().method,
        Caller.static,
        vars(Caller)["static"],
        coroutine,
        hidden,
        lambda n: coroutine(1 * n),
        lambda n: hidden(1 * n),
        any_callable.logged(coroutine),
        any_callable.kept(coroutine),
        functools.cache(coroutine),
        AsyncMock(return_value=None),
        Mock(return_value=None),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_waited_for_is_waited_for(app: App, given: Any) -> None:
    given_to_mock = isinstance(given, Mock)
    task = app.task(name="x")(given)
    await task.aenqueue(6)
    happened = await arun_until_idle(app)
    assert (1, 0) == (len(happened.of(JobSucceeded)), len(happened.of(JobPoisoned)))
    if given_to_mock:
        given.assert_called_once_with(6)
    await app.aclose()


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Sender:
    def send(self, n: int) -> None: ...

    @classmethod
    def make(cls, n: int) -> None: ...

    @property
    def prop(self) -> None: ...

    @functools.cache  # noqa: B019 — the point
    def cached(self, n: int) -> None: ...

    @any_callable.kept
    def wrapped(self, n: int) -> None: ...

    async def acall(self, /, n: int) -> None: ...

    def __call__(self, n: int) -> Iterator[int]:
        yield n


class WrapsMethod:
    def __init__(self) -> None:
        self.__wrapped__ = Sender.send
        self.run = Sender().send

    def __call__(self, n: int) -> None: ...


METHOD = "it is a method, and no job has an object to call it on: make it a @staticmethod, or a function outside of"
REFUSED: list[tuple[Any, str]] = [
    (Sender.send, METHOD),
    (Sender.wrapped, METHOD),
    (Sender.acall, METHOD),
    (vars(Sender)["make"], "it is a class method, and no job has a class to call it on"),
    (Sender.cached, r"Sender\.cached can't be a task: it is a method: write a function that calls it"),
    (Sender.prop, "a task is made of a function, not of a property"),
    (Sender, r"Sender can't be a task: it is a class, and a job would only make an object of it"),
    (
        Sender(),
        "belongs to an object, of which its name says nothing|it is a generator, and nobody would iterate over it",
    ),
    (generator, "it is a generator, and nobody would iterate over it"),
    (async_generator, "it is a generator, and nobody would iterate over it"),
    (
        functools.partial(print, 1),
        r"a partial of builtins\.print can't be a task: write a function that makes the call",
    ),
    (functools.partialmethod(print, 1), "a task is made of a function, not of a partialmethod"),
    (str.upper, r"builtins\.str\.upper can't be a task: it is a method: write a function that calls it"),
    (str, r"builtins\.str can't be a task: it is a class"),
    (WrapsMethod(), "the function that it wraps takes itself first: hand in its method run"),
    (any_callable.plain, r"'plain' is a task already: for another of the same function, hand in its \.function"),
    ("mail.send", r"a task's name is an option, as in @task\(name='mail\.send'\)"),
    (7, "a task is made of a function, not of a int"),
    (max, r"builtins\.max can't be a task: its parameters can't be known: write a function that calls it"),
    (operator.itemgetter(1), r"its parameters can't be known: write a function that calls it"),
    (object(), "a task is made of a function, not of a object"),
    ([print], "a task is made of a function, not of a list"),
]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("given", "problem"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_can_not_be_a_task_is_refused_where_it_is_written(
    app: App, given: Any, problem: str, *, named: bool
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        (app.task(name="x") if named and not isinstance(given, str) else app.task)(given)
    assert "\n" not in str(caught.value)
    assert {} == app.tasks


def test_a_coroutine_is_no_function(app: App) -> None:
    called: Any = coroutine(6)
    with pytest.raises(ConfigurationError, match="it was called already: hand in the function"):
        app.task(called)
    called.close()


def test_a_method_is_refused_in_its_class(app: App) -> None:
    with pytest.raises(ConfigurationError, match=r"Mailer\.send can't be a task: it is a method"):

        class Mailer:
            @app.task
            def send(self, n: int) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Mailer2\.send can't be a task: it is a class method"):

        class Mailer2:
            @app.task
            @classmethod
            def send(cls, n: int) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Mailer3\.send can't be a task: it is a method"):

        class Mailer3:
            @classmethod
            @app.task
            def send(cls, n: int) -> None: ...


def test_a_function_of_no_class_may_call_a_parameter_as_it_likes(app: App) -> None:
    @app.task
    def about(self: int) -> None: ...

    assert ["self"] == [*about.signature.parameters]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (lambda: None, "a lambda has no name"),
        (any_callable.Writer("x"), r"Writer\.__call__ belongs to an object, .* as in task\(name='writer\.call'\)"),
        (
            any_callable.Writer("x").method,
            r"Writer\.method belongs to an object, .* task\(name='writer\.method'\)",
        ),
        (any_callable.old_task, r"celery\.local\.old belongs to an object, of which its name says nothing"),
        (
            any_callable.logged(coroutine),
            r"can't be named 'any_callable\.logged\.wrapper', as all are that",
        ),
    ],
)
def test_what_has_no_name_of_its_own_needs_one(app: App, given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        app.task(given)
    assert "\n" not in str(caught.value)
    assert "x" == app.task(name="x")(given).name


async def test_a_child_process_must_be_able_to_find_it(app: App) -> None:
    @app.task(executor="process")
    def local() -> None: ...

    problem = f"^task {re.escape(local.name)}: no child process can find it, .* a variable of its module, "
    with pytest.raises(ConfigurationError, match=problem):
        async with app.worker():
            raise AssertionError


def test_another_librarys_attributes_hide_none_of_ours(app: App) -> None:
    """RQ's @job gives a function "delay" and "enqueue"."""

    def send(n: int) -> None: ...

    send.enqueue = send.using = send.name = "another's"  # type: ignore[attr-defined]
    task = app.task(name="x")(send)
    assert ("x", ("x",)) == (task.name, (task.enqueue(1).task,))
    app.close()


def test_an_unknown_option_is_named(app: App) -> None:
    unknown: Any = {"max_retries": 3}
    with pytest.raises(ConfigurationError, match=r"^@task has no option 'max_retries'; it has .*max_attempts, "):
        app.task(**unknown)(coroutine)


# Middleware, listeners, lifespans and hooks


def sync_middleware(ctx: Context, call_next: CallNext) -> Any: ...


async def good_middleware(ctx: Context, call_next: CallNext) -> Any:
    return await call_next()


class AsyncMiddleware:
    async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
        return await call_next()


async def generating_middleware(ctx: Context, call_next: CallNext) -> AsyncIterator[Any]:
    yield await call_next()


async def short_middleware(call_next: CallNext) -> Any: ...


GOOD_MIDDLEWARE: list[Any] = [
    good_middleware,
    AsyncMiddleware(),
    AsyncMiddleware().__call__,
    functools.partial(good_middleware),
    any_callable.kept(good_middleware),
    AsyncMock(),
]
BAD_MIDDLEWARE: list[tuple[Any, str]] = [
    (sync_middleware, r"sync_middleware must be 'async def', and pass on 'await call_next\(\)'"),
    (generating_middleware, "generating_middleware must be 'async def'"),
    (short_middleware, r"short_middleware must take \(ctx, call_next\), not \(call_next"),
    (AsyncMiddleware, "must be a list of async functions, not of <class"),
    ("name", "must be a list of async functions, not of 'name'"),
    (None, "must be a list of async functions, not of None"),
]


@pytest.mark.parametrize("given", GOOD_MIDDLEWARE, ids=lambda value: type(value).__name__)
async def test_middleware_is_called_around_each_job(given: Any) -> None:
    app = App(broker="sqlite://", middleware=[given])
    app.task(name="x", middleware=[given])(coroutine)
    await app.get_task("x").aenqueue(6)
    assert 1 == len((await arun_until_idle(app)).of(JobSucceeded))
    await app.aclose()


@pytest.mark.parametrize(("given", "problem"), BAD_MIDDLEWARE)
def test_what_is_no_middleware_is_refused(app: App, given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^App: (the )?middleware .*{problem}"):
        App(middleware=[given])
    with pytest.raises(ConfigurationError, match=rf"^task x: (the )?middleware .*{problem}"):
        app.task(name="x", middleware=[given])(coroutine)


@pytest.mark.parametrize("given", [good_middleware, "name", 7, None])
def test_middleware_comes_in_a_list(app: App, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^App: middleware must be a list of async functions, not "):
        App(middleware=given)


async def async_listener(event: object) -> None: ...


def short_listener() -> None: ...


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (print, "listeners must be a list of functions, not <built-in"),
        ("print", "listeners must be a list of functions, not 'print'"),
        ([7], "listeners must be a list of functions, not of 7"),
        ([EventRecorder], "listeners must be a list of functions, not of <class"),
        ([async_listener], "the listener .*async_listener is 'async def', but nothing waits for it: use 'def'"),
        ([AsyncMiddleware()], "the listener a AsyncMiddleware is 'async def'"),
        ([short_listener], r"the listener .*short_listener must take one argument, the event, not \(\)"),
    ],
)
async def test_what_is_no_listener_is_refused(app: App, given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^App: {problem}"):
        App(listeners=given)
    with pytest.raises(ConfigurationError, match=rf"^worker\(\): {problem}"):
        async with app.worker(listeners=given):
            raise AssertionError


async def without_decorator(app: App) -> AsyncIterator[None]:
    yield


@contextmanager
def sync_lifespan(app: App) -> Iterator[None]:
    yield


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def lifespan_of_nothing() -> AsyncIterator[None]:
    yield


async def no_context(app: App) -> None: ...


class Lifespan(AbstractAsyncContextManager[None]):
    def __init__(self, app: App) -> None:
        self.app = app

    async def __aexit__(self, *_: object) -> None: ...


YIELDS = "must be an 'async def' that yields once, with @asynccontextmanager"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (without_decorator, f"the lifespan .*without_decorator {YIELDS}"),
        (no_context, f"the lifespan .*no_context {YIELDS}"),
        (sync_lifespan, f"the lifespan .*sync_lifespan {YIELDS}"),
        (lifespan_of_nothing, r"the lifespan .*lifespan_of_nothing must take one argument, the app, not \(\)"),
        (7, "lifespan must be a function with @asynccontextmanager, not 7"),
    ],
)
def test_what_is_no_lifespan_is_refused(given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^App: {problem}"):
        App(lifespan=given)


def test_a_lifespan_is_not_called_by_the_program(app: App) -> None:
    called: Any = lifespan(app)
    with pytest.raises(ConfigurationError, match=r"^App: lifespan must be the function itself, which is called with"):
        App(lifespan=called)


@pytest.mark.parametrize("given", [lifespan, Lifespan, lambda app: lifespan(app=app)])
async def test_a_lifespan_may_be_any_callable_that_gives_a_context_manager(given: Any) -> None:
    app = App(broker="sqlite://", lifespan=given)
    async with app.worker():
        pass


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (7, "on_error takes a function, not 7"),
        (async_listener, "on_error: .*async_listener is 'async def', but nothing waits for it: use 'def'"),
        (AsyncMiddleware(), "on_error: a AsyncMiddleware is 'async def'"),
        (short_listener, r"on_error: .*short_listener must take one argument, not \(\)"),
    ],
)
def test_what_is_no_error_hook_is_refused(app: App, given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{problem}"):
        app.on_error(given)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"broker": ""}, "App: broker must be a URL, .* or a Broker, not be empty: leave it out to have the settings"),
        ({"broker": 7}, "App: broker must be a URL, a connection string or a Broker, not int"),
        ({"encoding": "base65"}, "App: encoding must be 'text' or 'base64', not 'base65'"),
        ({"encoding": True}, "App: encoding must be 'text' or 'base64', not True"),
        ({"tracing": "no"}, "App: tracing must be True or False, not 'no'"),
        ({"tracing": 1}, "App: tracing must be True or False, not 1"),
    ],
)
def test_options_of_an_app_that_can_not_be(app: App, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{problem}"):
        App(**options)
    if "broker" in options:
        with pytest.raises(ConfigurationError, match=f"^{problem}"):
            app.use_broker(options["broker"])
