"""Surrounds the calls of an App's plain functions, in the thread or child process in which they run."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

from qworker.errors import ConfigurationError

R = TypeVar("R")


class Surroundings:
    """What an App has put around its plain functions, and at the beginning of their child processes."""

    def __init__(self, child_setup: Callable[[], object] | None = None) -> None:
        if child_setup is not None:
            _check("child_setup", child_setup)
        self._child_setup = child_setup
        self._hooks: list[Callable[[], AbstractContextManager[Any]]] = []

    def add(self, hook: Callable[[], Any]) -> None:
        """Have a context manager, or a generator that yields once, around each call. Raises ConfigurationError."""
        _check("around_thread", hook)
        self._hooks.append(contextmanager(hook) if inspect.isgeneratorfunction(hook) else hook)

    def around(self, call: Callable[[], R]) -> Callable[[], R | None]:
        """Return the call with all that is around it, the first added outermost; if nothing is, the call itself."""
        return partial(self._within, call) if self._hooks else call

    def begin_child(self) -> None:
        """Set this child process up, unless that is done. Raises whatever the App's function raises."""
        if self._child_setup is not None:
            self._child_setup()
            self._child_setup = None

    def _within(self, call: Callable[[], R]) -> R | None:
        returned = None  # a hook may swallow what the function raises
        with ExitStack() as entered:
            for hook in self._hooks:
                entered.enter_context(hook())
            returned = call()
        return returned  # noqa: RET504 — see above


def _check(where: str, hook: Any) -> None:
    if not callable(hook):
        raise ConfigurationError(f"{where}: it must be a function, not a {type(hook).__name__}")
    name = getattr(hook, "__qualname__", type(hook).__qualname__)
    unwrapped = inspect.unwrap(hook)
    if inspect.iscoroutinefunction(unwrapped) or inspect.isasyncgenfunction(unwrapped):
        raise ConfigurationError(
            f"{where}: {name} is 'async def', but there is no event loop where it is called: use 'def'"
        )
    try:
        inspect.signature(hook).bind()
    except TypeError:
        raise ConfigurationError(f"{where}: {name} is called without arguments: give its parameters defaults") from None
    except ValueError:  # a function in C that has no signature
        return
