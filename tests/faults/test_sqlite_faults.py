"""Faults 45 to 51: an SQLite file that producers die on, that is full, locked, shared, damaged, or read for long."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import pytest

import jobs
from damage import KINDS, damage_in_use, flip, log_of, state_of
from fault_report import Fault
from history import check
from small_disk import DISKS, SmallDisk, small_disk
from stage import APPS, MakeStage, Stage, WorkerProcess
from waiting import wait_until

BOUND: Final = 16 * 2**20
"""Bytes that the write-ahead log keeps, once nobody holds a snapshot."""

PADDING: Final = {f"padding-{n}": "x" * 8_000 for n in range(7)}
"""Headers that nearly fill a message."""


def file_of(stage: Stage) -> Path:
    return Path(stage.url.removeprefix("sqlite:///"))


def query(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(sql).fetchall()


def jobs_in(file: Path) -> list[str]:
    return [json.loads(body)["id"] for (body,) in query(file, "SELECT body FROM messages")]


@pytest.mark.fault(45)
def test_a_producer_killed_in_mid_call_loses_nothing_it_was_promised(sqlite_stage: Stage, fault: Fault) -> None:
    kills = fault.scale(short=10, full=500)
    subprocess.run(
        [sys.executable, APPS / "killed_producers.py", sqlite_stage.queue, str(kills), str(fault.seed)],
        env=sqlite_stage.env(),
        timeout=300,
        check=True,
    )
    file = file_of(sqlite_stage)
    lines = sqlite_stage.history.read()
    last = {line["pid"]: line["what"] for line in lines if line["what"] != "kill"}
    in_mid_call = list(last.values()).count("enqueueing")
    promised = {line["job"] for line in lines if line["what"] == "enqueued"}
    found = jobs_in(file)
    verdict = check(lines, remaining=found)
    [(sound,)] = query(file, "PRAGMA integrity_check")
    fault.did(f"{kills} producers killed, {in_mid_call} of them in mid-call")
    fault.saw(
        f"{len(promised)} ids returned, {len(verdict.lost)} of them missing, {len({*found} - promised)} jobs more; "
        f"integrity_check {sound}"
    )
    assert "ok" == sound
    assert len(promised) > kills
    assert in_mid_call > kills / 2
    assert frozenset() == verdict.lost
    assert len(found) == len({*found})
    assert len({*found} - promised) <= in_mid_call


class Producer:
    """Another process that enqueues jobs, one at a time."""

    def __init__(self, stage: Stage, prefix: list[str]) -> None:
        command = [*prefix, sys.executable, str(APPS / "producer.py"), stage.queue]
        self._process = subprocess.Popen(
            command, env=stage.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._history = stage.history

    @property
    def pid(self) -> int:
        return self._process.pid

    def enqueue(self, n: int, seconds: float) -> str:
        """Return the error, or an empty text and note the job."""
        answer = self._ask([n, seconds])
        if "job" in answer:
            self._history.note("enqueued", n=n, job=answer["job"])
            return ""
        return f"{answer['error']}: {answer['text']}"

    def close(self) -> None:
        """Have it close the file."""
        self._ask(None)

    def _ask(self, call: list[Any] | None) -> dict[str, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        answer: dict[str, str] = json.loads(self._process.stdout.readline())
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(request.param, tmp_path / "disk") as disk:
        yield disk


@pytest.mark.fault(46)
def test_a_full_disk_refuses_jobs_and_loses_none(
    disk: SmallDisk, stage_on: MakeStage, fault: Fault, tmp_path: Path
) -> None:
    fillings = fault.scale(short=1, full=5)
    stage = stage_on(f"sqlite:///{disk.folder}/jobs.db")
    worker = stage.worker("-c", "2", "--lease", "30", prefix=disk.prefix)
    with Producer(stage, disk.prefix) as producer:
        worker.wait_for("worker.started")
        refusals = [_refusal_while_full(disk, stage, producer, worker, 100 * filling) for filling in range(fillings)]
        wait_until(lambda: len(succeeded(stage)) == 7 * fillings, what="the end of all accepted jobs")
        worker.send(signal.SIGTERM)
        assert 0 == worker.wait(), worker.output
        refusals.append(_refusal_to_open(disk, producer))
    shutil.copy(disk.seen_from_here(disk.folder / "jobs.db"), tmp_path / "copy.db")
    [(sound,)] = query(tmp_path / "copy.db", "PRAGMA integrity_check")
    verdict = check(stage.history.read(), remaining=jobs_in(tmp_path / "copy.db"))
    fault.did(f"the disk filled {fillings} times with jobs running, and once with the file closed")
    executions = verdict.executions
    fault.saw(
        f"{sum(map(bool, refusals))} of {len(refusals)} enqueues raised, "
        f"{executions.total()} executions of {len(executions)} accepted jobs"
    )
    kinds = Counter(refusal.partition(":")[0] for refusal in refusals)
    assert {"BrokerFull": fillings + 1} == kinds
    assert all("disk is full" in refusal or "the disk may be full" in refusal for refusal in refusals)
    verdict.assert_clean()
    assert {1} == set(verdict.executions.values())
    assert 7 * fillings == len(verdict.executions)
    assert "ok" == sound


def _refusal_while_full(disk: SmallDisk, stage: Stage, producer: Producer, worker: WorkerProcess, first: int) -> str:
    """Fill the disk while jobs run, try to enqueue, and make room again when the worker has noticed too."""
    noticed = len(worker.lines("poll.failed"))
    before = len(stage.history.lines())
    assert [""] * 6 == [producer.enqueue(first + n, 0.3) for n in range(6)]
    wait_until(lambda: len(stage.history.lines()) > before, what="a start")
    disk.fill(worker.process.pid, producer.pid)
    refusal = producer.enqueue(first + 50, 0.0)
    wait_until(lambda: len(worker.lines("poll.failed")) > noticed, what="a failed poll")
    disk.make_room(worker.process.pid, producer.pid)
    assert "" == producer.enqueue(first + 99, 0.0)
    return refusal


def _refusal_to_open(disk: SmallDisk, producer: Producer) -> str:
    """Fill the disk while nobody has the file open, and try to enqueue."""
    producer.close()
    before = disk.seen_from_here(disk.folder / "jobs.db").read_bytes()
    disk.fill(producer.pid)
    refusal = producer.enqueue(10_000, 0.0)
    assert before == disk.seen_from_here(disk.folder / "jobs.db").read_bytes()
    disk.make_room(producer.pid)
    assert "" == producer.enqueue(10_001, 0.0)
    producer.close()
    return refusal


def succeeded(stage: Stage) -> list[str]:
    return [line["job"] for line in stage.history.lines("settled") if line["as"] == "succeeded"]


@pytest.mark.fault(47)
def test_a_lock_that_another_process_holds_is_waited_for(stage_on: MakeStage, fault: Fault, tmp_path: Path) -> None:
    """Leases that are longer than that are kept; of shorter ones it is told that they were lost."""
    held = fault.scale(short=3, full=10)
    url = f"sqlite:///{tmp_path}/jobs.db"
    patient, hasty = stage_on(url), stage_on(url)
    workers = {
        stage: stage.worker("-c", "4", "--lease", str(lease)) for stage, lease in ((patient, held + 2), (hasty, 2))
    }
    for worker in workers.values():
        worker.wait_for("worker.started")
    within, over = held / 2, held + 0.5
    patient.enqueue_many(jobs.rest, enumerate([within, within, over, over]))
    hasty.enqueue_many(jobs.rest, enumerate([within, within, within, fault.scale(short=within, full=over)]))
    wait_until(lambda: len(patient.history.lines()) == 8, what="the starts")
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other, ThreadPoolExecutor() as threads:
        other.execute("BEGIN IMMEDIATE")
        locked_at = time.monotonic()
        put = threads.submit(patient.enqueue, jobs.quick, 4)
        time.sleep(held)
        other.execute("COMMIT")
        put.result()
        waited = time.monotonic() - locked_at
    wait_until(lambda: hasty.remaining() == 0, what="an empty queue")
    verdict = patient.verdict()
    lost = {stage: len(worker.lines("lease.lost")) for stage, worker in workers.items()}
    fault.did(f"the lock held for {held} s, over workers of L = {held + 2} s and L = 2 s with 4 jobs each")
    fault.saw(
        f"enqueue waited {waited:.1f} s; leases lost {lost[patient]} and {lost[hasty]}; "
        f"executed again {dict(verdict.reasons)}"
    )
    verdict.assert_clean()
    assert held <= waited
    assert 9 == len(verdict.executions)
    assert 0 == lost[patient]
    assert dict.fromkeys(range(5), 1) == Counter(
        line["n"] for line in patient.history.lines() if line["pid"] == workers[patient].process.pid
    )
    assert {*verdict.reasons} <= {"lease lost"}
    for worker in workers.values():
        worker.send(signal.SIGTERM)
    assert [0, 0] == [worker.wait() for worker in workers.values()]


@pytest.mark.fault(48)
def test_workers_that_share_a_file_execute_each_job_once(sqlite_stage: Stage, fault: Fault) -> None:
    count, share = fault.scale(short=(2, 500), full=(4, 2_500))
    workers = [sqlite_stage.worker() for _ in range(count)]
    for worker in workers:
        worker.wait_for("worker.started")
    began = time.monotonic()
    sqlite_stage.enqueue_many(jobs.rest, [(n, 0.01) for n in range(count * share)])
    verdict = sqlite_stage.verdict(within=300)
    seconds = time.monotonic() - began
    executions = Counter(line["pid"] for line in sqlite_stage.history.lines())
    fault.did(f"{count} workers, {count * share:,} jobs")
    fault.saw(
        f"{verdict.executions.total():,} executions, {min(executions.values()):,} to {max(executions.values()):,} "
        f"a worker, in {seconds:.0f} s"
    )
    verdict.assert_clean()
    assert {1} == set(verdict.executions.values())
    assert count * share == len(verdict.executions)
    assert {worker.process.pid for worker in workers} == executions.keys()


class Commands:
    """`qworker` commands, each in a process of its own that costs little."""

    def __init__(self, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(APPS / "forked_commands.py")],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Return its exit code, and all that it printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        code, output = json.loads(self._process.stdout.readline())
        return code, output

    def work(self, file: Path) -> tuple[int, str]:
        """Run all jobs in a file's queue "work"."""
        options = ("-q", "work", "--burst", "--poll-max", "20ms", "--log-level", "error", "--log-format", "json")
        return self.run("run", "jobs", "--broker", f"sqlite:///{file}", *options)

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def commands(sqlite_stage: Stage) -> Iterator[Commands]:
    commands = Commands(sqlite_stage.env())
    yield commands
    commands.close()


