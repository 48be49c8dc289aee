"""Waits for facts that nothing tells of: those of other threads and processes."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

_AWAITED = "the awaited fact"


async def until(fact: Callable[[], object], what: str = _AWAITED, *, within: float = 60.0) -> None:
    """Wait until *fact* is true, and leave the event loop free meanwhile."""
    give_up = time.monotonic() + within
    while not fact():
        if time.monotonic() > give_up:
            pytest.fail(f"{what} did not come within {within:g} s")
        await asyncio.sleep(0.002)


def wait_until(fact: Callable[[], Any], *, within: float = 60.0, what: str = _AWAITED) -> Any:
    """Return what *fact* returns as soon as that is true."""
    give_up = time.monotonic() + within
    while not (found := fact()):
        if time.monotonic() > give_up:
            pytest.fail(f"{what} did not come within {within:g} s")
        time.sleep(0.01)
    return found
