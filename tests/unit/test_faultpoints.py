"""Fault points: nothing unless asked for, and then one signal at the n-th passage."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from qworker._faultpoints import VARIABLE, Trap, faultpoint, trap_of
from qworker.errors import ConfigurationError

PROGRAM = """
from qworker._faultpoints import faultpoint
for number in range(1, 5):
    for name in ("received", "after-handler"):
        print(name, number, flush=True)
        faultpoint(name)
"""


@pytest.fixture
def hits() -> Iterator[list[int]]:
    caught: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: caught.append(number))
    yield caught
    signal.signal(signal.SIGUSR1, before)


def test_without_the_variable_nothing_happens(hits: list[int]) -> None:
    for _ in range(10):
        faultpoint("after-handler")
    assert [] == hits


def test_the_signal_comes_at_the_nth_passage_and_never_again(hits: list[int]) -> None:
    trap = Trap("after-handler", 3, signal.SIGUSR1)
    counted = []
    for _ in range(6):
        trap("received")
        trap("after-handler")
        counted.append(len(hits))
    assert [0, 0, 1, 1, 1, 1] == counted


async def test_soon_is_when_the_loop_has_turned(hits: list[int]) -> None:
    Trap("renewal-sent", 1, signal.SIGUSR1).soon("renewal-sent")
    assert [] == hits
    await asyncio.sleep(0)
    assert [signal.SIGUSR1] == hits


def test_the_environment_kills_a_process_at_a_point() -> None:
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {VARIABLE: "after-handler:3:KILL"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert -signal.SIGKILL == killed.returncode
    assert "after-handler 3" == killed.stdout.splitlines()[-1]


@pytest.mark.parametrize("text", ["after-handler", "after-handler:0:KILL", "after-handler:1:NONE", "a:1:KILL:2"])
def test_what_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not NAME:PASSAGE:SIGNAL"):
        trap_of(text)