@pytest.fixture
def sound(sqlite_stage: Stage, commands: Commands) -> Path:
    """A file of 30 jobs in the queue "work", a few of its pages full."""
    jobs.quick.using(queue="work", headers={"padding": "x" * 900}).enqueue_many([(n,) for n in range(30)])
    jobs.app.close()
    return file_of(sqlite_stage)


@pytest.mark.fault(49)
def test_a_file_that_is_no_sound_database_is_left_alone(
    sound: Path, commands: Commands, fault: Fault, tmp_path: Path
) -> None:
    kinds = fault.scale(short=fault.random.sample([*KINDS], 6), full=[*KINDS])
    refused = 0
    for kind in kinds:
        file = Path(shutil.copy(sound, tmp_path / "damaged.db"))
        KINDS[kind](file)
        before = state_of(file)
        enqueue = commands.run("enqueue", "jobs.quick", "--args", "[1]", "--broker", f"sqlite:///{file}")
        for code, output in (commands.work(file), enqueue):
            assert (78, 1) == (code, len(output.splitlines())), (kind, output)
            assert output.startswith("qworker: ")
            assert str(file) in output
            refused += 1
        assert before == state_of(file), kind
        for left in tmp_path.glob("damaged.db*"):
            left.unlink()
    fault.did(f"{len(kinds)} kinds of damage")
    fault.saw(f"{refused} commands ended with 78 and one line, each file as it was")


