"""A worker that has few file descriptors, or none left for a while, loses no attempt of a job and fails no probe."""

import os
import re
import signal
import socket
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

import pytest

from running import Process, run, started

APP = """
    import os
    from pathlib import Path
    from qworker import task

    def say(text):
        os.write(1, f"{text}\\n".encode())

    @task(max_attempts=1)
    async def on_loop() -> None:
        say("ran on_loop")

    @task(max_attempts=1, executor="process")
    def in_process() -> None:
        say("ran in_process")

    @task(max_attempts=1)
    def in_thread() -> None:
        Path("/etc/hostname").read_bytes()
        say("ran in_thread")

    @task(max_attempts=1)
    def hog() -> None:
        held = []
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            say("holds all")
        while not os.path.exists("go"):
            pass
        for each in held:
            os.close(each)
"""
CROWD = 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    return tmp_path


def few(limit: int, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "qworker", "run", "app", "--health-port", "0", "--log-format", "json", *arguments]
    return ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "few", *command]


def enqueue(folder: Path, *tasks: str) -> None:
    for task in tasks:
        run([sys.executable, "-m", "qworker", "enqueue", f"app.{task}"], cwd=folder, environment=environment())


def environment() -> dict[str, str]:
    return os.environ | {"QWORKER_BROKER": "sqlite:///q.db"}


def port_of(worker: Process) -> int:
    worker.wait_for('"event": "health.served"', '"event": "worker.started"')
    found = re.search(r'"port": (\d+)', worker.output)
    assert found is not None
    return int(found[1])


def probe(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(64).partition(b"\r\n")[0]


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("half", [b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: "], ids=["idle", "half"])
def test_a_crowd_at_the_health_port_takes_no_descriptor_from_a_job(folder: Path, half: bytes, processes: str) -> None:
    worker = few(150, "-p", processes)
    with started(worker, cwd=folder, environment=environment()) as running, ExitStack() as crowd:
        port = port_of(running)
        for _ in range(CROWD):
            crowd.enter_context(socket.create_connection(("127.0.0.1", port), 30)).sendall(half)
        assert b"HTTP/1.1 200 OK" == probe(port)
        enqueue(folder, "on_loop", "in_process", "in_thread")
        running.wait_for("ran on_loop", "ran in_process", "ran in_thread")
        assert b"HTTP/1.1 200 OK" == probe(port)
        assert 0 == running.end(signal.SIGTERM)
    assert "Traceback" not in running.output
    assert running.output.count("the health port closed a connection") <= 2, "one in half a minute, one at the end"
    assert len(running.output) < 10_000


def test_want_of_descriptors_is_waited_out(folder: Path) -> None:
    """A handler has them all for a while: a job that needs a process keeps its attempts, and probes are answered."""
    enqueue(folder, "hog")
    with started(few(60), cwd=folder, environment=environment()) as running:
        port = port_of(running)
        running.wait_for("holds all")
        assert b"HTTP/1.1 200 OK" == probe(port)
        enqueue(folder, "in_process")
        running.wait_for('"event": "job.released"')
        assert b"HTTP/1.1 200 OK" == probe(port)
        (folder / "go").touch()
        running.wait_for("ran in_process")
        assert 0 == running.end(signal.SIGTERM)
    assert "no process can be started: Too many open files" in running.output
    for event in ("job.retried", "job.poisoned", "Traceback"):
        assert event not in running.output
