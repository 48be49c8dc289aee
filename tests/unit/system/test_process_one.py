"""A process that Linux gives all orphans of its own descendants, as it gives a container's process 1 all there are."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proc import family

BEGIN = """
import ctypes, os, signal, subprocess, sys, time
from qworker.system import process_one
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
one, os.getpid = os.getpid(), lambda: 1
process_one.leave_process_one()
assert os.getppid() == one
"""


@contextmanager
def process(code: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([sys.executable, "-c", BEGIN + code], stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            for pid in family(started.pid) - {started.pid}:
                Path(f"/proc/{pid}").exists() and subprocess.run(["kill", "-9", str(pid)], check=False)
            started.kill()


@pytest.mark.parametrize(("end", "code"), [("sys.exit(0)", 0), ("os._exit(78)", 78), ("os.kill(worker, 9)", 137)])
def test_it_ends_as_the_worker_does(end: str, code: int) -> None:
    with process(f"worker = int(os.readlink('/proc/self')); {end}") as one:
        assert code == one.wait(20)


def test_it_collects_what_programs_leave_behind_and_steals_no_exit_code() -> None:
    code = """
orphans = [subprocess.run(["sh", "-c", "sleep 0.01 & exit 3"]).returncode for _ in range(20)]
own = [subprocess.Popen(["sh", "-c", f"exit {n}"]) for n in range(20)]
def children(): return open(f"/proc/{one}/task/{one}/children").read().split()
while len(children()) > 1: time.sleep(0.01)
print(set(orphans), [each.wait() for each in own] == list(range(20)), flush=True)
"""
    with process(code) as one:
        assert one.stdout is not None
        assert "{3} True\n" == one.stdout.read()
        assert 0 == one.wait(20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_it_passes_signals_on_once(number: signal.Signals) -> None:
    code = f"""
got = []
signal.signal({int(number)}, lambda number, _: got.append(number))
print("ready", flush=True)
while not got: signal.pause()
print(got, flush=True)
"""
    with process(code) as one:
        assert one.stdout is not None
        assert "ready\n" == one.stdout.readline()
        one.send_signal(number)
        assert f"[{int(number)}]\n" == one.stdout.read()
        assert 0 == one.wait(20)


def test_another_process_goes_on_as_it_is() -> None:
    code = """
import os
from qworker.system.process_one import leave_process_one
before = os.getpid()
leave_process_one()
print(before == os.getpid())
"""
    assert "True\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