@pytest.mark.fault(49)
def test_flipped_bytes_are_refused_or_cost_one_job(
    sound: Path, commands: Commands, fault: Fault, tmp_path: Path
) -> None:
    """Without a checksum, nobody can say that a job's text was another."""
    flips = fault.scale(short=12, full=500)
    refused = unnoticed = 0
    for number in range(flips):
        file = Path(shutil.copy(sound, tmp_path / "flipped.db"))
        # Of a few, all may go unnoticed; the text that begins a file of SQLite's never does.
        what = flip(file, fault.random, within=(0, 16) if number == 0 else None)
        before = state_of(file)
        code, output = commands.work(file)
        if code == 78:
            refused += 1
            assert 1 == len(output.splitlines()), (what, output)
            assert before == state_of(file), what
        else:
            unnoticed += 1
            assert 0 == code, (what, output)
            assert [("ok",)] == query(file, "PRAGMA integrity_check"), what
            assert [(True,)] == query(file, "SELECT count(*) <= 1 FROM messages"), what
        for left in tmp_path.glob("flipped.db*"):
            left.unlink()
    fault.did(f"{flips} files with flipped bytes")
    fault.saw(f"{refused} refused with exit code 78 and unchanged, in {unnoticed} all other jobs done")
    assert refused


@pytest.mark.fault(49)
def test_another_programs_file_is_judged_once_it_lets_go_of_it(
    commands: Commands, fault: Fault, tmp_path: Path
) -> None:
    file = tmp_path / "theirs.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other, ThreadPoolExecutor() as threads:
        other.execute("CREATE TABLE theirs (x)")
        before = state_of(file)  # not while it is locked: who closes a file lets go of the locks of its process
        other.execute("BEGIN EXCLUSIVE")
        work = threads.submit(commands.work, file)
        time.sleep(0.5)
        assert not work.done()
        other.execute("ROLLBACK")
        code, output = work.result()
    fault.did("another program's, while it holds the lock")
    assert (78, f"qworker: {file}: is the database of another program\n") == (code, output)
    assert before == state_of(file)


