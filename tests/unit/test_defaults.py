"""Options of all tasks of an App: those of @task win, and those of using() over both."""

from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idle import run_until_idle
from qworker import App, Backoff, ConfigurationError, Task, TaskDefaults, default_app
from qworker.events import JobPoisoned

OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "queue": st.sampled_from(["mail", "slow"]),
    "max_attempts": st.integers(1, 9),
    "backoff": st.none() | st.builds(Backoff, base=st.integers(0, 9)),
    "timeout": st.none() | st.integers(1, 9) | st.builds(timedelta, seconds=st.integers(1, 9)),
    "executor": st.sampled_from([None, "thread", "process"]),
    "bundle": st.integers(1, 9),
    "retry_on": st.none() | st.sampled_from([LookupError, (OSError, EOFError)]),
    "give_up_on": st.none() | st.sampled_from([ValueError, (TypeError, ArithmeticError)]),
}


def plain() -> None: ...


async def coroutine() -> None: ...


def seen(task: Task[..., Any]) -> tuple[Any, ...]:
    return task.queue, task.options, task.bundle


def test_each_option_of_a_task_has_a_default() -> None:
    assert {*OPTIONS} == {field.name for field in fields(TaskDefaults)}


@given(st.fixed_dictionaries({}, optional=OPTIONS), st.fixed_dictionaries({}, optional=OPTIONS))
def test_an_option_of_a_task_wins(defaults: dict[str, Any], own: dict[str, Any]) -> None:
    with_defaults = App(broker="sqlite://", defaults=TaskDefaults(**defaults)).task(name="x", **own)(plain)
    spelt_out = App(broker="sqlite://").task(name="x", **(defaults | own))(plain)
    assert seen(spelt_out) == seen(with_defaults)


@given(st.fixed_dictionaries({}, optional=OPTIONS))
def test_the_executor_is_for_plain_functions(defaults: dict[str, Any]) -> None:
    app = App(broker="sqlite://", defaults=TaskDefaults(**defaults))
    assert app.task(name="x")(coroutine).options.executor is None
    assert (defaults.get("executor") or "thread") == app.task(name="y")(plain).options.executor


def test_a_task_decides_about_the_classes_that_it_names() -> None:
    app = App(broker="sqlite://", defaults=TaskDefaults(give_up_on=(ValueError, TypeError), retry_on=OSError))

    def rules(name: str, **options: Any) -> tuple[Any, Any]:
        policy = app.task(name=name, **options)(plain).options.policy
        return policy.retry_on, policy.give_up_on

    assert ({ValueError}, {TypeError}) == rules("x", retry_on=ValueError)
    assert ({ValueError, TypeError}, frozenset()) == rules("y", retry_on=(ValueError, TypeError))
    assert (None, {OSError}) == rules("z", give_up_on=OSError)
    assert ({OSError}, {ValueError, TypeError}) == rules("v")
    with pytest.raises(ConfigurationError, match="task w: retry_on and give_up_on can't both name OSError"):
        app.task(name="w", retry_on=OSError, give_up_on=OSError)(plain)


def test_without_any_and_on_the_default_app_nothing_changes() -> None:
    task = Task(plain, App(broker="sqlite://"), name="x")
    for app in (App(broker="sqlite://"), App(broker="sqlite://", defaults=TaskDefaults())):
        assert seen(task) == seen(app.task(name="x")(plain))
    assert TaskDefaults() == default_app._defaults


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"queue": "No"}, "queue name 'No'"),
        ({"max_attempts": 0}, "TaskDefaults: max_attempts must be a whole number, 1 or more, not 0"),
        ({"backoff": 5}, "TaskDefaults: backoff must be a Backoff"),
        ({"timeout": -1}, "TaskDefaults: timeout must be more than 0 seconds and at most 365 days, not -1 s"),
        ({"executor": "fiber"}, "TaskDefaults: executor must be 'thread' or 'process', not 'fiber'"),
        ({"bundle": 0}, "TaskDefaults: bundle must be a whole number of jobs"),
        ({"retry_on": "ValueError"}, "TaskDefaults: retry_on takes exception classes"),
        (
            {"retry_on": KeyError, "give_up_on": (KeyError,)},
            "TaskDefaults: retry_on and give_up_on can't both name Key",
        ),
    ],
)
def test_what_no_task_could_have_is_refused_where_it_is_written(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{problem}"):
        TaskDefaults(**options)


def test_defaults_are_of_one_class_and_do_not_change() -> None:
    wrong: Any = {"timeout": 60}
    with pytest.raises(ConfigurationError, match=r"^App: defaults must be TaskDefaults\(…\), not \{'timeout': 60\}"):
        App(defaults=wrong)
    with pytest.raises(FrozenInstanceError):
        TaskDefaults().timeout = 5  # type: ignore[misc] # the point


@pytest.mark.parametrize("bundle", [1, 10])
def test_a_job_is_given_up_at_once_for_what_the_defaults_name(bundle: int) -> None:
    app = App(broker="sqlite://", defaults=TaskDefaults(give_up_on=ValueError, bundle=bundle, backoff=Backoff(base=0)))

    @app.task(name="fail", max_attempts=2)
    def fail(hopeless: bool) -> None:  # noqa: FBT001 — a job's argument
        raise ValueError("gone") if hopeless else KeyError("later")

    fail.enqueue_many([(True,), (False,)])
    given_up = run_until_idle(app).of(JobPoisoned)
    assert {(1, "ValueError: gone"), (2, "KeyError: 'later'")} == {(one.attempt, str(one.failure)) for one in given_up}
    app.close()
