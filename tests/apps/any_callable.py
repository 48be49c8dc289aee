"""Callables of every sort as tasks of child processes, and what they wrote down."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qworker import INJECTED, App, Context

app = App(broker="sqlite://")
process = functools.partial(app.task, executor="process")


def write(file: str, text: str) -> None:
    Path(file).write_text(text)


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Writer:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def __call__(self, file: str, text: str) -> None:
        write(file, self.prefix + text)

    def method(self, file: str, text: str, *, ctx: Context = INJECTED) -> None:
        write(file, f"{self.prefix}{text}{ctx.attempt}")

    @process(name="static-inside")
    @staticmethod
    def inside(file: str, text: str) -> None:
        write(file, "inside " + text)

    @staticmethod
    @process()
    def around(file: str, text: str) -> None:
        write(file, "around " + text)

    @classmethod
    def of_class(cls, file: str, text: str) -> None:
        write(file, f"{cls.__name__} {text}")


class Celeryish:
    """As a task of Celery is: an object that wraps its function, and is called."""

    def __init__(self, function: Callable[..., Any], *, bind: bool) -> None:
        self.run = self.__wrapped__ = function.__get__(self) if bind else function
        self.__annotations__ = function.__annotations__
        self.__name__ = self.__qualname__ = function.__name__
        self.__module__ = "celery.local"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)


def old(file: str, text: str) -> None:
    write(file, "old " + text)


def old_bound(self: Celeryish, file: str, text: str) -> None:
    write(file, f"{type(self).__name__} {text}")


old_task, old_bound_task = Celeryish(old, bind=False), Celeryish(old_bound, bind=True)

plain = process(name="plain")(write)
alias = process(name="alias")(plain.function)
in_lambda = process(name="lambda")(lambda file, text: write(file, "lambda " + text))
undressed = process(name="undressed")(logged(write))
called = process(name="called")(Writer("called "))
bound = process(name="bound")(Writer("bound ").method)
of_class = process(name="of-class")(Writer.of_class)
celery = process(name="celery")(old_task)
celery_bound = process(name="celery-bound")(old_bound_task)
celery_run = process(name="celery-run")(old_bound_task.run)
cached = process(name="cached")(functools.cache(write))


@process
@kept
def dressed(file: str, text: str) -> None:
    write(file, "dressed " + text)


WRITTEN = {
    "plain": "x",
    "alias": "x",
    "lambda": "lambda x",
    "undressed": "x",
    "called": "called x",
    "bound": "bound x1",
    "of-class": "Writer x",
    "celery": "old x",
    "celery-bound": "Celeryish x",
    "celery-run": "Celeryish x",
    "cached": "x",
    "static-inside": "inside x",
    "any_callable.Writer.around": "around x",
    "any_callable.dressed": "dressed x",
}