@pytest.mark.fault(49)
def test_a_page_found_damaged_at_work_ends_the_worker(sqlite_stage: Stage, fault: Fault) -> None:
    """Of a large file it would take too long to read all at each start."""
    large = jobs.quick.using(queue=sqlite_stage.queue, delay=600, headers=PADDING)
    waiting = {job.id for job in large.enqueue_many([(n,) for n in range(150)])}
    worker = sqlite_stage.worker("-c", "2")
    worker.wait_for("worker.started")
    running = sqlite_stage.enqueue(jobs.rest, 1000, 1.0)
    wait_until(sqlite_stage.history.lines, what="the start")
    jobs.app.close()
    file = file_of(sqlite_stage)
    damaged_at = damage_in_use(file, "messages_due")
    code = worker.wait()
    ended_at = time.monotonic()
    said = [line for line in worker.output.splitlines() if not line.startswith("{")]
    found = {json.loads(body)["id"] for (body,) in query(file, "SELECT body FROM messages NOT INDEXED")}
    fault.did(f"a page damaged under a worker, in a file of {file.stat().st_size / 2**20:.0f} MiB")
    fault.saw(
        f"exit code {code} after {ended_at - damaged_at:.1f} s, {len(waiting | {running.id}) - len(found)} jobs lost"
    )
    assert (78, 1) == (code, len(said)), worker.output
    assert said[0].startswith("qworker: ")
    assert "malformed" in said[0]
    assert [1000] == [line["n"] for line in sqlite_stage.history.lines("end")]
    assert waiting | {running.id} == found


