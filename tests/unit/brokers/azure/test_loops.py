"""An event loop that is gone leaves nothing of the Azure broker: no complaint, no file descriptor, no thread."""

import asyncio
import gc
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
import uvloop

from azure_service import KEY, PUT_DONE, Service, make_certificate, serving
from azurite_server import connection_string
from qworker.brokers.azure.broker import AzureBroker

Put = Callable[[], Coroutine[Any, Any, object]]


# Ways to run a coroutine in a loop of its own


def by_run(put: Put) -> None:
    asyncio.run(put())


def by_anyio(put: Put) -> None:
    anyio.run(put)


def by_uvloop(put: Put) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(put())


def twice(put: Put) -> None:
    with asyncio.Runner() as runner:
        runner.run(put())
        runner.run(put())


def closed(put: Put) -> None:
    """As before asyncio.run: nobody tells its generators of the end."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(put())
    loop.close()


def closed_uvloop(put: Put) -> None:
    loop = uvloop.new_event_loop()
    loop.run_until_complete(put())
    loop.close()


def closed_in_between(put: Put) -> None:
    """A request is under way when its loop is closed."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(put())
    call = loop.create_task(put())
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    call.cancel()
    loop.run_until_complete(asyncio.gather(call, return_exceptions=True))
    loop.close()


def after_the_end(put: Put) -> None:
    """A generator of the program's own puts when its loop ends, and the broker's connections are closed already."""

    async def last() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            await put()

    async def main() -> None:
        await put()
        await anext(generator)

    generator = last()
    asyncio.run(main())


def left_open(put: Put) -> None:
    """Nobody closes it, which asyncio itself complains of."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(put())


WAYS: Final = (by_run, by_anyio, by_uvloop, twice, closed, closed_in_between, after_the_end)
SLOPPY: Final = (left_open, closed_uvloop)
"""What asyncio or uvloop itself complains of, with or without a connection."""


def in_thread(way: Callable[[Put], None], put: Put) -> None:
    thread = threading.Thread(target=way, args=(put,))
    thread.start()
    thread.join()


class Count:
    """What this process has open, and what was complained of."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        gc.collect()
        self.before = self._count()

    def _count(self) -> tuple[int, int]:
        return len([*Path("/proc/self/fd").iterdir()]), threading.active_count()

    def more(self) -> tuple[int, int]:
        gc.collect()
        now = self._count()
        return now[0] - self.before[0], now[1] - self.before[1]

    def complaints(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(params=["http", "https"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Return the connection string of a service, which runs in this test's loop."""
    certificate = None
    if request.param == "https":
        certificate = make_certificate(tmp_path / "certificate.pem")
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", _trusting(certificate))
    async with serving(certificate) as service:
        service.answer = PUT_DONE
        yield connection_string(service.port, KEY).replace("http", request.param)


def _trusting(certificate: Path) -> object:
    import ssl

    return ssl.create_default_context(cafile=str(certificate))


def _seed() -> int:
    return int(os.environ.get("QWORKER_TEST_SEED", random.randrange(10**6)))


async def without_context(function: Callable[[int], None], count: int) -> None:
    """Call it in a thread, where anyio would read from this context that a loop runs already."""
    await asyncio.get_running_loop().run_in_executor(None, function, count)


async def test_loops_leave_nothing(place: str, caplog: pytest.LogCaptureFixture) -> None:
    """Two hundred loops, of all sorts, here and in threads."""
    seed = _seed()
    dice = random.Random(seed)
    broker = AzureBroker.from_connection_string(place)
    # TLS says good-bye in several turns of the loop; one that is closed before makes asyncio complain of any library.
    ways = [way for way in WAYS if way is not closed_in_between or "https" not in place]

    async def put() -> None:
        await broker.queue("mail").put("{}")

    def run_all(count: int) -> None:
        for _ in range(count):
            way = dice.choice(ways)
            in_thread(way, put) if dice.random() < 0.3 else way(put)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        await without_context(run_all, 20)
        count = Count(caplog)
        await without_context(run_all, 200)
        more = count.more()
    assert [] == [str(each.message) for each in warned], f"QWORKER_TEST_SEED={seed}"
    assert [] == count.complaints(), f"QWORKER_TEST_SEED={seed}"
    assert more[0] <= 2, f"at most the last loop's connection, on both ends: QWORKER_TEST_SEED={seed}"
    assert more[1] <= 0, f"QWORKER_TEST_SEED={seed}"
    assert len(broker._connections) <= 1


@pytest.mark.parametrize("way", SLOPPY)
@pytest.mark.parametrize("threads", [False, True])
async def test_a_loop_that_is_not_ended_well_does_not_pile_up(
    place: str, caplog: pytest.LogCaptureFixture, way: Callable[[Put], None], *, threads: bool
) -> None:
    broker = AzureBroker.from_connection_string(place)

    async def put() -> None:
        await broker.queue("mail").put("{}")

    def run_all(count: int) -> None:
        for _ in range(count):
            in_thread(way, put) if threads else way(put)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own, of the loop and of what is in it
        await asyncio.to_thread(run_all, 5)
        count = Count(caplog)
        await asyncio.to_thread(run_all, 50)
        more = count.more()
    assert more[0] <= 2
    assert more[1] <= 0
    assert [] == count.complaints()
    assert len(broker._connections) <= 1


async def test_a_loop_that_rests_keeps_its_connections(service: Service) -> None:
    """Another thread's loops come and go meanwhile."""

    def work() -> None:
        with asyncio.Runner() as runner:
            runner.run(put())
            other = threading.Thread(target=by_run, args=(put,))
            other.start()
            other.join()
            runner.run(put())

    async def put() -> None:
        await broker.queue("mail").put("{}")

    broker = AzureBroker.from_connection_string(connection_string(service.port, KEY))
    await asyncio.to_thread(work)
    assert [1, 2, 1] == [request.connection for request in service.requests]


async def test_a_loop_goes_on_though_its_connections_were_taken_for_left(service: Service) -> None:
    """Two loops of one thread take turns: each opens what it needs again."""

    def work() -> None:
        first, second = asyncio.Runner(), asyncio.Runner()
        with first, second:
            for runner in (first, second, first, second, first):
                runner.run(put())

    async def put() -> None:
        await broker.queue("mail").put("{}")

    broker = AzureBroker.from_connection_string(connection_string(service.port, KEY))
    await asyncio.to_thread(work)
    assert 5 == len(service.requests)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as service:
        service.answer = PUT_DONE
        yield service


@pytest.mark.parametrize("end", ["loop.close()", "", "del loop", "raise SystemExit"])
async def test_a_script_ends_in_silence(service: Service, end: str) -> None:
    script = f"""
        import asyncio
        from qworker.brokers.azure.broker import AzureBroker
        broker = AzureBroker.from_connection_string({connection_string(service.port, KEY)!r})
        loop = asyncio.new_event_loop()
        loop.run_until_complete(broker.queue("mail").put("x"))
        {end}
    """
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False
    )
    assert (0, b"") == (done.returncode, done.stderr)
