"""Whatever a library raises, and whatever a server answers: one of qworker's errors, in one line, without a secret."""

import asyncio
import importlib
import logging
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain, product
from typing import Any, Final

import aiohttp
import azure.core.exceptions
import pytest
from aiohttp.client_reqrep import ConnectionKey
from azure.core.pipeline.transport import AioHttpTransport

from azure_service import CANARY, KEY, PUT_DONE, UPDATED, Answer, Service, message, messages, refusal, serving
from azurite_server import connection_string
from qworker.brokers.azure.broker import AzureBroker
from qworker.brokers.azure.transport import BareTransport
from qworker.brokers.base import Message
from qworker.errors import BrokerError, MessageTooLarge

Call = Callable[[AzureBroker], Awaitable[object]]
CALLS: Final[dict[str, Call]] = {
    "put": lambda broker: broker.queue("mail").put("{}"),
    "get": lambda broker: broker.queue("mail").get(32, visibility=60),
    "peek": lambda broker: broker.queue("mail").peek(32),
    "update": lambda broker: broker.queue("mail").update("id-1", "receipt-1", visibility=60),
    "delete": lambda broker: broker.queue("mail").delete("id-1", "receipt-1"),
    "clear": lambda broker: broker.queue("mail").clear(),
    "count": lambda broker: broker.queue("mail").count(),
    "create_queue": lambda broker: broker.create_queue("mail"),
    "delete_queue": lambda broker: broker.delete_queue("mail"),
    "list_queues": lambda broker: broker.list_queues("mail"),
    "examine": lambda broker: broker.examine(),
}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def check(error: BaseException) -> None:
    """See that an error is fit to be shown, with all that hangs on it."""
    assert isinstance(error, BrokerError | MessageTooLarge), repr(error)
    seen: BaseException | None = error
    while seen is not None:
        assert CANARY not in repr(seen)
        assert KEY not in repr(seen)
        assert "\n" not in str(seen)
        seen = seen.__cause__ or seen.__context__


# Errors


def kinds() -> Iterator[type[Exception]]:
    """Return all the classes of exceptions of the libraries that take part in a request."""
    places: tuple[Any, ...] = (azure.core.exceptions, aiohttp, ssl, importlib.import_module("msal.exceptions"), asyncio)
    named = chain.from_iterable(vars(place).values() for place in places)
    builtin = chain.from_iterable(each.__subclasses__() for each in (Exception, OSError, ValueError, ConnectionError))
    found = {each for each in chain(named, builtin) if isinstance(each, type) and issubclass(each, Exception)}
    libraries = {"aiohttp", "asyncio", "azure", "builtins", "msal", "socket", "ssl"}
    raised = {each for each in found if each.__module__.partition(".")[0] in libraries}
    raised -= {StopIteration, StopAsyncIteration}  # the language's own
    return iter(sorted(raised, key=lambda each: f"{each.__module__}.{each.__qualname__}"))


