"""Middleware: wraps the calls of handlers."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from qworker.context import Context

CallNext = Callable[[], Awaitable[Any]]
Middleware = Callable[[Context[Any, Any], CallNext], Coroutine[Any, Any, Any]]
"""``async def middleware(ctx, call_next)``: wraps each call of a handler; what it raises fails the attempt."""
