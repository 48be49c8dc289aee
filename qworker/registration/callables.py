"""Judges the callables that a program hands in: handlers, middleware, listeners, lifespans."""

import functools
import inspect
from collections.abc import Callable, Iterable
from inspect import Parameter
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final

from qworker.errors import ConfigurationError, shown

_OWNERS: Final = frozenset({"self", "cls", "mcs"})
"""What a method's first parameter is called."""
_LOCAL: Final = ".<locals>."


def handler_of(given: Any) -> Callable[..., Any]:
    """Return what is to be called for each job, of anything that can be called without an object at hand.

    Raises ConfigurationError for the rest, which says what to do.
    """
    if isinstance(given, staticmethod):
        given = given.__func__
    _refuse_what_is_no_handler(given)
    handler = _call_of(given)
    try:
        parameters = [*inspect.signature(handler).parameters.values()]
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{described(given)} can't be a task: its parameters can't be known: write a function that calls it"
        ) from None
    if parameters and parameters[0].name in _OWNERS and _is_bound_by_position(parameters[0]):
        _refuse_method(given)
    return handler


def described(given: Any) -> str:
    """Return what an error may call something that was handed in."""
    name = getattr(given, "__qualname__", None)
    if not isinstance(name, str):
        return f"a {type(given).__name__}"
    return f"{getattr(given, '__module__', None) or 'builtins'}.{name}"


def middleware_of(given: Any, where: str = "") -> tuple[Any, ...]:
    """Return what is to surround calls. Raises ConfigurationError, which begins with *where*."""
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise ConfigurationError(f"{where}middleware must be a list of async functions, not {shown(given)}")
    found = tuple(given)
    for one in found:
        if not callable(one) or isinstance(one, type):
            raise ConfigurationError(f"{where}middleware must be a list of async functions, not of {shown(one)}")
        if not _is_async(one):
            raise ConfigurationError(
                f"{where}the middleware {described(one)} must be 'async def', and pass on 'await call_next()'"
            )
        _check_takes(one, 2, f"{where}the middleware {described(one)} must take (ctx, call_next)")
    return found


def listeners_of(given: Any, where: str) -> tuple[Any, ...]:
    """Return what is to be told of events. Raises ConfigurationError, which begins with *where*."""
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise ConfigurationError(f"{where}: listeners must be a list of functions, not {shown(given)}")
    found = tuple(given)
    for one in found:
        if not callable(one) or isinstance(one, type):
            raise ConfigurationError(f"{where}: listeners must be a list of functions, not of {shown(one)}")
        _refuse_async(one, f"{where}: the listener {described(one)}")
        _check_takes(one, 1, f"{where}: the listener {described(one)} must take one argument, the event")
    return found


def lifespan_of(given: Any) -> Any:
    """Return what surrounds a worker's life, or None. Raises ConfigurationError."""
    if given is None:
        return None
    if hasattr(given, "__aenter__") and not isinstance(given, type):
        raise ConfigurationError(
            "App: lifespan must be the function itself, which is called with the app, not its result"
        )
    if not callable(given):
        raise ConfigurationError(f"App: lifespan must be a function with @asynccontextmanager, not {shown(given)}")
    plain = inspect.unwrap(given)
    is_manager = plain is not given and inspect.isasyncgenfunction(plain)
    if not is_manager and (inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain) or _is_async(plain)):
        raise ConfigurationError(
            f"App: the lifespan {described(given)} must be an 'async def' that yields once, with @asynccontextmanager"
        )
    _check_takes(given, 1, f"App: the lifespan {described(given)} must take one argument, the app")
    return given


def hook_of(given: Any, where: str) -> Any:
    """Return what is called with one argument, and not waited for. Raises ConfigurationError."""
    if not callable(given) or isinstance(given, type):
        raise ConfigurationError(f"{where} takes a function, not {shown(given)}")
    _refuse_async(given, f"{where}: {described(given)}")
    _check_takes(given, 1, f"{where}: {described(given)} must take one argument")
    return given


def _refuse_what_is_no_handler(given: Any) -> None:
    match given:
        case str():
            raise ConfigurationError(f"a task's name is an option, as in @task(name={shown(given)})")
        case classmethod():
            raise ConfigurationError(
                f"{described(given)} can't be a task: it is a class method, and no job has a class to call it on: "
                "make it a @staticmethod, or a function outside of the class"
            )
        case functools.partial():
            raise ConfigurationError(
                f"a partial of {described(given.func)} can't be a task: write a function that makes the call"
            )
        case type():
            raise ConfigurationError(
                f"{described(given)} can't be a task: it is a class, and a job would only make an object of it: "
                "write a function that uses the object"
            )
    if inspect.isawaitable(given):
        raise ConfigurationError(f"{described(given)} can't be a task: it was called already: hand in the function")
    if not callable(given):
        raise ConfigurationError(f"a task is made of a function, not of {described(given)}")


def _call_of(given: Any) -> Callable[..., Any]:
    """Return the method that an object of a program's own class is called by; anything else as it is."""
    if isinstance(given, FunctionType | MethodType | BuiltinFunctionType) or hasattr(given, "__wrapped__"):
        return given  # type: ignore[no-any-return] # callable, as was seen to
    own = inspect.getattr_static(type(given), "__call__", None)
    return given.__call__ if isinstance(own, FunctionType) else given  # type: ignore[no-any-return]


def _refuse_method(given: Any) -> None:
    """Raise ConfigurationError for a function that needs an object; one of no class may call a parameter *self*."""
    if isinstance(given, FunctionType | MethodType | BuiltinFunctionType):
        if isinstance(given, FunctionType) and "." in given.__qualname__.rpartition(_LOCAL)[2]:
            raise ConfigurationError(
                f"{described(given)} can't be a task: it is a method, and no job has an object to call it on: "
                "make it a @staticmethod, or a function outside of the class"
            )
        return
    if inspect.ismethoddescriptor(given):
        raise ConfigurationError(f"{described(given)} can't be a task: it is a method: write a function that calls it")
    if hasattr(given, "__wrapped__"):
        bound = "its method run" if callable(getattr(given, "run", None)) else "the method that it is bound to"
        raise ConfigurationError(
            f"{described(given)} can't be a task: the function that it wraps takes itself first: hand in {bound}"
        )


def _is_bound_by_position(parameter: Parameter) -> bool:
    return parameter.kind in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}


def _is_async(given: Any) -> bool:
    """Say whether calling it gives something to wait for, as far as that can be told."""
    for one in (given, inspect.unwrap(given), getattr(given, "__call__", None), getattr(given, "func", None)):  # noqa: B004 — not whether it can be called, but how
        if inspect.iscoroutinefunction(one):
            return True
    return False


def _refuse_async(given: Any, where: str) -> None:
    if _is_async(given):
        raise ConfigurationError(f"{where} is 'async def', but nothing waits for it: use 'def'")


def _check_takes(given: Any, count: int, problem: str) -> None:
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):  # it can't be told
        return
    try:
        signature.bind(*[None] * count)
    except TypeError:
        raise ConfigurationError(f"{problem}, not {signature}") from None
