"""Whatever comes to the port, it holds so many connections, each for so long, and probes are answered."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qworker.observe.health import door
from qworker.observe.health.server import listen, serving
from waiting import until

LIVE = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSED = "the health port closed a connection: it takes 64 at once, each with one request in 5 s"


class Well:
    """A target that is well, with long metrics."""

    def live(self) -> str | None:
        return None

    def ready(self) -> str | None:
        raise ValueError("its own bug")

    def metrics(self, accept: str) -> tuple[bytes, str] | None:
        return b"x" * (16 << 20), "text/plain"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listener = listen(0)
    async with serving(Well(), listener):
        yield listener.getsockname()[1]


async def connect(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return connection


async def send(port: int, data: bytes) -> bytes:
    """Return all that comes back until the port closes the connection."""
    loop, got = asyncio.get_running_loop(), b""
    with await connect(port) as connection:
        try:
            await loop.sock_sendall(connection, data)
            while some := await asyncio.wait_for(loop.sock_recv(connection, 65_536), 30):
                got += some
        except ConnectionError:
            pass
    return got


async def is_closed(connection: socket.socket) -> bool:
    try:
        return not await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 1), 30)
    except ConnectionError:
        return True


@pytest.mark.parametrize("half", [b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: ", LIVE[:-2]])
async def test_a_crowd_that_asks_nothing_hinders_no_probe(
    port: int, half: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest make room; one line tells of all."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 — the number counts
    with ExitStack() as crowd:
        for number in range(300):
            connection = crowd.enter_context(await connect(port))
            await asyncio.get_running_loop().sock_sendall(connection, half)
            if number % 50 == 0:
                assert (await send(port, LIVE)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert (await send(port, LIVE)).startswith(b"HTTP/1.1 200 OK\r\n")
        theirs = len(os.listdir("/proc/self/fd")) - before - 300  # noqa: PTH208 — the same
        assert theirs <= door.MOST
        assert [CLOSED] == caplog.messages


async def test_one_that_asks_nothing_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "ASK_WITHIN", 0.05)
    with await connect(port) as silent, await connect(port) as slow:
        await asyncio.get_running_loop().sock_sendall(slow, LIVE[:10])
        assert await is_closed(silent)
        assert await is_closed(slow)


async def test_one_that_does_not_take_its_answer_is_closed(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door, "ANSWER_WITHIN", 0.05)
    with await connect(port) as slow:
        await asyncio.get_running_loop().sock_sendall(slow, LIVE.replace(b"live", b"metrics"))
        await until(lambda: caplog.messages == [CLOSED])


async def test_a_second_request_is_not_answered(port: int) -> None:
    assert 1 == (await send(port, LIVE * 2000)).count(b"HTTP/1.1 ")
    answer = await send(port, LIVE)
    assert b"Connection: close" in answer
    assert b"Server: qworker\r\n" in answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 67108864\r\n\r\n" + b"x" * 100_000, b"405"),
        (b"POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 100_000, b"400"),
        (b"GET /live HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b"400"),
        (LIVE[:-2] + b"".join(b"X%d: a\r\n" % number for number in range(10_000)) + b"\r\n", b"400"),
        (b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
    ],
    ids=["body", "two lengths", "path", "header", "headers", "proxy", "dots", "TLS"],
)
async def test_odd_requests_are_refused_in_few_words(
    port: int, request_: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await send(port, request_)
    assert answer == b"" or answer.split()[1] == status  # the other end may be gone before it has read the answer
    assert len(answer) < 300
    assert b"aiohttp" not in answer
    assert (await send(port, LIVE)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert [] == caplog.messages


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(min_size=1, max_size=300)
    | st.lists(
        st.sampled_from(
            [b"GET ", b"POST ", b"/live", b" HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"Upgrade: x\r\n", b"\n"]
        ),
        max_size=8,
    ).map(b"".join)
)
def test_whatever_is_sent_is_answered_or_closed_without_a_line(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        listener = listen(0)
        async with serving(Well(), listener):
            port = listener.getsockname()[1]
            with await connect(port) as odd:
                await asyncio.get_running_loop().sock_sendall(odd, data)
                assert (await send(port, LIVE)).startswith(b"HTTP/1.1 200 OK\r\n")

    caplog.clear()
    asyncio.run(scenario())
    assert [] == [message for message in caplog.messages if "Using selector" not in message]


async def test_a_bug_of_ours_is_told_seldom(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        assert (await send(port, LIVE.replace(b"live", b"ready"))).startswith(b"HTTP/1.1 500 ")
    assert ["the health port failed to answer: ValueError"] == caplog.messages


async def test_want_of_descriptors_costs_no_probe_and_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A descriptor is kept for that moment; another is had once there are any again."""
    loop, refusals = asyncio.get_running_loop(), 3
    accept = loop.sock_accept

    async def refused(listener: socket.socket) -> Any:
        nonlocal refusals
        if refusals:
            await asyncio.get_running_loop().run_in_executor(None, wait_for_one, listener)
            refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(listener)

    def wait_for_one(listener: socket.socket) -> None:
        import select

        select.select([listener], [], [], 30)

    monkeypatch.setattr(loop, "sock_accept", refused)
    listener = listen(0)
    async with serving(Well(), listener):
        for _ in range(4):
            assert (await send(listener.getsockname()[1], LIVE)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert 0 == refusals
    assert "the health port can't take a connection: Too many open files" == caplog.messages[0]
    assert 1 == len(caplog.messages)


async def test_without_a_descriptor_kept_it_waits_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It doesn't spin: a thousand tries a second were a thousand lines once."""
    monkeypatch.setattr(door.Door, "_keep_spare", lambda self: None)
    monkeypatch.setattr(door, "_REST", 0.01)
    loop, tries = asyncio.get_running_loop(), 0
    accept = loop.sock_accept

    async def refused(listener: socket.socket) -> Any:
        nonlocal tries
        tries += 1
        if tries < 20:
            raise OSError(errno.ENFILE, "Too many open files in system")
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", refused)
    listener = listen(0)
    async with serving(Well(), listener):
        assert (await send(listener.getsockname()[1], LIVE)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert ["the health port can't take a connection: Too many open files in system"] == caplog.messages
