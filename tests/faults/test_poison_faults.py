"""Faults 40 to 44: what is given up is never lost, and holds up nothing else."""

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

import poison_jobs
from azurite_server import Azurite
from fault_actions import Answer
from fault_proxy import FaultProxy
from fault_report import Fault
from fault_rules import Rule
from qworker import App, Backoff
from qworker.brokers.azure.broker import AzureBroker
from qworker.brokers.base import MAX_BODY_BYTES, Broker
from qworker.brokers.sqlite.broker import SqliteBroker, SqliteQueue
from qworker.errors import AccessDenied, BrokerBusy, InvalidEnvelope
from qworker.events import JobPoisoned, JobSucceeded, MessagePoisoned, SettleFailed
from qworker.poison.record import PoisonRecord, decode_poison
from qworker.poison.replay import replay
from qworker.testing import EventRecorder
from qworker.wire.bodies import Encoding, as_body
from stage import Stage, WorkerProcess
from waiting import until, wait_until

C: Final = 4
LEASE: Final = 2
REPLAY: Final = "import sys; from qworker.cli import main; import qworker.poison.replay; sys.stdin.readline(); main()"


@pytest.fixture(params=["sqlite", "azure"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    """Each broker, for workers inside the test."""
    broker: Broker
    if request.param == "sqlite":
        broker = SqliteBroker(tmp_path / "jobs.db")
    else:
        azurite: Azurite = request.getfixturevalue("azurite")
        broker = AzureBroker.from_connection_string(azurite.connection_string)
    yield broker
    await broker.aclose()


def queue_name() -> str:
    return f"q-{uuid4().hex[:12]}"


@pytest.mark.fault(40)
def test_killed_between_poison_put_and_delete(stage: Stage, fault: Fault) -> None:
    """Each process is killed there with one job; it may have received a few more, so that there are enough for all."""
    kills = fault.scale(short=2, full=50)
    calls = [(n,) for n in range(2 * kills)]
    once, five_times = [], []
    for _ in range(2):  # mixed
        once += stage.enqueue_many(poison_jobs.fail_once, calls, may_poison=True)
        five_times += stage.enqueue_many(poison_jobs.reject, calls, may_poison=True)
    options = ["-c", "1", "--lease", str(LEASE)]
    point = {"QWORKER_FAULTPOINT": "after-poison-put:1:KILL"}
    killed = 0
    while killed < kills:
        wave = range(min(4, kills - killed))
        workers = [stage.worker(*options, app="poison_jobs", env=point) for _ in wave]
        killed += sum(worker.wait() == -signal.SIGKILL for worker in workers)
    stage.worker("-c", str(C), app="poison_jobs")
    verdict = stage.verdict(within=fault.scale(short=60, full=300))
    copies = stage.poisoned_jobs()
    of = Counter(copies.values())
    starts = [max(verdict.executions[job.id] for job in jobs) for jobs in (once, five_times)]
    fault.did(f"killed between poison put and delete, {kills} times; {len(once)} jobs of D = 1, as many of D = 5")
    fault.saw(f"1 copy of {of[1]} jobs, 2 of {of[2]}, executions at most {starts[0]} and {starts[1]}")
    verdict.assert_clean()
    assert {job.id for job in (*once, *five_times)} == {*copies}
    assert {1, 2} == {*of}
    assert of[2] >= kills
    assert 1 == starts[0]
    assert starts[1] <= 5


@pytest.fixture(params=["sqlite", "azure"])
async def fragile(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator["Fragile"]:
    """Each broker, of which some queues can be made to refuse puts."""
    fragile: Fragile
    if request.param == "sqlite":
        fragile = sqlite = FragileSqlite(SqliteBroker(tmp_path / "jobs.db"))

        async def put(queue: SqliteQueue, body: str, **when: int | None) -> str:
            return await sqlite.put(queue, body, **when)

        monkeypatch.setattr(SqliteQueue, "put", put)
    else:
        proxy: FaultProxy = request.getfixturevalue("fault_proxy")
        fragile = FragileAzure(AzureBroker.from_connection_string(proxy.connection_string), proxy)
    yield fragile
    await fragile.broker.aclose()


@dataclass
class FragileAzure:
    """Azurite behind a proxy that answers for some queues."""

    broker: Broker
    proxy: FaultProxy

    def refuse(self, queue: str, status: int) -> None:
        code = {403: "AuthorizationPermissionMismatch", 503: "ServerBusy"}[status]
        self.proxy.add(Rule(Answer(status, code), on="put", queue=queue))

    def recover(self) -> None:
        self.proxy.clear_rules()


@dataclass
class FragileSqlite:
    """The same refusals, made where the broker raises them."""

    broker: Broker
    refusals: dict[str, Exception] = field(default_factory=dict)
    _put: Callable[..., Awaitable[str]] = SqliteQueue.put

    async def put(self, queue: SqliteQueue, body: str, **when: int | None) -> str:
        if queue.name in self.refusals:
            raise self.refusals[queue.name]
        return await self._put(queue, body, **when)

    def refuse(self, queue: str, status: int) -> None:
        self.refusals[queue] = {403: AccessDenied("injected"), 503: BrokerBusy("injected")}[status]

    def recover(self) -> None:
        self.refusals.clear()


Fragile = FragileAzure | FragileSqlite


@pytest.mark.fault(41)
async def test_poison_queues_that_refuse(fragile: Fragile, fault: Fault) -> None:
    count, lease = fault.scale(short=(10, LEASE + 1), full=(100, 10))
    app, happened = App(broker=fragile.broker), EventRecorder()
    queues = {queue_name(): status for status in (403, 503)}
    starts: Counter[str] = Counter()

    @app.task(name="failing", max_attempts=2, backoff=Backoff(base=0))
    async def failing(job: str) -> None:
        starts[job] += 1
        raise ValueError("the real reason")

    @app.task(name="good")
    async def good() -> None: ...

    failed = []
    for queue, status in queues.items():
        await fragile.broker.create_queue(f"{queue}-poison")
        fragile.refuse(f"{queue}-poison", status)
        failed += await failing.using(queue=queue).aenqueue_many([(f"{queue} {n}",) for n in range(count)])
    settings = {"queues": list(queues), "lease": lease, "concurrency": C, "poll_max": 0.1, "grace": 0}
    async with app.worker(listeners=[happened], **settings):
        await until(lambda: {event.job.id for event in happened.of(SettleFailed)} == {job.id for job in failed})
        began = time.monotonic()
        for queue in queues:
            await good.using(queue=queue).aenqueue_many([()] * 5 * count)
        await until(lambda: len(happened.of(JobSucceeded)) == 10 * count)
        flow = 10 * count / (time.monotonic() - began)
        for queue in queues:  # they reappear, and are kept
            await until(lambda queue=queue: twice_refused(happened, queue))  # type: ignore[misc]
        sizes = [await fragile.broker.queue(queue).count() for queue in queues]
        empty = [await fragile.broker.queue(f"{queue}-poison").count() for queue in queues]
        fragile.recover()
        mended = time.monotonic()
        await until(lambda: len({event.job.id for event in happened.of(JobPoisoned)}) == len(failed))
        seconds = time.monotonic() - mended
    records = [decode_poison(body) for queue in queues async for body in all_of(fragile.broker, f"{queue}-poison")]
    copies = Counter(record.job_id for record in records)
    fault.did(f"poison queues that answer 403 and 503, for {count} jobs each that are given up")
    fault.saw(
        f"all {sum(sizes)} kept, {flow:.0f} other jobs/s meanwhile; all moved {seconds:.1f} s after the recovery, "
        f"with their reason, copies at most {max(copies.values())}, executions at most {max(starts.values())} of 2"
    )
    assert ([count, count], [0, 0]) == (sizes, empty)
    assert {job.id for job in failed} == {*copies}
    assert max(copies.values()) <= 2
    assert max(starts.values()) <= 2
    assert {"ValueError: the real reason"} == {str(record.failure) for record in records}
    assert [0, 0] == [await fragile.broker.queue(queue).count() for queue in queues]


def twice_refused(happened: EventRecorder, queue: str) -> bool:
    refusals = Counter(event.job.id for event in happened.of(SettleFailed) if event.queue == queue)
    return max(refusals.values(), default=0) > 1


async def all_of(broker: Broker, name: str) -> AsyncIterator[str]:
    """Take all bodies out of a queue."""
    queue = broker.queue(name)
    while batch := await queue.get(32, visibility=60):
        for message in batch:
            yield message.body
            await queue.delete(message.id, message.receipt)


def body_of(size: int, encoding: Encoding) -> str:
    """Return a job of exactly so many bytes as sent."""
    start = as_body({"task": "failing", "args": ['é<&"\\']}).removesuffix('"]}')
    plain_size = size if encoding == "text" else size // 4 * 3
    text = start + "x" * (plain_size - len(start.encode()) - 3) + '"]}'
    return as_body(json.loads(text), encoding)


@pytest.mark.fault(42)
@pytest.mark.parametrize("encoding", ["text", "base64"])
async def test_a_body_of_64_kib_is_moved_unmodified(broker: Broker, fault: Fault, encoding: Encoding) -> None:
    app, queue, happened = App(broker=broker, encoding=encoding), queue_name(), EventRecorder()

    @app.task(name="failing", max_attempts=2, backoff=Backoff(base=0))
    async def failing(text: str) -> None:
        raise ValueError("no " * 1000)

    full, nearly, large = (body_of(size, encoding) for size in (MAX_BODY_BYTES, MAX_BODY_BYTES - 200, 40_000))
    no_job = "x" * MAX_BODY_BYTES
    await broker.create_queue(queue)
    for body in (full, nearly, large, no_job):
        await broker.queue(queue).put(body)
    async with app.worker(listeners=[happened], queues=[queue], poll_max=0.1, grace=0):
        await until(lambda: len(happened.of(JobPoisoned)) + len(happened.of(MessagePoisoned)) == 4)
        poisoned = [body async for body in all_of(broker, f"{queue}-poison")]
    records = [record for body in poisoned if (record := record_in(body)) is not None]
    alone = {body for body in poisoned if record_in(body) is None}
    fault.did(f"bodies of {len(full.encode()):,}, {len(nearly.encode()):,}, {len(large.encode()):,} bytes, {encoding}")
    fault.saw(f"unmodified: {len(alone)} alone, {len(records)} beside its error of {len(records[0].failure.message)} B")
    assert MAX_BODY_BYTES == len(full.encode()) == len(no_job)
    assert {full, nearly, no_job} == alone
    assert [large] == [record.body for record in records]
    assert records[0].failure.message.startswith("no no ")


def record_in(body: str) -> PoisonRecord | None:
    try:
        return decode_poison(body)
    except InvalidEnvelope:
        return None


@dataclass
class Crowd:
    """Good jobs, alone or among others that always fail, and what became of them."""

    broker: Broker
    seconds: float
    """That a good one takes."""
    good: int
    failing: int = 0
    started: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)

    async def run(self) -> None:
        """Run them until the last good one has ended."""
        app, queue = App(broker=self.broker), queue_name()
        over = asyncio.Event()

        @app.task(name="good")
        async def good() -> None:
            self.started.append(time.monotonic())
            await asyncio.sleep(self.seconds)
            self.ended.append(time.monotonic())
            if len(self.ended) == self.good:
                over.set()

        @app.task(name="failing", max_attempts=5, backoff=Backoff(base=1, factor=1, jitter=0))
        async def failing() -> None:
            self.failed.append(time.monotonic())
            raise ValueError("no")

        for at in range(0, self.good, 10):  # mixed
            await failing.using(queue=queue).aenqueue_many([()] * min(10, max(self.failing - at, 0)))
            await good.using(queue=queue).aenqueue_many([()] * min(10, self.good - at))
        async with app.worker(queues=[queue], concurrency=C, poll_max=0.1, grace=0):
            await over.wait()

    @property
    def rate(self) -> float:
        """Good jobs a second."""
        return self.good / (self.ended[-1] - self.started[0])

    @property
    def beside(self) -> int:
        """How often a failing one started before the last good one did."""
        return sum(at <= self.started[-1] for at in self.failed)


@pytest.mark.fault(43)
async def test_jobs_that_always_fail_leave_half_of_the_throughput_to_others(broker: Broker, fault: Fault) -> None:
    on_sqlite = isinstance(broker, SqliteBroker)
    seconds = 0.02 if on_sqlite else 0.1  # so that Azurite, a hundred times slower than the service, is not the limit
    count = fault.scale(short=100 if on_sqlite else 40, full=1000)
    rounds = fault.scale(short=1, full=3 if on_sqlite else 1)
    ratios, beside = [], []
    for _ in range(rounds):
        alone, mixed = Crowd(broker, seconds, count), Crowd(broker, seconds, count, count)
        await alone.run()
        await mixed.run()
        ratios.append(mixed.rate / alone.rate)
        beside.append(mixed.beside)
    ratio = statistics.median(ratios)
    fault.did(f"{count} failing among {count} good jobs, C = {C}, D = 5 a second apart")
    fault.saw(
        f"{ratio:.0%} of the {alone.rate:.0f} jobs/s alone, with jobs of {seconds * 1000:.0f} ms; "
        f"{max(beside)} failing starts until the last good one"
    )
    assert max(beside) <= count + C
    if fault.full:  # in the short form, one disturbance could cost half of the time
        assert ratio >= 0.5


def start_replay(stage: Stage, point: str = "") -> "subprocess.Popen[str]":
    """Start a replay, which waits for a line before it begins."""
    env = stage.env() | {"QWORKER_LEASE": "3"} | ({"QWORKER_FAULTPOINT": point} if point else {})
    command = [sys.executable, "-c", REPLAY, "poison", "replay", stage.queue]
    return subprocess.Popen(command, env=env, cwd=stage.folder, stdin=subprocess.PIPE, text=True)


def begin(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    with process.stdin as gate:
        gate.write("begin\n")


@pytest.mark.fault(44)
def test_two_replays_at_once_one_killed(stage: Stage, fault: Fault) -> None:
    count, kills = fault.scale(short=(40, 1), full=(200, 5))
    broken = stage.folder / "broken"
    worker = stage.worker(app="poison_jobs", env={"BROKEN": str(broken)})
    killed = enqueued = 0
    while killed < kills:  # one that finds nothing left to do is not killed
        broken.touch()
        jobs = stage.enqueue_many(poison_jobs.need_repair, [(enqueued + n,) for n in range(count)])
        enqueued += count
        wait_until(partial(is_number, enqueued, lambda: len(given_up_by(worker))), what="their end")
        stage.history.note_all({"what": "replayed", "job": job.id} for job in jobs)
        broken.unlink()
        victim = start_replay(stage, f"after-replay-put:{fault.random.randint(1, count // 4)}:KILL")
        other = start_replay(stage)
        for process in (victim, other):
            begin(process)
        assert 0 == other.wait(60)
        killed += victim.wait(60) == -signal.SIGKILL
        wait_until(partial(replay_rest, stage), what="an empty poison queue")
        wait_until(partial(is_number, enqueued, lambda: len(stage.history.count("end"))), what="their execution")
        wait_until(lambda: stage.remaining() == 0, what="the execution of all copies")
    verdict = stage.verdict()
    ends = stage.history.count("end")
    fault.did(f"two replays at once of {count} poisoned jobs, one killed at a random one of its puts, {killed} times")
    fault.saw(f"all {len(ends)} executed, {sum(times > 1 for times in ends.values())} of them twice")
    verdict.assert_clean()
    assert enqueued == len(ends)


def given_up_by(worker: WorkerProcess) -> set[str]:
    return {line["job"] for line in worker.lines("job.poisoned")}


def is_number(number: int, count: Callable[[], int]) -> bool:
    return number == count()


def replay_rest(stage: Stage) -> bool:
    """Put back what is visible; return whether nothing is left, not even what the killed one holds."""

    async def rest() -> bool:
        broker = stage.app.broker
        await replay(broker, stage.queue)
        return await broker.queue(f"{stage.queue}-poison").count() == 0

    return stage.app._portal.run(rest())