class WallClock:
    """The wall clock of this process, and of the workers that follow its file."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = file
        self._offset = 0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self._offset)
        self.set(0)

    def set(self, offset: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(str(offset))
        new.replace(self._file)
        self._offset = offset


@pytest.mark.fault(50)
def test_a_wall_clock_that_is_set_moves_no_lease(
    sqlite_stage: Stage, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = 2
    steps = fault.random.sample([3600, -3600], 2) * fault.scale(short=1, full=10)
    kills = [*range(len(steps))] if fault.full else [len(steps) - 1]
    clock = WallClock(tmp_path / "clock", monkeypatch)

    def start() -> WorkerProcess:
        options = ("-c", "4", "--lease", str(lease))
        worker = sqlite_stage.worker(*options, app="wall_clock", env={"WALL_CLOCK": str(tmp_path / "clock")})
        worker.wait_for("worker.started")
        return worker

    workers = {worker.process.pid: worker for worker in (start(), start())}
    for step in range(len(steps)):
        long = 1.5 * lease if step in kills else 0.5 * lease
        _wait_for_starts(sqlite_stage, [(1000 * step + n, long) for n in range(4)], 4)
        _wait_for_starts(sqlite_stage, [(1000 * step + n, 0.01) for n in range(4, 204)], 20)
        clock.set(sum(steps[: step + 1]))
        wait_until(partial(_all_follow, sqlite_stage, {*workers}, sum(steps[: step + 1])), what="the step")
        if step in kills:
            sqlite_stage.kill(workers.pop(fault.random.choice(_at_work(sqlite_stage))))
            replacement = start()
            workers[replacement.process.pid] = replacement
        wait_until(lambda: sqlite_stage.remaining() == 0, what="an empty queue")
    verdict = sqlite_stage.verdict()
    fault.did(
        f"steps of {' and '.join(f'{by / 3600:+.0f} h' for by in steps[:2])}, {len(steps)} in all; {len(kills)} kills"
    )
    fault.saw(
        f"{len(verdict.unexplained)} duplicates, {verdict.reasons['killed']} jobs started again "
        f"{verdict.slowest_recovery:.1f} s after a kill at the latest, L = {lease} s"
    )
    verdict.assert_clean()
    assert {"killed"} == {*verdict.reasons}
    assert 204 * len(steps) == len(verdict.executions)
    assert verdict.slowest_recovery <= lease + 2


def _wait_for_starts(stage: Stage, calls: list[tuple[int, float]], starts: int) -> None:
    """Enqueue, and wait until some of them have started."""
    stage.enqueue_many(jobs.rest, calls)
    numbers = {n for n, _ in calls}
    wait_until(lambda: len(numbers & {*stage.history.count()}) >= starts, what="starts")


def _at_work(stage: Stage) -> list[int]:
    """Return the processes of handlers that have started and not ended."""
    ended = {line["job"] for line in stage.history.lines("end")}
    return [line["pid"] for line in stage.history.lines() if line["job"] not in ended]


def _all_follow(stage: Stage, pids: set[int], offset: int) -> bool:
    told = {line["pid"]: line["offset"] for line in stage.history.lines("clock")}
    return all(told.get(pid, 0) == offset for pid in pids)


def is_merged(file: Path) -> bool:
    """Merge the log into the file, and say whether nothing of it is left to merge."""
    [(busy, logged, merged)] = query(file, "PRAGMA wal_checkpoint(PASSIVE)")
    return not busy and bool(logged == merged)


@pytest.mark.fault(51, minutes=5)
def test_a_reader_that_stays_long_holds_up_nobody_and_leaves_a_bounded_log(sqlite_stage: Stage, fault: Fault) -> None:
    stays, rest = fault.scale(short=(2.0, 0.0), full=(300.0, 3.0))
    worker = sqlite_stage.worker()
    worker.wait_for("worker.started")
    file = file_of(sqlite_stage)
    enqueued = 0

    def work() -> None:
        nonlocal enqueued
        large = jobs.quick.using(queue=sqlite_stage.queue, headers=PADDING)
        made = large.enqueue_many([(enqueued + n,) for n in range(20)])
        enqueued += len(made)
        sqlite_stage.history.note_all({"what": "enqueued", "job": job.id, "n": job.args[0]} for job in made)
        wait_until(lambda: sqlite_stage.history.count("end").total() == enqueued, what="the jobs' ends")

    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        read = reader.execute("SELECT count(*) FROM messages").fetchone()
        until = time.monotonic() + stays
        while time.monotonic() < until or log_of(file).stat().st_size < 1.5 * BOUND:
            work()
            time.sleep(rest)
        largest = log_of(file).stat().st_size
        assert read == reader.execute("SELECT count(*) FROM messages").fetchone()
        meanwhile = enqueued
        reader.execute("COMMIT")
    work()  # its last commit finds the reader gone, and merges the log
    work()  # and this begins it anew
    after = log_of(file).stat().st_size
    wait_until(lambda: is_merged(file), what="a log that is merged: the worker may be about it")
    verdict = sqlite_stage.verdict()
    fault.did(f"a snapshot held for {stays:.0f} s or more, {meanwhile:,} jobs of 60 KB meanwhile")
    fault.saw(f"the log was {largest / 2**20:.0f} MiB, and is {after / 2**20:.0f} MiB after it")
    verdict.assert_clean()
    assert {1} == set(verdict.executions.values())
    assert after <= BOUND
