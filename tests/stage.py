"""Real worker processes, and what they wrote."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import jobs
from qworker.errors import QueueNotFound

APPS = Path(__file__).parent / "apps"


def wait_until(fact: Callable[[], Any], *, within: float = 60.0, what: str = "the awaited fact") -> Any:
    """Return what *fact* returns as soon as that is true."""
    give_up = time.monotonic() + within
    while not (found := fact()):
        if time.monotonic() > give_up:
            pytest.fail(f"{what} did not come within {within} s")
        time.sleep(0.01)
    return found


class WorkerProcess:
    """A `qworker run` of its own, and its log lines."""

    def __init__(self, arguments: list[str], env: dict[str, str], cwd: Path) -> None:
        self.started_at = time.monotonic()
        self._lines: list[dict[str, Any]] = []
        self._raw: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qworker", "run", *arguments],
            env=env,
            cwd=cwd,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self._raw.append(line)
                try:
                    self._lines.append(json.loads(line))
                except ValueError:
                    continue

    @property
    def output(self) -> str:
        return "".join(self._raw)

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in tuple(self._lines) if line["event"] == event]

    def wait_for(self, event: str, *, within: float = 60.0) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            if self.process.poll() is not None and not self._reader.is_alive() and not self.lines(event):
                pytest.fail(f"the worker ended with {self.process.returncode} before {event}:\n{self.output}")
            return next(iter(self.lines(event)), None)

        line: dict[str, Any] = wait_until(found, within=within, what=event)
        return line

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, within: float = 60.0) -> int:
        code = self.process.wait(within)
        self._reader.join()
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


@dataclass
class History:
    """What the handlers wrote down."""

    file: Path

    def lines(self, what: str = "start") -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        # The last line may be under way.
        complete = self.file.read_text().rpartition("\n")[0]
        return [line for line in map(json.loads, complete.splitlines()) if line["what"] == what]

    def count(self, what: str = "start") -> Counter[int]:
        return Counter(line["n"] for line in self.lines(what))


class Stage:
    """A broker, a queue of its own, and the worker processes on it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.queue = f"q-{uuid4().hex[:12]}"
        self.folder = folder
        self.history = History(folder / "history.jsonl")
        self._workers: list[WorkerProcess] = []
        self.app = jobs.app
        self.app.use_broker(url)

    def env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("QWORKER_", "AZURE_"))}
        return kept | {"PYTHONPATH": str(APPS), "QWORKER_BROKER": self.url, "HISTORY": str(self.history.file)}

    def worker(self, *options: str, env: dict[str, str] | None = None) -> WorkerProcess:
        arguments = ["jobs", "-q", self.queue, "--log-format", "json", "--poll-max", "0.2s", *options]
        worker = WorkerProcess(arguments, self.env() | (env or {}), self.folder)
        self._workers.append(worker)
        return worker

    def remaining(self) -> int:
        return self.app._portal.run(self.app.broker.queue(self.queue).count())

    def poisoned(self) -> list[str]:
        async def bodies() -> list[str]:
            queue = self.app.broker.queue(f"{self.queue}-poison")
            try:
                return [message.body for message in await queue.peek(32)]
            except QueueNotFound:
                return []  # no worker has created it yet

        return self.app._portal.run(bodies())

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self.app.close()


@pytest.fixture
def stage_on(tmp_path: Path) -> Iterator[Callable[[str], Stage]]:
    """Make a stage on the broker of a URL."""
    stages: list[Stage] = []

    def make(url: str) -> Stage:
        stages.append(Stage(url, tmp_path))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture(params=["sqlite", "azure"])
def stage(request: pytest.FixtureRequest, stage_on: Callable[[str], Stage], tmp_path: Path) -> Stage:
    """A stage on each broker."""
    if request.param == "sqlite":
        return stage_on(f"sqlite:///{tmp_path}/jobs.db")
    url: str = request.getfixturevalue("azurite").connection_string
    return stage_on(url)


@pytest.fixture
def sqlite_stage(stage_on: Callable[[str], Stage], tmp_path: Path) -> Stage:
    """A stage on SQLite only, for what doesn't depend on the broker."""
    return stage_on(f"sqlite:///{tmp_path}/jobs.db")
