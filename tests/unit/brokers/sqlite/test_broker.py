import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from qworker import App
from qworker.brokers.base import Message
from qworker.brokers.sqlite import file as sqlite_file
from qworker.brokers.sqlite import lookout as sqlite_lookout
from qworker.brokers.sqlite import session as sqlite_session
from qworker.brokers.sqlite import writer as sqlite_writer
from qworker.brokers.sqlite.broker import SqliteBroker, SqliteQueue
from qworker.brokers.sqlite.operation import Mode, Operation, Reply
from qworker.brokers.sqlite.session import Session, machine, read_clock
from qworker.clock import SYSTEM_CLOCK
from qworker.errors import (
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerUnavailable,
    BrokerUnusable,
    LeaseLost,
    QueueNotFound,
    QworkerError,
)
from qworker.testing.clock import FakeClock
from waiting import until


def note(_: str) -> None: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def broker(path: Path, clock: FakeClock) -> AsyncIterator[SqliteBroker]:
    broker = SqliteBroker(path, clock=clock)
    await broker.create_queue("jobs")
    yield broker
    await broker.aclose()


@pytest.fixture
def queue(broker: SqliteBroker) -> SqliteQueue:
    return broker.queue("jobs")


async def run_sql(broker: SqliteBroker, sql: str, *values: object) -> list[tuple[object, ...]]:
    """Run a statement on the broker's own connection."""
    return await broker.writer().submit(Mode.READ, lambda session: session.connection.execute(sql, values).fetchall())


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        [verdict] = connection.execute("PRAGMA integrity_check").fetchone()
        return str(verdict)


def writers(path: Path | None = None) -> list[threading.Thread]:
    name = f"qworker {SqliteBroker(path).label}"
    return [thread for thread in threading.enumerate() if thread.name == name]


def refusal(path: Path) -> str:
    """Return the one line with which a file is refused."""

    async def refused() -> str:
        broker = SqliteBroker(path)
        with pytest.raises(BrokerUnusable) as caught:
            await broker.create_queue("jobs")
        await broker.aclose()
        return str(caught.value)

    line = asyncio.run(refused())
    assert "\n" not in line
    return line


def contents(path: Path) -> tuple[bytes, bytes]:
    return path.read_bytes(), path.with_name(f"{path.name}-wal").read_bytes()


class TestWait:
    """A wait ends early if there is something: what it would last otherwise is longer than any test."""

    LONG = 1000.0

    async def test_ends_when_another_process_puts(self, path: Path, queue: SqliteQueue) -> None:
        waiting = asyncio.ensure_future(queue.wait(self.LONG))
        assert [] == await queue.get(visibility=60)
        assert not waiting.done()
        other = (
            "import asyncio, sys; from qworker.brokers.sqlite.broker import SqliteBroker; "
            "asyncio.run(SqliteBroker(sys.argv[1]).queue('jobs').put('x'))"
        )
        await asyncio.to_thread(lambda: subprocess.run([sys.executable, "-c", other, path], check=True))
        async with asyncio.timeout(30):
            await waiting

    async def test_ends_when_this_process_puts_in_memory_too(self) -> None:
        queue = SqliteBroker(None).queue("jobs")
        await queue._broker.create_queue("jobs")
        waiting = asyncio.ensure_future(queue.wait(self.LONG))
        await queue.put("x")
        async with asyncio.timeout(30):
            await waiting

    async def test_ends_at_once_if_something_is_there(self, queue: SqliteQueue) -> None:
        await queue.put("x")
        async with asyncio.timeout(30):
            await queue.wait(self.LONG)

    async def test_ends_when_a_message_becomes_visible_by_itself(self, queue: SqliteQueue, clock: FakeClock) -> None:
        await queue.put("x", delay=100)
        waiting = asyncio.ensure_future(queue.wait(self.LONG))
        assert [] == await queue.get(visibility=60)
        assert not waiting.done()
        clock.advance(100)
        async with asyncio.timeout(30):
            await waiting

    async def test_ends_in_the_end(self, queue: SqliteQueue) -> None:
        began = time.monotonic()
        await queue.wait(0.1)
        assert 0.1 <= time.monotonic() - began

    async def test_of_a_queue_that_is_not_there_is_for_a_get_to_tell(self, broker: SqliteBroker) -> None:
        async with asyncio.timeout(30):
            await broker.queue("missing").wait(self.LONG)

    async def test_ends_with_the_connection(self, broker: SqliteBroker, queue: SqliteQueue) -> None:
        waiting = asyncio.ensure_future(queue.wait(self.LONG))
        assert [] == await queue.get(visibility=60)
        await broker.aclose()
        async with asyncio.timeout(30):
            await waiting

    async def test_ends_though_the_file_bears_the_same_time_as_before(
        self, broker: SqliteBroker, queue: SqliteQueue, path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_lookout, "_last_written", lambda _: "now")
        monkeypatch.setattr(sqlite_lookout, "_SAME_MOMENT", 1.0)
        monkeypatch.setattr(sqlite_lookout, "_LOOK_EVERY", self.LONG)
        waiting = asyncio.ensure_future(queue.wait(self.LONG))
        while broker.writer()._lookout._seen != "now":  # noqa: ASYNC110 — another thread's
            await asyncio.sleep(0.001)
        another = SqliteBroker(path, clock=clock)
        await another.queue(queue.name).put("x")
        await another.aclose()
        async with asyncio.timeout(30):
            await waiting

    async def test_that_nobody_waits_for_is_forgotten(self, broker: SqliteBroker, queue: SqliteQueue) -> None:
        waiting = asyncio.ensure_future(queue.wait(self.LONG))
        while not broker.writer()._lookout.watches:  # noqa: ASYNC110 — another thread's
            await asyncio.sleep(0.001)
        waiting.cancel()
        while broker.writer()._lookout.watches:  # noqa: ASYNC110 — another thread's
            await asyncio.sleep(0.001)


