"""Real worker processes, and what they wrote."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

import pytest

import jobs
from history import History, Verdict, check
from qworker.brokers.base import MAX_BATCH
from qworker.errors import PartlyEnqueued, QueueNotFound
from qworker.job import Job
from qworker.poison.record import decode_poison
from qworker.produce.producer import Call
from qworker.task import Task
from waiting import wait_until

APPS = Path(__file__).parents[1] / "apps"
_LAST_LINES: Final = 2.0
"""Seconds in which a worker writes down what it has done."""
_LOOKED_AT: Final = 60
"""Seconds that poisoned messages are invisible if they are not put back."""


class WorkerProcess:
    """A `qworker run` of its own, and its log lines, which also go to a file worker-*.log."""

    def __init__(
        self,
        arguments: list[str],
        env: dict[str, str],
        cwd: Path,
        history: History | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start it; how it ends is noted in the *history*, and the deaths of its children that it tells of."""
        self.started_at = time.monotonic()
        self._history = history
        self._lines: list[dict[str, Any]] = []
        self._raw: list[str] = []
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "qworker", "run", *arguments],
            env=env,
            cwd=cwd,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._log = cwd / f"worker-{self.process.pid}.log"
        self._reader = threading.Thread(target=self._read)
        self._waiter = threading.Thread(target=self._wait)
        self._reader.start()
        self._waiter.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream, self._log.open("w", buffering=1) as log:
            for line in stream:
                self._raw.append(line)
                log.write(line)
                try:
                    self._take(json.loads(line))
                except ValueError:
                    continue

    def _take(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        if line["event"] == "process.died" and self._history is not None:
            self._history.note("died", pid=line["pid"], how=line["how"])

    def _wait(self) -> None:
        code = self.process.wait()
        if self._history is not None:
            self._history.note("died" if code else "exited", pid=self.process.pid, how=code)

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
        self._waiter.join()
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


class Stage:
    """A broker, a queue of its own, and the worker processes on it."""

    def __init__(self, url: str, folder: Path, worker_url: str | None = None) -> None:
        """Take the broker's URL; *worker_url* is the one for the workers, if they are to go through a proxy."""
        self.url = url
        self.worker_url = worker_url or url
        self.queue = f"q-{uuid4().hex[:12]}"
        self.lease = 2 if url.startswith("sqlite:") else 4
        """Seconds; a renewal gets a sixth of them, and Azurite on a busy machine may take that."""
        self.folder = folder
        self.history = History(folder / "history.jsonl")
        self._workers: list[WorkerProcess] = []
        self.app = jobs.app
        self.app.use_broker(url)

    def env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("QWORKER_", "AZURE_"))}
        path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")]))
        loop = os.environ.get("TEST_LOOP", "asyncio")
        return kept | {
            "QWORKER_LOOP": loop,
            "PYTHONPATH": path,
            "QWORKER_BROKER": self.worker_url,
            "HISTORY": str(self.history.file),
        }

    def worker(
        self,
        *options: str,
        app: str = "jobs",
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> WorkerProcess:
        """Start one; *prefix* is what its command begins with."""
        arguments = [app, "-q", self.queue, "--log-format", "json", "--poll-max", "0.2s", *options]
        worker = WorkerProcess(arguments, self.env() | (env or {}), self.folder, self.history, prefix)
        self._workers.append(worker)
        return worker

    def enqueue(self, task: Task[..., Any], *args: Any, may_poison: bool = False) -> Job:
        """Enqueue one call and note it."""
        return self.enqueue_many(task, [args], may_poison=may_poison)[0]

    def enqueue_many(
        self, task: Task[..., Any], calls: Iterable[Call], *, may_poison: bool = False, bundle: int = 1
    ) -> list[Job]:
        """Enqueue calls, whose first argument is n, and note those that were accepted."""
        noted: dict[str, Any] = {"what": "enqueued"}
        noted |= {"may_poison": True} if may_poison else {}
        noted |= {"bundled": True} if bundle > 1 else {}
        try:
            made = task.using(queue=self.queue, bundle=bundle).enqueue_many(calls)
        except PartlyEnqueued as partly:
            self.history.note_all(noted | {"job": job} for job in partly.accepted)
            self.history.note_all({"what": "uncertain", "job": job} for job in partly.uncertain)
            raise
        self.history.note_all(noted | {"job": job.id, "n": _n_of(job)} for job in made)
        return made

    def kill(self, target: WorkerProcess | int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process and note it, beforehand."""
        pid = target if isinstance(target, int) else target.process.pid
        self.history.note("kill", pid=pid, signal=number)
        os.kill(pid, number)

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

    def poisoned_jobs(self) -> Counter[str]:
        """Return the ids of all jobs in the poison queue, and how many copies of each; a message's own if it has none.

        They are invisible for a moment, if there are more than one peek shows.
        """
        bodies = self.app._portal.run(self._poison_bodies())
        return Counter(map(_poisoned_job, bodies))

    def verdict(self, *, within: float = 60.0, may_poison: Collection[str] = ()) -> Verdict:
        """Wait until the queue is empty, of invisible messages too, and judge the history."""
        wait_until(lambda: self.remaining() == 0, within=within, what="an empty queue")
        poisoned = self.poisoned_jobs()

        def judge() -> Verdict:
            return check(self.history.read(), poisoned=poisoned, may_poison=may_poison)

        verdict = judge()
        last_lines = time.monotonic() + _LAST_LINES
        while verdict.lost and time.monotonic() < last_lines:  # a message is gone just before its worker says why
            time.sleep(0.1)
            verdict = judge()
        return verdict

    async def _poison_bodies(self) -> list[str]:
        queue = self.app.broker.queue(f"{self.queue}-poison")
        try:
            if await queue.count() <= MAX_BATCH:
                return [message.body for message in await queue.peek(MAX_BATCH)]
            taken = []
            while batch := await queue.get(MAX_BATCH, visibility=_LOOKED_AT):
                taken += batch
        except QueueNotFound:
            return []  # no worker has created it yet
        for message in taken:
            await queue.update(message.id, message.receipt, visibility=0)
        return [message.body for message in taken]

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self.app.close()


def _n_of(job: Job) -> Any:
    return job.args[0] if job.args else job.kwargs.get("n")


def _poisoned_job(body: str) -> str:
    record = decode_poison(body)
    return record.job_id or record.message_id


class MakeStage(Protocol):
    """What the fixture stage_on gives."""

    def __call__(self, url: str, worker_url: str | None = None) -> Stage: ...


@pytest.fixture
def stage_on(tmp_path: Path) -> Iterator[MakeStage]:
    """Make a stage on the broker of a URL; the workers may be given another, that of a proxy."""
    stages: list[Stage] = []

    def make(url: str, worker_url: str | None = None) -> Stage:
        stages.append(Stage(url, tmp_path, worker_url))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture(params=["sqlite", "azure"])
def stage(request: pytest.FixtureRequest, stage_on: MakeStage, tmp_path: Path) -> Stage:
    """A stage on each broker."""
    if request.param == "sqlite":
        return stage_on(f"sqlite:///{tmp_path}/jobs.db")
    url: str = request.getfixturevalue("azurite").connection_string
    return stage_on(url)


@pytest.fixture
def sqlite_stage(stage_on: MakeStage, tmp_path: Path) -> Stage:
    """A stage on SQLite only, for what doesn't depend on the broker."""
    return stage_on(f"sqlite:///{tmp_path}/jobs.db")
