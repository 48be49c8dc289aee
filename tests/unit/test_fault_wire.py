"""What the fault-injecting proxy does on the wire, in front of a service that answers what a test says."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fault_actions import (
    Action,
    Answer,
    BlackHole,
    ChangeXML,
    CloseAfterAnswer,
    CutBody,
    Delay,
    DropBefore,
    Duplicate,
    Trickle,
)
from fault_proxy import FaultProxy
from fault_rules import Rule
from waiting import wait_until

GET = b"GET /devstoreaccount1/mail/messages HTTP/1.1\r\nHost: h\r\n\r\n"
PUT = b"POST /devstoreaccount1/mail/messages HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n<a/>"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
CLOSING = PLAIN.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\n\r\n"
ONE_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"


@dataclass
class Service:
    """Answers each request with the next of its answers, and then with the last one again."""

    port: int = 0
    answers: list[bytes] = field(default_factory=lambda: [PLAIN])
    asked: list[tuple[float, bytes]] = field(default_factory=list)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        while request := await reader.read(65536):
            self.asked.append((time.monotonic(), request))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            writer.write(answer)
            if b"Connection: close" in answer:
                break
        writer.close()

    def hang_up(self) -> None:
        for connection in self.connections:
            connection.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    async with server:
        yield service


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(service.port)
    proxy.start()
    yield proxy
    await asyncio.to_thread(proxy.close)


async def ask(proxy: FaultProxy, request: bytes, *, until: int | None = None) -> bytes:
    """Send on a new connection, and return what comes: so many bytes, or everything until it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(request)
        return await (reader.read() if until is None else reader.readexactly(until))
    finally:
        writer.close()


@pytest.mark.parametrize(("sent", "passed"), [(PLAIN, PLAIN), (CHUNKED, ONE_CHUNK), (EMPTY, EMPTY)])
async def test_an_answer_passes_unchanged(proxy: FaultProxy, service: Service, sent: bytes, passed: bytes) -> None:
    service.answers = [sent]
    assert passed == await ask(proxy, GET, until=len(passed))
    assert [GET] == [request for _, request in service.asked]
    assert [] == proxy.errors


async def test_requests_sent_at_once_are_answered_in_turn(proxy: FaultProxy, service: Service) -> None:
    service.answers = [PLAIN, CHUNKED, EMPTY]
    expected = PLAIN + ONE_CHUNK + EMPTY
    assert expected == await ask(proxy, GET + PUT + GET, until=len(expected))
    assert [GET, PUT, GET] == [request for _, request in service.asked]
    assert {"get": 2, "put": 1} == proxy.requests


@pytest.mark.parametrize("request_head", [GET, GET.replace(b"Host: h", b"Connection: close")])
async def test_a_connection_ends_where_one_side_says_so(
    proxy: FaultProxy, service: Service, request_head: bytes
) -> None:
    service.answers = [CLOSING if request_head == GET else PLAIN]
    assert service.answers[0] == await ask(proxy, request_head)


async def test_a_service_that_ends_the_connection_is_asked_on_a_new_one(proxy: FaultProxy, service: Service) -> None:
    service.answers = [CLOSING]
    proxy.add(Rule(Duplicate()))
    assert CLOSING == await ask(proxy, PUT)
    assert 2 == len(service.asked) == len(service.connections)