def made(kind: type[Exception]) -> Exception:
    """Return an exception of a class that may want anything, as badly filled as can be."""
    if issubclass(kind, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        place = ConnectionKey("storage.invalid", 443, True, True, None, None, None)
        return kind(place, OSError(1, "no way"))
    if issubclass(kind, azure.core.exceptions.ClientAuthenticationError):
        return kind("no credential")  # its first line is shown
    for arguments in ((CANARY,), (CANARY, CANARY), (1, CANARY), (CANARY, [ValueError(CANARY)]), ()):
        try:
            return kind(*arguments)
        except Exception:  # noqa: BLE001 — it wants something else
            pass
    error = kind.__new__(kind)
    error.args = (CANARY,)
    return error


def test_there_are_many_kinds() -> None:
    assert 80 < len([*kinds()])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_whatever_a_library_raises_is_translated(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(BareTransport, "send", fail)
    monkeypatch.setattr(AioHttpTransport, "send", fail)
    broker = AzureBroker.from_connection_string(connection_string(1, KEY))
    for kind in kinds():
        raised = made(kind)
        with pytest.raises(Exception) as caught:  # noqa: PT011 — which is looked at below
            await call(broker)
        check(caught.value)
    await broker.aclose()


# Answers

STATUSES: Final = (200, 201, 202, 204, 206, 300, 302, 307, 308, 304, 400, 401, 403, 404, 409, 412, 413, 418, 429)
MORE_STATUSES: Final = (500, 501, 502, 503, 504, 599, 999)
_LIST: Final = "<EnumerationResults><Queues>{}</Queues><NextMarker /></EnumerationResults>"
BODIES: Final[tuple[str | bytes, ...]] = (
    *(
        "",
        " ",
        "null",
        "{}",
        "[]",
        '"text"',
        "<",
        "<a",
        "<a/>",
        "<html><body>busy</body></html>",
        f"{CANARY}\n{CANARY}",
    ),
    *(
        b"\xff\xfe<\x00a\x00/\x00>\x00",
        b"\xef\xbb\xbf<a/>",
        b"\x00",
        b"\xff",
        b"\x1f\x8b\x08\x00garbage",
        b"<a>\xff</a>",
    ),
    *(messages(), messages(message("")), messages(message("x", expires="never")), messages("<QueueMessage/>")),
    messages(message("x").replace("<DequeueCount>3<", "<DequeueCount>many<")),
    messages("<QueueMessage><MessageId/><PopReceipt/></QueueMessage>", message(CANARY)),
    *(
        _LIST.format(""),
        _LIST.format("<Queue><Name>mail</Name></Queue>"),
        _LIST.format("<Queue/>"),
        "<EnumerationResults/>",
    ),
    *(f"<Error><Code>{CANARY[:3]}</Code></Error>", "<Error/>", "<Error><Code/></Error>", "<Error><Code>QueueNotFound"),
    f"<Error><Code>MessageNotFound</Code><Message>{CANARY}</Message></Error>",
    '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
)
HEADERS: Final[tuple[dict[str, str], ...]] = (
    {},
    *({"Content-Type": kind} for kind in ("application/json", "text/html", "text/xml; charset=utf-16", "a", "")),
    {"Content-Type": "application/xml; charset=no-such"},
    *({"Content-Encoding": how} for how in ("gzip", "deflate", "br", "no-such")),
    *({"x-ms-error-code": code} for code in ("QueueNotFound", "NoSuchCode", "")),
    *({"Retry-After": value} for value in ("1", "-1", "soon", "9" * 50, "٣")),
    {"x-ms-approximate-messages-count": "many"},
    {"x-ms-approximate-messages-count": "3"},
    {"x-ms-popreceipt": "r", "x-ms-time-next-visible": "never"},
    {"Date": "never"},
    {"Set-Cookie": f"a={CANARY}"},
)


def odd_answers(dice: random.Random) -> Iterator[Answer]:
    """Return each status with each body, and each with some headers and some end of the connection, by chance."""
    for status, body in product(STATUSES + MORE_STATUSES, BODIES):
        bodiless = status in {204, 304}
        headers = dict(dice.choice(HEADERS))
        if 300 <= status < 400:
            headers["Location"] = f"http://127.0.0.1:1/{CANARY}"
        if bodiless:
            headers["Content-Length"] = "0"
        yield Answer(status, b"" if bodiless else body, headers, dice.choice(("keep", "keep", "keep", "close")))
    yield Answer(200, "x" * 100, then="cut")
    yield Answer(500, "x" * 100, then="cut")
    yield Answer(200, "short", {"Content-Length": "-5"})
    yield Answer(200, "zz\r\n", {"Content-Length": "3", "Transfer-Encoding": "chunked"})


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_whatever_a_server_answers_is_translated(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    seed = int(os.environ.get("QWORKER_TEST_SEED", random.randrange(10**6)))
    async with serving() as service:
        broker = AzureBroker.from_connection_string(connection_string(service.port, KEY), call_timeout=5)
        for answer in odd_answers(random.Random(seed)):
            service.answer = answer
            service.requests.clear()
            told = f"QWORKER_TEST_SEED={seed} {answer}"
            try:
                await call(broker)
            except Exception as error:  # noqa: BLE001 — which is looked at
                check(error)
            assert len(service.requests) <= 1, f"nothing is sent twice, nor followed: {told}"
            said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            assert [] == said, told
        await broker.aclose()


async def test_the_answers_of_the_service_are_still_read(service: Service, broker: AzureBroker) -> None:
    queue = broker.queue("mail")
    service.answer = PUT_DONE
    assert "id-1" == await queue.put("{}")
    service.answer = Answer(200, messages(message("x")))
    [got] = await queue.get(visibility=60)
    assert isinstance(got, Message)
    service.answer = UPDATED
    assert "receipt-2" == await queue.update("id-1", "receipt-1", visibility=0)
    for answer, created in ((Answer(201), True), (refusal(409, "QueueAlreadyExists"), False)):
        service.answer = answer
        assert created is await broker.create_queue("mail")
    service.answer = Answer(200, "", {"x-ms-approximate-messages-count": "3"})
    assert 3 == await queue.count()
    service.answer = Answer(200, b"\xef\xbb\xbf" + _LIST.format("<Queue><Name>mail</Name></Queue>").encode())
    assert ["mail"] == await broker.list_queues()
    service.answer = Answer(204)
    await queue.clear()
    await broker.delete_queue("mail")


@pytest.fixture
async def service() -> Any:
    async with serving() as service:
        yield service


@pytest.fixture
async def broker(service: Service) -> Any:
    broker = AzureBroker.from_connection_string(connection_string(service.port, KEY), call_timeout=5)
    yield broker
    await broker.aclose()