class TestPlainCode:
    """Threads that put without an event loop run what they wait for themselves, and each other's."""

    async def test_all_that_several_threads_put_arrives(self, queue: SqliteQueue) -> None:
        def put(thread: int) -> list[str]:
            return [queue.put_now(f"{thread}-{n}") for n in range(50)]

        ids = await asyncio.gather(*(asyncio.to_thread(put, thread) for thread in range(4)))
        assert 200 == len({message_id for some in ids for message_id in some})
        assert 200 == await queue.count()

    async def test_no_thread_is_started_for_it_and_the_file_is_closed(self, path: Path) -> None:
        broker = SqliteBroker(path)
        await broker.create_queue("jobs")
        await broker.aclose()
        await asyncio.to_thread(broker.queue("jobs").put_now, "x")
        assert [] == writers(path)
        assert broker.writer()._connection is not None
        await broker.aclose()
        assert broker.writer()._connection is None

    def test_an_error_is_of_the_one_who_made_it(self, path: Path) -> None:
        with pytest.raises(QueueNotFound):
            SqliteBroker(path).queue("missing").put_now("x")

    def test_what_a_signal_interrupts_is_uncertain_to_the_others(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(_: object) -> None:
            raise KeyboardInterrupt

        writer = SqliteBroker(path)._writer
        theirs: Operation[None] = Operation(Mode.KEEP, lambda _: None, Reply(), 60)
        writer._calls.append(theirs)
        monkeypatch.setattr(writer, "_execute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.run(Mode.KEEP, lambda _: None)
        with pytest.raises(AnswerLost):
            theirs.future.result()

    @pytest.mark.parametrize("bundle", [1, 2])
    def test_a_call_within_a_call_of_its_thread_raises(self, path: Path, bundle: int) -> None:
        """As by a signal's handler, or by a finalizer."""
        app = App(broker=(broker := SqliteBroker(path)))
        task = app.task(name="note", queue="jobs")(note)

        def within(_: object) -> str:
            with pytest.raises(QworkerError, match="would wait for itself"):
                task.using(bundle=bundle).enqueue_many([("x",)] * bundle)
            return "done"

        assert "done" == broker._writer.run(Mode.KEEP, within)
        task.enqueue("x")
        app.close()

    @pytest.mark.parametrize("bundle", [1, 2])
    async def test_a_call_on_its_own_thread_raises(self, path: Path, bundle: int) -> None:
        app = App(broker=(broker := SqliteBroker(path)))
        task = app.task(name="note", queue="jobs")(note)

        def within(_: object) -> str:
            with pytest.raises(QworkerError, match="would wait for itself"):
                task.using(bundle=bundle).enqueue_many([("x",)] * bundle)
            return threading.current_thread().name

        assert (await broker._writer.submit(Mode.KEEP, within)).startswith("qworker sqlite:")
        await app.aclose()


class TestBroker:
    def test_a_file(self) -> None:
        broker = SqliteBroker("data/jobs.db")
        assert (f"sqlite:///{Path.cwd()}/data/jobs.db", 0.5, True) == (broker.label, broker.poll_max, broker.shared)

    def test_memory(self) -> None:
        broker = SqliteBroker(None)
        assert ("sqlite:// (in memory)", 0.5, False) == (broker.label, broker.poll_max, broker.shared)

    def test_making_one_touches_nothing(self, path: Path) -> None:
        SqliteBroker(path)
        assert not path.exists()
        assert [] == writers(path)

    async def test_a_relative_path_is_meant_when_the_broker_is_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        broker = SqliteBroker("here.db")
        monkeypatch.chdir("/")
        await broker.create_queue("jobs")
        await broker.aclose()
        assert (tmp_path / "here.db").exists()

    async def test_a_file_outlives_its_broker(self, path: Path) -> None:
        for expected in (True, False):
            broker = SqliteBroker(path)
            assert expected is await broker.create_queue("jobs")
            await broker.aclose()

    async def test_closed_cleanly_there_is_one_file(self, broker: SqliteBroker, queue: SqliteQueue, path: Path) -> None:
        await queue.put("x")
        await broker.aclose()
        assert [path] == list(path.parent.iterdir())
        for thread in writers(path):
            thread.join(10)
        assert [] == writers(path)

    async def test_brokers_on_one_file_share_it(self, queue: SqliteQueue, path: Path, clock: FakeClock) -> None:
        other = SqliteBroker(path, clock=clock)
        await other.queue("jobs").put("x")
        assert ["x"] == [message.body for message in await queue.get(visibility=60)]
        assert [] == await other.queue("jobs").get(visibility=60)
        await other.aclose()
        assert 1 == await queue.count()

    async def test_memory_is_private(self) -> None:
        one, two = SqliteBroker(None), SqliteBroker(None)
        await one.create_queue("jobs")
        with pytest.raises(QueueNotFound):
            await two.queue("jobs").put("x")

    def test_memory_outlives_its_loops(self) -> None:
        broker = SqliteBroker(None)

        async def produce() -> None:
            await broker.create_queue("jobs")
            await broker.queue("jobs").put("x")
            await broker.aclose()

        asyncio.run(produce())
        assert 1 == asyncio.run(broker.queue("jobs").count())

    def test_a_forgotten_broker_leaves_no_thread(self, path: Path) -> None:
        async def use() -> None:
            await SqliteBroker(path).create_queue("jobs")
            await SqliteBroker(None).create_queue("jobs")

        asyncio.run(use())
        gc.collect()
        for thread in writers() + writers(path):
            thread.join(10)
        assert [] == writers() + writers(path)
        assert [path] == list(path.parent.iterdir())

    def test_a_queue_keeps_its_broker(self) -> None:
        async def use() -> int:
            broker = SqliteBroker(None)
            await broker.create_queue("jobs")
            queue = broker.queue("jobs")
            del broker
            gc.collect()
            await queue.put("x")
            return await queue.count()

        assert 1 == asyncio.run(use())

    async def test_closing_one_loop_spares_the_others(self, broker: SqliteBroker, queue: SqliteQueue) -> None:
        async def come_and_go() -> None:
            await queue.put("theirs")
            await broker.aclose()

        connection = broker._writer._connection
        for _ in range(20):
            await asyncio.gather(asyncio.to_thread(asyncio.run, come_and_go()), *(queue.put("ours") for _ in range(5)))
        assert 120 == await queue.count()
        assert connection is broker._writer._connection

    async def test_a_prefix_has_no_wildcards(self, broker: SqliteBroker) -> None:
        await broker.create_queue("mail-in")
        assert ["mail-in"] == await broker.list_queues("mail")
        assert [] == await broker.list_queues("mail_")
        assert [] == await broker.list_queues("%")

    async def test_a_deleted_queue_can_be_made_again_at_once(self, broker: SqliteBroker, queue: SqliteQueue) -> None:
        await queue.put("old")
        await broker.delete_queue("jobs")
        assert await broker.create_queue("jobs") is True
        assert 0 == await queue.count()


class TestMessages:
    async def test_they_come_in_the_order_in_which_they_became_visible(
        self, queue: SqliteQueue, clock: FakeClock
    ) -> None:
        await queue.put("fourth", delay=3)
        await queue.put("first")
        await queue.put("second")
        await queue.put("third", delay=2)
        clock.advance(3)
        assert ["first", "second", "third", "fourth"] == [message.body for message in await queue.peek(4)]
        messages = await queue.get(4, visibility=60)
        assert ["first", "second", "third", "fourth"] == [message.body for message in messages]

    async def test_a_moment_is_exact_to_the_millisecond(self, queue: SqliteQueue, clock: FakeClock) -> None:
        await queue.put("x")
        await queue.get(visibility=1)
        clock.advance(0.999)
        assert [] == await queue.get(visibility=1)
        clock.advance(0.001)
        assert 1 == len(await queue.get(visibility=1))

    async def test_receipts_and_ids_are_never_used_again(self, queue: SqliteQueue, clock: FakeClock) -> None:
        receipts, ids = set(), set()
        for _ in range(20):
            ids.add(await queue.put("x"))
            [message] = await queue.get(visibility=1)
            receipt = await queue.update(message.id, message.receipt, visibility=1)
            receipts |= {message.receipt, receipt}
            await queue.delete(message.id, receipt)
        assert (40, 20) == (len(receipts), len(ids))

    async def test_each_of_a_batch_has_its_own_receipt(self, queue: SqliteQueue) -> None:
        await asyncio.gather(*(queue.put("x") for _ in range(5)))
        assert 5 == len({message.receipt for message in await queue.get(5, visibility=60)})

    @pytest.mark.parametrize("message_id", ["-1", "", "1e3", "\u0661", "9" * 5000, "1 "])
    async def test_an_odd_id_is_unknown(self, queue: SqliteQueue, message_id: str) -> None:
        await queue.put("x")
        [message] = await queue.get(visibility=60)
        with pytest.raises(LeaseLost):
            await queue.delete(message_id, message.receipt)

    async def test_one_that_fails_fails_alone(self, broker: SqliteBroker, queue: SqliteQueue) -> None:
        outcomes = await asyncio.gather(
            queue.put("one"),
            queue.delete("99", "stale"),
            broker.queue("missing").put("x"),
            queue.delete("1", "lone surrogate \ud800"),
            queue.put("two"),
            return_exceptions=True,
        )
        expected = [str, LeaseLost, QueueNotFound, UnicodeEncodeError, str]
        assert expected == [type(outcome) for outcome in outcomes]
        assert 2 == await queue.count()

    async def test_an_idle_get_does_not_write(self, queue: SqliteQueue, path: Path, clock: FakeClock) -> None:
        await queue.put("expired", ttl=1)
        await queue.put("leased")
        clock.advance(1)
        await queue.get(visibility=60)
        before = contents(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(10):
                assert [] == await queue.get(32, visibility=60)
        assert before == contents(path)

    async def test_puts_alone_purge_what_has_expired(
        self, broker: SqliteBroker, queue: SqliteQueue, clock: FakeClock
    ) -> None:
        await broker.create_queue("other")
        await asyncio.gather(*(queue.put("x", ttl=1) for _ in range(2500)))
        clock.advance(1)
        assert 0 == await queue.count()
        for _ in range(3):
            await broker.queue("other").put("x")
        assert [(3,)] == await run_sql(broker, "SELECT count(*) FROM messages")

    async def test_a_cancelled_get_that_still_waits_leases_nothing(
        self, broker: SqliteBroker, queue: SqliteQueue, path: Path
    ) -> None:
        await queue.put("x")
        with holding_the_lock(path):
            blocker = asyncio.create_task(queue.put("y"))
            await until(broker._writer._inbox.empty)
            get = asyncio.create_task(queue.get(visibility=60))
            await asyncio.sleep(0)
            get.cancel()
            with pytest.raises(asyncio.CancelledError):
                await get
        await blocker
        assert 2 == len(await queue.peek(2))

    async def test_an_update_that_is_cancelled_while_the_file_is_locked_is_never_done(
        self, broker: SqliteBroker, queue: SqliteQueue, path: Path
    ) -> None:
        await queue.put("x")
        [message] = await queue.get(visibility=60)
        with holding_the_lock(path):
            update = asyncio.create_task(queue.update(message.id, message.receipt, visibility=60))
            await asyncio.sleep(0)
            await until(broker._writer._inbox.empty)
            update.cancel()
            with pytest.raises(asyncio.CancelledError):
                await update
        await queue.delete(message.id, message.receipt)

    @pytest.mark.parametrize(
        ("statement", "index"),
        [
            ("CLAIM", "messages_due (queue=? AND visible_at<?)"),
            ("PEEK", "messages_due (queue=? AND visible_at<?)"),
            ("ANY_DUE", "messages_due (queue=? AND visible_at<?)"),
            ("UPDATE", "INTEGER PRIMARY KEY (rowid=?)"),
            ("DELETE", "INTEGER PRIMARY KEY (rowid=?)"),
            ("PURGE", "messages_expiry (expires_at<?)"),
            ("COUNT", "messages_due (queue=?)"),
            ("COUNT", "messages_expiry (expires_at<?)"),
        ],
    )
    async def test_query_plans(self, broker: SqliteBroker, statement: str, index: str) -> None:
        sql = getattr(sqlite_session, statement)
        names = dict.fromkeys(["queue", "now", "until", "limit", "seq", "receipt", "body"], 1)
        values = (1,) * sql.count("?") if "?" in sql else names
        plan = await broker.writer().submit(
            Mode.READ, lambda session: session.connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
        )
        steps = [str(step[3]) for step in plan]
        assert any(index in step for step in steps), steps
        assert not any(step.startswith("SCAN messages") or "TEMP B-TREE" in step for step in steps), steps


class TestWallClock:
    @pytest.mark.parametrize("step", [-3600, -1, 0, 0.2, 1, 3600])
    async def test_set_it_neither_prolongs_nor_ends_a_lease(
        self, queue: SqliteQueue, clock: FakeClock, step: float
    ) -> None:
        await queue.put("x")
        await queue.get(visibility=10)
        clock.advance(9)
        clock.step(step)
        assert [] == await queue.get(visibility=10)
        clock.advance(1)
        assert 1 == len(await queue.get(visibility=10))

    @pytest.mark.parametrize("step", [-3600, 3600])
    async def test_set_it_changes_no_delay_and_no_life(self, queue: SqliteQueue, clock: FakeClock, step: float) -> None:
        await queue.put("x", delay=10, ttl=20)
        clock.step(step)
        assert [] == await queue.peek()
        clock.advance(10)
        assert 1 == len(await queue.peek())
        clock.advance(10)
        assert [] == await queue.peek()
        assert 0 == await queue.count()

    @pytest.mark.parametrize("step", [-3600, -1, 1, 3600])
    async def test_set_it_makes_no_message_older_or_younger(
        self, queue: SqliteQueue, clock: FakeClock, step: float
    ) -> None:
        await queue.put("x")
        clock.advance(9)
        clock.step(step)
        [peeked] = await queue.peek()
        [message] = await queue.get(visibility=10)
        assert [9, 9] == [(at - message.inserted_at).total_seconds() for at in (peeked.seen_at, message.received_at)]

    @pytest.mark.parametrize("step", [-5, 5])
    async def test_all_processes_follow_it_once(
        self, broker: SqliteBroker, queue: SqliteQueue, path: Path, clock: FakeClock, step: float
    ) -> None:
        other = SqliteBroker(path, clock=clock)
        await queue.put("x")
        await queue.get(visibility=10)
        clock.step(step)
        for each in (broker, other, broker, other):
            assert [] == await each.queue("jobs").get(visibility=10)
            assert 1 == await each.queue("jobs").count()
        clock.advance(9)
        assert [] == await other.queue("jobs").get(visibility=10)
        clock.advance(1)
        assert 1 == len(await other.queue("jobs").get(visibility=10))
        await other.aclose()

    async def test_the_machines_clock_goes_on_in_its_sleep(self) -> None:
        assert abs(SYSTEM_CLOCK.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60

    async def test_after_a_reboot_nothing_moves(
        self, queue: SqliteQueue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await queue.put("x", delay=10)
        monkeypatch.setattr(sqlite_session, "_MACHINE", "rebooted")
        clock.advance(10)
        clock.step(-2)
        await queue.put("y")
        assert ["y"] == [message.body for message in await queue.peek(2)]
        clock.advance(2)
        assert 2 == len(await queue.peek(2))

    async def test_where_no_boot_has_a_name_its_clock_is_not_taken_for_the_last_ones(
        self, path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Windows and macOS: after a start the steady clock begins anew, as if the other had been set by days."""
        monkeypatch.setattr(sqlite_session, "_BOOT", Path("/none"))
        monkeypatch.setattr(sqlite_session, "_MACHINE", machine())
        clock.advance(3 * 86_400)
        before = SqliteBroker(path, clock=clock)
        await before.create_queue("jobs")
        await before.queue("jobs").put("x")
        await before.aclose()
        after = SqliteBroker(path, clock=FakeClock(clock.time() + 10))
        await after.queue("jobs").put("y")
        assert ["x", "y"] == [message.body for message in await after.queue("jobs").peek(2)]
        await after.aclose()

    @pytest.mark.parametrize("behind", [30 * 60, 56 * 365 * 86_400])
    async def test_a_machine_that_starts_without_the_time_loses_nothing(
        self, queue: SqliteQueue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, behind: int
    ) -> None:
        """Its clock is set once it has a network: until then, it is where it was last, or in 1970."""
        clock.advance(100)
        await queue.put("old")
        await queue.put("later", delay=60)
        monkeypatch.setattr(sqlite_session, "_MACHINE", "rebooted")
        clock.step(-behind)
        await queue.put("new")
        assert {"old", "new"} == {message.body for message in await queue.get(5, visibility=90)}
        clock.step(behind + 3600)
        assert [] == await queue.get(5, visibility=90), "their leases have not ended"
        clock.advance(60)
        assert ["later"] == [message.body for message in await queue.get(5, visibility=90)]
        clock.advance(30)
        assert {"old", "new"} == {message.body for message in await queue.get(5, visibility=90)}

    def test_a_pause_between_two_readings_is_no_step(self) -> None:
        class Interrupted(FakeClock):
            pauses = 3

            def time(self) -> float:
                if self.pauses:
                    self.pauses -= 1
                    self.advance(100)
                return super().time()

        clock = Interrupted(1000)
        assert (1300_000, 1000_000) == read_clock(clock)

    def test_processes_of_one_boot_know_each_other(self) -> None:
        script = "from qworker.brokers.sqlite.session import machine; print(machine())"
        assert [machine()] == run_script(script, Path())


class TestDurability:
    async def synchronous(self, broker: SqliteBroker) -> int:
        [(value,)] = await run_sql(broker, "PRAGMA synchronous")
        assert isinstance(value, int)
        return value

    async def test_puts_are_flushed_and_the_rest_is_not(self, broker: SqliteBroker, queue: SqliteQueue) -> None:
        full, normal = 2, 1
        assert full == await self.synchronous(broker)
        await queue.put("x")
        [message] = await queue.get(visibility=60)
        assert normal == await self.synchronous(broker)
        receipt = await queue.update(message.id, message.receipt, visibility=60)
        await queue.delete(message.id, receipt)
        assert normal == await self.synchronous(broker)
        await queue.put("x")
        assert full == await self.synchronous(broker)
        await queue.clear()
        assert normal == await self.synchronous(broker)
        await broker.delete_queue("jobs")
        assert full == await self.synchronous(broker)

    async def test_a_put_is_flushed_in_any_company(self, broker: SqliteBroker, queue: SqliteQueue, path: Path) -> None:
        await queue.put("x")
        await queue.get(visibility=60)
        with holding_the_lock(path):
            calls = [asyncio.create_task(call) for call in (queue.count(), queue.put("y"), queue.clear())]
            await asyncio.sleep(0.05)
        await asyncio.gather(*calls)
        assert 2 == await self.synchronous(broker)

    async def test_the_journal_is_a_wal(self, broker: SqliteBroker) -> None:
        assert [("wal",)] == await run_sql(broker, "PRAGMA journal_mode")

    async def test_what_waits_together_is_committed_together(
        self, broker: SqliteBroker, queue: SqliteQueue, path: Path
    ) -> None:
        commits: list[str] = []
        trace = commits.append
        await broker.writer().submit(Mode.READ, lambda session: session.connection.set_trace_callback(trace))
        with holding_the_lock(path):
            puts = [asyncio.create_task(queue.put(str(n))) for n in range(100)]
            await until(lambda: "BEGIN IMMEDIATE" in commits)
        await asyncio.gather(*puts)
        assert commits.count("COMMIT") <= 2


class TestSharing:
    def test_two_processes_share_nothing(self, path: Path) -> None:
        async def fill() -> None:
            broker = SqliteBroker(path)
            await broker.create_queue("jobs")
            await asyncio.gather(*(broker.queue("jobs").put(str(n)) for n in range(2000)))
            await broker.aclose()

        asyncio.run(fill())
        consumers = [
            subprocess.Popen([sys.executable, "-c", _CONSUMER, path], stdout=subprocess.PIPE, text=True) for _ in "ab"
        ]
        shares = [consumer.communicate()[0].split() for consumer in consumers]
        assert [0, 0] == [consumer.returncode for consumer in consumers]
        assert all(shares)
        assert Counter(map(str, range(2000))) == Counter(shares[0]) + Counter(shares[1])

    def test_two_processes_may_create_the_file_at_once(self, path: Path) -> None:
        script = "import asyncio,sys; from qworker.brokers.sqlite.broker import SqliteBroker as B; "
        script += "print(asyncio.run(B(sys.argv[1]).create_queue('jobs')))"
        for n in range(3):
            command = [sys.executable, "-W", "error", "-c", script, f"{path}{n}"]
            racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
            assert ["False\n"] * 3 + ["True\n"] == sorted(racer.communicate()[0] for racer in racers)

    def test_a_schema_that_is_made_meanwhile_is_ours(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        read_owner, racers = sqlite_file._owner, [path]

        def be_overtaken(connection: sqlite3.Connection) -> int:
            while racers:
                other = threading.Thread(target=sound_file, args=[racers.pop()])
                other.start()
                other.join()
            return read_owner(connection)

        monkeypatch.setattr(sqlite_file, "_owner", be_overtaken)
        broker = SqliteBroker(path)
        assert 30 == asyncio.run(broker.queue("jobs").count())

    async def test_a_lock_held_for_ever_is_given_up(
        self, queue: SqliteQueue, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_writer, "PATIENCE", 0.3)
        with holding_the_lock(path), pytest.raises(BrokerBusy, match=r"has held the write lock for 0\.3 s"):
            await queue.put("x")
        assert 0 == await queue.count()

    async def test_a_get_that_waited_for_half_its_lease_leases_nothing(
        self, broker: SqliteBroker, queue: SqliteQueue, path: Path
    ) -> None:
        await queue.put("x")
        with holding_the_lock(path):
            put = asyncio.create_task(queue.put("y"))
            get = asyncio.create_task(queue.get(visibility=1))
            await asyncio.sleep(0.6)
        with pytest.raises(BrokerBusy, match=r"has held the write lock for 0\.5 s"):
            await get
        await put
        assert [0, 0] == [message.dequeue_count for message in await queue.peek(2)]

    async def test_at_the_end_of_a_process_a_lock_is_not_waited_for(
        self, broker: SqliteBroker, queue: SqliteQueue, path: Path
    ) -> None:
        with holding_the_lock(path):
            put = asyncio.create_task(queue.put("x"))
            await asyncio.sleep(0)
            broker._writer.end()
            with pytest.raises(BrokerBusy):
                await put

    async def test_a_file_that_is_replaced_is_noticed(
        self, broker: SqliteBroker, queue: SqliteQueue, path: Path
    ) -> None:
        await queue.put("old")
        for file in list(path.parent.iterdir()):
            file.unlink()
        with pytest.raises(QueueNotFound):
            await queue.put("lost")
        await broker.create_queue("jobs")
        await queue.put("new")
        await broker.aclose()
        assert "ok" == integrity(path)
        assert ["new"] == [message.body for message in await queue.peek(5)]


class TestForks:
    """In a process of their own: the tests' has too many threads to fork."""

    def test_parent_and_child_both_go_on(self, path: Path) -> None:
        assert ["3 ['child', 'parent', 'parent']", "ok"] == run_script(_FORK, path)

    def test_a_fork_in_the_middle_of_work(self, path: Path) -> None:
        assert ["2000", "ok"] == run_script(_FORKS_UNDER_LOAD, path)

    @pytest.mark.parametrize(
        ("act", "code"),
        [("sys.exit()", 0), ("gc.collect()", 0), ("queue.put_now('child')", "QworkerError")],
    )
    def test_a_signals_handler_forks_in_the_middle_of_an_operation(self, path: Path, act: str, code: int | str) -> None:
        """The child is in the middle of it, too, and would wait for itself."""
        assert [f"child: {code}", "parent: 2 ok"] == run_script(_FORK_IN_A_SIGNAL.replace("ACT", act), path)

    def test_memory_stays_with_the_parent(self, path: Path) -> None:
        [child, parent] = run_script(_FORK_MEMORY, path)
        assert "sqlite:// (in memory): belongs to the parent process" in child
        assert "parent 1" == parent


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"not a database\n" * 400, "is not a sound SQLite database: file is not a database"),
            (b"x", "is not a SQLite database"),
            (b"SQLite format 3\0" + b"\xff" * 8000, "is not a sound SQLite database: file is not a database"),
        ],
    )
    def test_no_database(self, path: Path, content: bytes, problem: str) -> None:
        path.write_bytes(content)
        assert f"{path}: {problem}" == refusal(path)
        assert content == path.read_bytes()

    @pytest.mark.parametrize("missing", [1, 100, 4096, 5000, 20_000])
    def test_cut_short(self, path: Path, missing: int) -> None:
        content = sound_file(path)
        path.write_bytes(content[:-missing])
        assert str(path) in refusal(path)
        assert content[:-missing] == path.read_bytes()

    @pytest.mark.parametrize("page", range(8))
    def test_a_page_of_rubbish(self, path: Path, page: int) -> None:
        content = sound_file(path)
        begin = page * 4096 + (100 if page == 0 else 0)
        corrupt = content[:begin] + b"\xaa" * (4096 - begin % 4096) + content[(page + 1) * 4096 :]
        assert len(content) == len(corrupt)
        path.write_bytes(corrupt)
        assert str(path) in refusal(path)
        assert corrupt == path.read_bytes()

    def test_another_program(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE theirs (x)")
        content = path.read_bytes()
        assert f"{path}: is the database of another program" == refusal(path)
        assert content == path.read_bytes()

    def test_another_programs_unfinished_wal(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE theirs (x)")
            before = contents(path)
            assert f"{path}: is the database of another program" == refusal(path)
            assert before == contents(path)

    def test_a_newer_schema(self, path: Path) -> None:
        sound_file(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 2")
        content = path.read_bytes()
        expected = f"{path}: was written by another version of qworker (schema 2, this one knows 1)"
        assert expected == refusal(path)
        assert content == path.read_bytes()

    def test_tables_that_are_not_as_they_were_made(self, path: Path) -> None:
        content = sound_file(path).replace(b"visible_at INTEGER NOT NULL", b"visible_at INTEGER NOT NUL\xa0")
        path.write_bytes(content)
        assert str(path) in refusal(path)
        assert content == path.read_bytes()
        content = content.replace(b"visible_at INTEGER NOT NUL\xa0", b"visiple_at INTEGER NOT NULL")
        path.write_bytes(content)
        assert str(path) in refusal(path)
        content = content.replace(b"visiple_at INTEGER", b"visible_at integer")
        path.write_bytes(content)
        assert f"{path}: is corrupt: its tables are not as qworker made them" == refusal(path)

    def test_what_its_owner_has_added_is_none_of_our_business(self, path: Path) -> None:
        sound_file(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE VIEW mine AS SELECT count(*) FROM messages")
        assert 30 == asyncio.run(SqliteBroker(path).queue("jobs").count())

    def test_an_empty_file_beside_a_log(self, path: Path) -> None:
        log = path.with_name(f"{path.name}-wal")
        path.touch()
        log.write_bytes(b"what was logged")
        assert f"{path}: is cut short: it is empty, and its log jobs.db-wal is not" == refusal(path)
        assert (b"", b"what was logged") == contents(path)

    def test_an_empty_file_is_filled(self, path: Path) -> None:
        path.touch()
        sound_file(path)
        assert "ok" == integrity(path)

    def test_a_directory(self, tmp_path: Path) -> None:
        assert f"{tmp_path}: is a directory, not a database file" == refusal(tmp_path)

    def test_what_keeps_nothing(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path(os.devnull), Path("/dev/full")):
            assert f"{path}: is a device, a pipe or a socket, not a database file" == refusal(path)

    def test_a_missing_directory(self, tmp_path: Path) -> None:
        path = tmp_path / "missing/jobs.db"
        assert f"{path}: the directory {tmp_path / 'missing'} does not exist" == refusal(path)

    def test_no_right_to_make_the_file(self) -> None:
        path = Path("/proc/jobs.db")
        assert "/proc/jobs.db: unable to open database file" in refusal(path)

    def test_no_right_to_write_the_file(self) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "jobs.db"
            content = sound_file(path)
            with without_rights(path, 0o555):
                assert f"{path}: can't be opened: attempt to write a readonly database" == refusal(path)
            assert content == path.read_bytes()

    def test_no_right_to_see_the_file(self, path: Path) -> None:
        content = sound_file(path)
        with without_rights(path, 0o000):
            assert f"{path}: Permission denied" == refusal(path)
        assert content == path.read_bytes()

    def test_a_network_file_system(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        mounts = path.with_name("mounts")
        mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/home {path.parent} nfs4 rw 0 0\n")
        monkeypatch.setattr(sqlite_file, "_MOUNTS", mounts)
        assert f"{path}: is on a network file system (nfs4)" in refusal(path)
        assert not path.exists()

    def test_an_old_sqlite(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
        monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
        assert "SQLite 3.34.1 is too old: qworker needs 3.35.0 or newer" == refusal(path)
        assert not path.exists()

    def test_sqlite_without_strict_tables(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
        sound_file(path)
        with closing(sqlite3.connect(path)) as connection:
            [[sql]] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'messages'")
        assert "STRICT" not in sql

    @pytest.mark.parametrize(
        ("mounts", "kind"),
        [
            ("/dev/vda / ext4 rw 0 0", None),
            ("//s/x /data cifs rw 0 0\n/dev/vda / ext4 rw 0 0", "cifs"),
            ("s:/x /data nfs rw 0 0\n/dev/vdb /data/my\\040jobs ext4 rw 0 0", None),
            ("/dev/vdb /data ext4 rw 0 0\nsshfs /data/my\\040jobs fuse.sshfs rw 0 0", "fuse.sshfs"),
            ("/dev/vdb /data ext4 rw 0 0\nC:\\134 /data 9p rw 0 0", "9p"),
            ("s:/x /dat nfs rw 0 0\n/dev/vda / ext4 rw 0 0", None),
        ],
    )
    def test_the_nearest_mount_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str, kind: str | None
    ) -> None:
        table = tmp_path / "mounts"
        table.write_text(mounts)
        monkeypatch.setattr(sqlite_file, "_MOUNTS", table)
        assert kind == sqlite_file.network_file_system(Path("/data/my jobs/q.db"))

    def test_without_a_mount_table_all_is_local(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_file, "_MOUNTS", tmp_path / "none")
        assert sqlite_file.network_file_system(tmp_path) is None


class TestFullDisk:
    async def test_nothing_is_half_done_and_it_recovers(
        self, broker: SqliteBroker, queue: SqliteQueue, path: Path
    ) -> None:
        await queue.put("before")
        [(pages,)] = await run_sql(broker, "PRAGMA page_count")
        await run_sql(broker, f"PRAGMA max_page_count = {pages}")
        with holding_the_lock(path):
            puts = [asyncio.create_task(queue.put("x" * 3000)) for _ in range(10)]
            await asyncio.sleep(0.05)
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BrokerFull)]
        assert f"{broker.label}: database or disk is full" == str(failed[0])
        assert 11 - len(failed) == await queue.count()
        await run_sql(broker, "PRAGMA max_page_count = 1000000")
        await queue.put("x" * 3000)
        assert 12 - len(failed) == await queue.count()
        await broker.aclose()
        assert "ok" == integrity(path)


class TestDamage:
    """Found while the file is in use: one of many megabytes is not checked in full when it is opened."""

    def test_a_damaged_file_is_left_alone_until_another_is_in_its_place(self, path: Path) -> None:
        sound = large_file(path)
        damaged = rubbish_in(path, "messages_due")
        queue = SqliteBroker(path).queue("jobs")

        async def use() -> None:
            for call in (queue.put("x"), queue.get(visibility=60), queue.put("y"), queue.count()):
                with pytest.raises(BrokerUnusable, match="database disk image is malformed"):
                    await call

        asyncio.run(use())
        assert damaged == path.read_bytes()
        assert [] == [file for file in open_files() if file.is_relative_to(path.parent)]
        path.rename(path.with_name("damaged.db"))
        path.write_bytes(sound)
        assert "151" == asyncio.run(queue.put("x"))
        assert "ok" == integrity(path)

    async def test_what_passes_is_tried_again(self, broker: SqliteBroker, queue: SqliteQueue) -> None:
        await queue.put("before")
        broker._writer._connection = cast(
            sqlite3.Connection, _Failing(broker._writer._connection, "BEGIN IMMEDIATE", sqlite3.SQLITE_CANTOPEN)
        )
        with pytest.raises(BrokerUnusable):
            await queue.put("x")
        await queue.put("after")


class TestOddRows:
    async def test_one_hinders_no_other(self, broker: SqliteBroker, queue: SqliteQueue) -> None:
        await queue.put("before")
        await queue.put("x")
        await queue.put("after é")
        await run_sql(broker, "UPDATE messages SET body = CAST(? AS TEXT) WHERE body = 'x'", b'"\xe7\xff\xc3\xa9"')
        assert ["before", '"\\xe7\\xffé"', "after é"] == [message.body for message in await queue.peek(5)]
        batch = await queue.get(5, visibility=60)
        assert ["before", '"\\xe7\\xffé"', "after é"] == [message.body for message in batch]
        await queue.delete(batch[1].id, batch[1].receipt)
        assert 2 == await queue.count()

    @pytest.mark.parametrize(("inserted_at", "year"), [(2**63 - 1, 9999), (-(2**63), 1970)])
    async def test_no_moment_hinders_others(
        self, broker: SqliteBroker, queue: SqliteQueue, inserted_at: int, year: int
    ) -> None:
        await queue.put("x")
        await queue.put("y")
        await run_sql(broker, "UPDATE messages SET inserted_at = ?, expires_at = ? WHERE seq = 1", inserted_at, 2**62)
        first, second = await queue.get(5, visibility=60)
        assert ("x", year, 9999) == (first.body, first.inserted_at.year, first.expires_at and first.expires_at.year)
        assert "y" == second.body


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            (sqlite3.SQLITE_BUSY, BrokerBusy),
            (sqlite3.SQLITE_BUSY_SNAPSHOT, BrokerBusy),
            (sqlite3.SQLITE_FULL, BrokerFull),
            (sqlite3.SQLITE_CORRUPT, BrokerUnusable),
            (sqlite3.SQLITE_READONLY_DBMOVED, BrokerUnusable),
            (sqlite3.SQLITE_TOOBIG, BrokerRefused),
        ],
    )
    def test_translation(self, code: int, kind: type[BrokerError]) -> None:
        error = sqlite3.OperationalError("what SQLite says")
        error.sqlite_errorcode = code
        translated = sqlite_file.translate(error, "sqlite:///x.db")
        assert (kind, "sqlite:///x.db: what SQLite says") == (type(translated), str(translated))

    @pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE])
    def test_a_file_that_can_not_grow_refuses_for_now(self, code: int) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        translated = sqlite_file.translate(error, "sqlite:///x.db", committing=True)
        expected = "sqlite:///x.db: disk I/O error (the disk may be full, or a quota used up)"
        assert (BrokerFull, expected) == (type(translated), str(translated))

    @pytest.mark.parametrize(("committing", "kind"), [(False, BrokerUnavailable), (True, AnswerLost)])
    def test_an_input_or_output_error_leaves_things_open_at_a_commit_only(
        self, *, committing: bool, kind: type[BrokerError]
    ) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"
        translated = sqlite_file.translate(error, "sqlite:///x.db", committing=committing)
        assert "sqlite:///x.db: disk I/O error (SQLITE_IOERR_FSYNC)" == str(translated)
        assert kind is type(translated)

    @pytest.mark.parametrize(("at", "kind"), [("BEGIN IMMEDIATE", BrokerUnavailable), ("COMMIT", AnswerLost)])
    async def test_a_commit_is_known_as_such(
        self, broker: SqliteBroker, queue: SqliteQueue, at: str, kind: type[BrokerError]
    ) -> None:
        await queue.put("before")
        broker._writer._connection = cast(sqlite3.Connection, _Failing(broker._writer._connection, at))
        with pytest.raises(kind):
            await queue.put("x")
        await queue.put("after")
        assert ["before", "after"] == [message.body for message in await queue.peek(5)]

    async def test_the_thread_survives_what_nobody_foresaw(self, broker: SqliteBroker, queue: SqliteQueue) -> None:
        def fail(_: Session) -> list[Message]:
            raise RuntimeError("unforeseen")

        with pytest.raises(BrokerRefused, match="unforeseen"):
            await broker.writer().submit(Mode.CHANGE, fail)
        await queue.put("x")


class _Failing:
    """A connection on which one statement fails; it is closed as it should be."""

    def __init__(self, real: sqlite3.Connection | None, at: str, code: int = sqlite3.SQLITE_IOERR_FSYNC) -> None:
        assert real is not None
        self._real, self._at, self._code = real, at, code

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == self._at:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = self._code, "SQLITE_…"
            raise error
        return self._real.execute(sql, *values)

    def close(self) -> None:
        self._real.close()


@contextmanager
def holding_the_lock(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def without_rights(path: Path, mode: int) -> Iterator[None]:
    """Take the rights to a file and its directory, root's too: by being nobody for a while."""
    user, before = os.geteuid(), path.parent.stat().st_mode
    path.chmod(mode & 0o444)
    path.parent.chmod(mode)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.parent.chmod(before)


def sound_file(path: Path) -> bytes:
    """Make a file with a few pages in each of its tables and indexes."""

    async def fill() -> None:
        broker = SqliteBroker(path)
        await broker.create_queue("jobs")
        for n in range(30):
            await broker.queue("jobs").put("x" * 1000, ttl=1000 + n)
        await broker.aclose()

    asyncio.run(fill())
    return path.read_bytes()


def large_file(path: Path) -> bytes:
    """Make a file that is too large to be checked in full at each start."""

    async def fill() -> None:
        broker = SqliteBroker(path)
        await broker.create_queue("jobs")
        await asyncio.gather(*(broker.queue("jobs").put("x" * 60_000) for _ in range(150)))
        await broker.aclose()

    asyncio.run(fill())
    content = path.read_bytes()
    assert len(content) > sqlite_file._CHECKED_BYTES
    return content


def rubbish_in(path: Path, table: str) -> bytes:
    """Overwrite the first page of a table or an index."""
    with closing(sqlite3.connect(path)) as connection:
        [[page]] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xaa" * 4096
    path.write_bytes(content)
    return bytes(content)


def open_files() -> list[Path]:
    return [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]


def run_script(script: str, path: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "" == done.stderr
    return done.stdout.splitlines()


_CONSUMER = """
import asyncio, sys
from qworker.brokers.sqlite.broker import SqliteBroker

async def main():
    queue = SqliteBroker(sys.argv[1]).queue("jobs")
    while messages := await queue.get(5, visibility=600):
        print(*(message.body for message in messages), flush=True)
        await asyncio.sleep(0.001)

asyncio.run(main())
"""

_FORK_IN_A_SIGNAL = """
import asyncio, gc, os, signal, sqlite3, sys
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.brokers.sqlite.operation import Mode

def fork(*_):
    if (child := os.fork()) == 0:
        signal.alarm(30)
        code = 0
        try:
            ACT
        except SystemExit:
            pass
        except BaseException as error:
            code = type(error).__name__
        print("child:", code, flush=True)
        os._exit(0)  # nothing of the parent's operation is to run on in here
    os.waitpid(child, 0)

def work(session):
    id = session.put("jobs", "first", 0, None)
    os.kill(os.getpid(), signal.SIGUSR1)
    session.put("jobs", "second", 0, None)

signal.signal(signal.SIGUSR1, fork)
broker = SqliteBroker(sys.argv[1])
queue = broker.queue("jobs")
asyncio.run(broker.create_queue("jobs"))
broker.writer_now().run(Mode.KEEP, work)
file = sqlite3.connect(sys.argv[1])
print('parent:', asyncio.run(queue.count()), *file.execute("pragma integrity_check").fetchone())
file.close()
"""

_FORK = """
import asyncio, gc, os, sys
from qworker.brokers.sqlite.broker import SqliteBroker

broker = SqliteBroker(sys.argv[1])
queue = broker.queue("jobs")
asyncio.run(broker.create_queue("jobs"))
asyncio.run(queue.put("parent"))
inode = os.stat(sys.argv[1]).st_ino

def is_open(descriptor):
    try:
        return os.fstat(descriptor).st_ino == inode
    except OSError:
        return False

assert any(map(is_open, range(64)))
child = os.fork()
if child == 0:
    assert not any(map(is_open, range(64)))
    asyncio.run(queue.put("child"))
    del broker, queue
    gc.collect()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
asyncio.run(queue.put("parent"))

async def look():
    bodies = sorted(message.body for message in await queue.peek(32))
    print(await queue.count(), bodies)
    await broker.aclose()

asyncio.run(look())
import sqlite3
connection = sqlite3.connect(sys.argv[1])
print(*connection.execute("PRAGMA integrity_check").fetchone())
connection.close()
"""

_FORKS_UNDER_LOAD = """
import asyncio, os, sqlite3, sys
from qworker.brokers.sqlite.broker import SqliteBroker

broker = SqliteBroker(sys.argv[1])
queue = broker.queue("jobs")

async def put(count):
    for _ in range(count):
        await queue.put("x")

async def fork_now_and_then():
    for _ in range(10):
        await asyncio.sleep(0.002)
        if (child := os.fork()) == 0:
            os.set_blocking(1, True)
            code = 1
            try:
                asyncio.set_event_loop(None)
                asyncio._set_running_loop(None)
                asyncio.run(put(100))
                code = 0
            finally:
                os._exit(code)
        children.append(child)

async def main():
    await broker.create_queue("jobs")
    await asyncio.gather(fork_now_and_then(), *(put(100) for _ in range(10)))
    for child in children:
        pid, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0, status
    print(await queue.count())
    await broker.aclose()

children = []
asyncio.run(main())
connection = sqlite3.connect(sys.argv[1])
print(*connection.execute("PRAGMA integrity_check").fetchone())
connection.close()
"""

_FORK_MEMORY = """
import asyncio, os, sys
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.errors import BrokerUnusable

broker = SqliteBroker(None)
queue = broker.queue("jobs")
asyncio.run(broker.create_queue("jobs"))
asyncio.run(queue.put("x"))
child = os.fork()
if child == 0:
    try:
        asyncio.run(queue.count())
    except BrokerUnusable as error:
        print(error)
    sys.exit()
os.waitpid(child, 0)
print("parent", asyncio.run(queue.count()))
"""