async def test_a_connection_that_the_service_may_be_about_to_end_is_not_used_again(
    proxy: FaultProxy, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = PLAIN + PLAIN
    assert expected == await ask(proxy, GET + GET, until=len(expected))
    assert 1 == len(service.connections)
    monkeypatch.setattr("fault_exchange._REUSED_FOR_SECONDS", 0)
    assert expected == await ask(proxy, GET + GET, until=len(expected))
    assert 3 == len(service.connections)


async def test_what_follows_into_a_black_hole_is_lost(proxy: FaultProxy, service: Service) -> None:
    rule = proxy.add(Rule(BlackHole(), nth=1))
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(PUT + GET)
    await asyncio.to_thread(wait_until, lambda: rule.applied, what="the fault")
    writer.close()
    await asyncio.to_thread(wait_until, lambda: proxy.open_connections == 0, what="its end")
    assert ({"put": 1}, []) == (proxy.requests, service.asked)


async def test_a_connection_with_a_request_under_way_is_not_idle(proxy: FaultProxy) -> None:
    rule = proxy.add(Rule(BlackHole()))
    held = asyncio.create_task(ask(proxy, GET))
    await asyncio.to_thread(wait_until, lambda: rule.applied, what="the fault")
    proxy.idle_limit = 0
    assert b"" == await ask(proxy, b"")
    await asyncio.to_thread(wait_until, lambda: proxy.open_connections == 1, what="the end of the idle one")
    assert (1, False) == (proxy.hung_up, held.done())
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await held


async def test_a_request_cut_off_by_a_refusal_is_told(proxy: FaultProxy, service: Service) -> None:
    told: list[dict[str, Any]] = []
    proxy.note = told.append
    service.answers = [b""]
    held = asyncio.create_task(ask(proxy, PUT))
    await asyncio.to_thread(wait_until, lambda: service.asked, what="the request")
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await held
    with pytest.raises(ConnectionRefusedError):
        await ask(proxy, PUT)
    assert [("Refuse", "put", "mail", None)] == [
        (line["action"], line["operation"], line["queue"], line["message"]) for line in told
    ]


@pytest.mark.parametrize(
    ("sent", "expected"), [(PLAIN, PLAIN[:-5]), (CHUNKED, ONE_CHUNK.partition(b"a\r\n")[0] + b"a\r\n0123456")]
)
async def test_a_body_is_cut_at_half(proxy: FaultProxy, service: Service, sent: bytes, expected: bytes) -> None:
    service.answers = [sent]
    proxy.add(Rule(CutBody("FIN")))
    assert expected == await ask(proxy, GET)
    assert (200, None) == (proxy.log[0].upstream, proxy.log[0].status)


@pytest.mark.parametrize("action", [CutBody("RST"), DropBefore("RST")])
async def test_a_reset_is_a_reset(proxy: FaultProxy, action: Action) -> None:
    proxy.add(Rule(action))
    with pytest.raises(ConnectionResetError):
        await ask(proxy, GET)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (PLAIN, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n987"),
        (CHUNKED, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n987\r\n0\r\n\r\n"),
    ],
)
async def test_a_changed_body_is_framed_anew(proxy: FaultProxy, service: Service, sent: bytes, expected: bytes) -> None:
    service.answers = [sent]
    proxy.add(Rule(ChangeXML(lambda body: body[:-4:-1])))
    assert expected == await ask(proxy, GET, until=len(expected))


async def test_a_connection_closed_after_the_answer_was_not_announced(proxy: FaultProxy) -> None:
    proxy.add(Rule(CloseAfterAnswer()))
    assert PLAIN == await ask(proxy, GET)


async def test_a_gateways_error_has_no_code(proxy: FaultProxy) -> None:
    proxy.add(Rule(Answer(502)))
    assert b"error-code" not in await ask(proxy, GET.replace(b"Host: h", b"Connection: close"))
    assert [502] == [seen.status for seen in proxy.log]


async def test_a_trickle_takes_its_time(proxy: FaultProxy, service: Service) -> None:
    service.answers = [PLAIN.replace(b"10", b"2000") + b"x" * 1990]
    proxy.add(Rule(Trickle(10_000)))
    began = time.monotonic()
    assert service.answers[0] == await ask(proxy, GET, until=len(service.answers[0]))
    assert time.monotonic() - began >= 0.15  # the last of 500-byte steps isn't waited for
    assert 200 == proxy.log[0].status


@pytest.mark.parametrize("before", [True, False])
async def test_a_delay_holds_the_request_or_the_answer(proxy: FaultProxy, service: Service, *, before: bool) -> None:
    proxy.add(Rule(Delay(0.3, before=before)))
    sent_at = time.monotonic()
    await ask(proxy, GET, until=len(PLAIN))
    answered_at = time.monotonic()
    [(asked_at, _)] = service.asked
    assert 0.3 <= (asked_at - sent_at if before else answered_at - asked_at)


async def test_a_client_that_goes_away_in_the_middle_harms_nobody(proxy: FaultProxy, service: Service) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(PUT[:-2])
    await asyncio.to_thread(wait_until, lambda: proxy.open_connections == 1, what="the connection")
    writer.close()
    await asyncio.to_thread(wait_until, lambda: proxy.open_connections == 0, what="its end")
    assert PLAIN == await ask(proxy, GET, until=len(PLAIN))
    assert [GET] == [request for _, request in service.asked]
    assert ([], 2) == (proxy.errors, proxy.accepted)


async def test_a_service_that_is_away_is_told(proxy: FaultProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        proxy.upstream = nobody.getsockname()[1]
    with pytest.raises(ConnectionResetError):
        await ask(proxy, GET)
    await asyncio.to_thread(wait_until, lambda: proxy.errors, what="the error")
    assert [ConnectionRefusedError] == [type(error) for error in proxy.errors]


async def test_a_service_that_hangs_up_by_itself_is_told(proxy: FaultProxy, service: Service) -> None:
    service.answers = [b""]
    held = asyncio.create_task(ask(proxy, GET))
    await asyncio.to_thread(wait_until, lambda: service.asked, what="the request")
    service.hang_up()
    with pytest.raises(ConnectionResetError):
        await held
    await asyncio.to_thread(wait_until, lambda: proxy.errors, what="the error")
    assert [ConnectionResetError] == [type(error) for error in proxy.errors]


async def test_what_a_test_does_wrong_is_told(proxy: FaultProxy) -> None:
    proxy.add(Rule(ChangeXML(lambda _: bytes(-1))))
    assert b"" == await ask(proxy, GET)
    await asyncio.to_thread(wait_until, lambda: proxy.errors, what="the error")
    assert [ValueError] == [type(error) for error in proxy.errors]


async def test_what_is_under_way_at_the_end_is_ended(service: Service) -> None:
    other = FaultProxy(service.port)
    other.start()
    rule = other.add(Rule(Delay(3_600)))
    held = asyncio.create_task(ask(other, GET))
    await asyncio.to_thread(wait_until, lambda: rule.applied, what="the fault")
    other.close()
    with pytest.raises(ConnectionResetError):
        await held
    assert ([], []) == (service.asked, other.errors)
