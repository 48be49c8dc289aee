"""The Azure broker against a service that answers whatever a test wants; tests/contract has it against Azurite."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, ClassVar, get_args

import aiohttp
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
)
from azure.identity import CredentialUnavailableError

from azure_service import CANARY, KEY, PUT_DONE, SAS, UPDATED, Answer, Service, message, messages, refusal, serving
from azurite_server import connection_string
from qworker.brokers.azure import errors as azure_errors
from qworker.brokers.azure.broker import AzureBroker, AzureQueue
from qworker.brokers.azure.errors import Request, translate
from qworker.brokers.base import Right, Urgency
from qworker.errors import (
    AccessDenied,
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    ConfigurationError,
    InvalidBrokerURL,
    InvalidQueueName,
    LeaseLost,
    MessageTooLarge,
    QueueBeingDeleted,
    QueueNotFound,
    QworkerError,
)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as service:
        yield service


@pytest.fixture
async def broker(service: Service) -> AsyncIterator[AzureBroker]:
    broker = AzureBroker.from_connection_string(connection_string(service.port, KEY), call_timeout=5)
    yield broker
    await broker.aclose()


@pytest.fixture
async def hasty(service: Service) -> AsyncIterator[AzureBroker]:
    """A broker that gives up at once."""
    broker = AzureBroker.from_connection_string(connection_string(service.port, KEY), call_timeout=0.2)
    yield broker
    await broker.aclose()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


Call = Callable[[AzureBroker], Awaitable[object]]
CALLS: dict[str, Call] = {
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
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


async def failure(call: Awaitable[object]) -> QworkerError:
    with pytest.raises(QworkerError) as caught:
        await call
    return caught.value


# What the service refuses

REFUSALS: list[tuple[int, str, str, type[QworkerError]]] = [
    (404, "MessageNotFound", "update", LeaseLost),
    (404, "MessageNotFound", "delete", LeaseLost),
    (400, "PopReceiptMismatch", "update", LeaseLost),
    (400, "PopReceiptMismatch", "delete", LeaseLost),
    (404, "QueueNotFound", "get", QueueNotFound),
    (409, "QueueBeingDeleted", "create_queue", QueueBeingDeleted),
    (409, "QueueDisabled", "put", QueueBeingDeleted),
    (409, "QueueAlreadyExists", "delete_queue", azure_errors.QueueExists),
    (400, "MessageTooLarge", "put", MessageTooLarge),
    (413, "RequestBodyTooLarge", "update", MessageTooLarge),
    (503, "ServerBusy", "put", BrokerBusy),
    (500, "InternalError", "put", AnswerLost),
    (500, "InternalError", "peek", BrokerBusy),
    (500, "OperationTimedOut", "delete", AnswerLost),
    (500, "OperationTimedOut", "count", BrokerBusy),
    (500, "OperationTimeout", "update", AnswerLost),
    (403, "AuthenticationFailed", "get", AccessDenied),
    (401, "InvalidAuthenticationInfo", "get", AccessDenied),
    (401, "NoAuthenticationInformation", "get", AccessDenied),
    (403, "AuthorizationFailure", "get", AccessDenied),
    (403, "AuthorizationPermissionMismatch", "get", AccessDenied),
    (403, "InsufficientAccountPermissions", "get", AccessDenied),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: f"{row[1]}-{row[2]}")
async def test_a_refusal_is_translated(
    service: Service, broker: AzureBroker, row: tuple[int, str, str, type[QworkerError]]
) -> None:
    status, code, call, expected = row
    service.answer = refusal(status, code)
    assert expected is type(await failure(CALLS[call](broker)))
    assert 1 == len(service.requests)


def test_every_code_in_the_table_is_tested() -> None:
    assert {code for _, code, _, _ in REFUSALS} == set(azure_errors._BY_CODE)


@pytest.mark.parametrize(
    "row",
    [
        (401, "get", AccessDenied),
        (403, "put", AccessDenied),
        (429, "put", BrokerBusy),
        (500, "put", AnswerLost),
        (502, "put", AnswerLost),
        (502, "list_queues", BrokerBusy),
        (503, "put", BrokerBusy),
        (504, "get", AnswerLost),
        (302, "get", BrokerRefused),
        (400, "get", BrokerRefused),
        (404, "get", BrokerRefused),
        (409, "put", BrokerRefused),
        (501, "put", BrokerRefused),
    ],
)
@pytest.mark.parametrize("body", ["", "<html>not xml", '{"error": "json"}'])
async def test_what_a_gateway_answers_is_judged_by_its_status(
    service: Service, broker: AzureBroker, row: tuple[int, str, type[QworkerError]], body: str
) -> None:
    status, call, expected = row
    service.answer = Answer(status, body, {"Location": "/elsewhere"})
    assert expected is type(await failure(CALLS[call](broker)))
    assert 1 == len(service.requests)


async def test_an_unknown_refusal_has_status_and_code(service: Service, broker: AzureBroker) -> None:
    service.answer = refusal(400, "OutOfRangeInput")
    assert "refused to put a message into 'mail' (400 OutOfRangeInput)" in str(await failure(CALLS["put"](broker)))


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7.0), ("86400", 60.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)]
)
async def test_busy_says_how_long_to_wait(
    service: Service, broker: AzureBroker, header: str, expected: float | None
) -> None:
    service.answer = refusal(503, "ServerBusy", **{"Retry-After": header})
    error = await failure(CALLS["get"](broker))
    assert isinstance(error, BrokerBusy)
    assert expected == error.retry_after


async def test_errors_carry_what_they_are_about(service: Service, broker: AzureBroker) -> None:
    service.answer = refusal(404, "MessageNotFound")
    lost = await failure(CALLS["update"](broker))
    service.answer = refusal(400, "MessageTooLarge")
    large = await failure(broker.queue("mail").put("é" * 100))
    service.answer = refusal(404, "QueueNotFound")
    missing = await failure(CALLS["get"](broker))
    assert isinstance(lost, LeaseLost)
    assert "id-1" == lost.message_id
    assert isinstance(large, MessageTooLarge)
    assert (200, 65536) == (large.size, large.limit)
    assert isinstance(missing, QueueNotFound)
    assert "mail" == missing.name


@pytest.mark.parametrize(
    "row",
    [
        ("put", "put a message into 'mail'", "'a'", "'Storage Queue Data Message Sender'"),
        ("get", "get messages from 'mail'", "'p'", "'Storage Queue Data Message Processor'"),
        ("update", "update a message of 'mail'", "'u'", "'Storage Queue Data Contributor'"),
        ("list_queues", "list queues like 'mail*'", "'l'", "'Storage Queue Data Reader'"),
    ],
)
async def test_a_missing_right_is_named(service: Service, broker: AzureBroker, row: tuple[str, str, str, str]) -> None:
    call, does, permission, role = row
    service.answer = refusal(403, "AuthorizationPermissionMismatch")
    text = str(await failure(CALLS[call](broker)))
    assert does in text
    assert f"permission {permission} in a SAS or the role {role}" in text
    assert "\n" not in text


async def test_a_wrong_key_is_not_called_a_missing_right(service: Service, broker: AzureBroker) -> None:
    service.answer = refusal(403, "AuthenticationFailed")
    assert "the key or SAS is wrong, has expired or is not for this" in str(await failure(CALLS["get"](broker)))


async def test_a_firewall_looks_like_a_missing_right(service: Service, broker: AzureBroker) -> None:
    service.answer = refusal(403, "AuthorizationFailure")
    assert "permission 'p'" in str(await failure(CALLS["get"](broker)))
    assert "unless the account's firewall" in str(await failure(CALLS["get"](broker)))


# What is too much


async def overload(broker: AzureBroker, service: Service, answer: Answer, calls: int = 6) -> None:
    service.answer = answer
    for _ in range(calls):
        await failure(CALLS["get"](broker))


@pytest.mark.parametrize(
    "answer",
    [
        refusal(503, "ServerBusy"),
        refusal(500, "OperationTimedOut"),
        refusal(500, "InternalError"),
        Answer(429),
        Answer(502),
        Answer(504),
    ],
    ids=lambda answer: str(answer.status),
)
async def test_a_queue_that_refuses_for_being_busy_is_throttled(
    service: Service, broker: AzureBroker, answer: Answer
) -> None:
    await overload(broker, service, answer, calls=5)
    few = broker.queue("mail").rate
    await overload(broker, service, answer, calls=1)
    assert (None, 10) == (few, broker.queue("mail").rate)
    assert broker.queue("other").rate is None, "limits are each queue's own"


@pytest.mark.parametrize(
    "answer",
    [
        refusal(404, "QueueNotFound"),
        refusal(403, "AuthorizationFailure"),
        refusal(400, "PopReceiptMismatch"),
        Answer(501),
        "hang up",
        PUT_DONE,
    ],
    ids=["404", "403", "400", "501", "no-answer", "unreadable"],
)
async def test_what_has_other_reasons_says_nothing_about_a_limit(
    service: Service, broker: AzureBroker, answer: Any
) -> None:
    service.answer = answer
    for _ in range(20):
        with suppress(BrokerError):
            await CALLS["get"](broker)
    assert broker.queue("mail").rate is None


async def test_requests_beyond_a_rate_wait_for_room(service: Service, broker: AzureBroker) -> None:
    mail = broker.queue("mail")
    await mail.admit(Urgency.NEW_WORK, within=0)
    await overload(broker, service, refusal(503, "ServerBusy"))
    began = time.monotonic()
    for _ in range(4):
        await mail.admit(Urgency.NEW_WORK)
    assert 0.3 - 0.01 <= time.monotonic() - began, "10 requests/s, one of them at once"


async def test_retry_after_holds_back_all_but_renewals(service: Service, broker: AzureBroker) -> None:
    mail = broker.queue("mail")
    await overload(broker, service, refusal(503, "ServerBusy", **{"Retry-After": "7"}), calls=1)
    for urgency in (Urgency.SETTLEMENT, Urgency.NEW_WORK):
        with pytest.raises(BrokerBusy, match="too busy for another request to 'mail': none was sent"):
            await mail.admit(urgency, within=0.05)
    async with asyncio.timeout(5):
        await mail.admit(Urgency.RENEWAL)
    assert 1 == len(service.requests)


async def test_a_forked_child_has_throttles_of_its_own(service: Service, broker: AzureBroker) -> None:
    await overload(broker, service, refusal(503, "ServerBusy"))
    broker.throttle("mail")._lock.acquire()  # as another thread may have done at the moment of the fork
    child = os.fork()
    if not child:
        os._exit(broker.queue("mail").rate is not None)
    assert (child, 0) == await asyncio.to_thread(os.waitpid, child, 0)


# What becomes of a request


@every_call
@pytest.mark.parametrize("how", ["reset", "hang up", Answer(200, "x" * 100, then="cut")], ids=["reset", "fin", "cut"])
async def test_a_lost_connection_leaves_it_open_whether_it_was_done(
    service: Service, broker: AzureBroker, call: Call, how: Any
) -> None:
    service.answer = how
    error = await failure(call(broker))
    assert AnswerLost is type(error)
    assert "may have been applied" in str(error)
    assert 1 == len(service.requests)


@every_call
async def test_a_kept_connection_that_breaks_is_not_tried_again(
    service: Service, broker: AzureBroker, call: Call
) -> None:
    service.answer = UPDATED
    await CALLS["delete"](broker)
    service.answer = "hang up"
    assert AnswerLost is type(await failure(call(broker)))
    assert [1, 1] == [request.connection for request in service.requests]


@every_call
async def test_silence_is_given_up(service: Service, hasty: AzureBroker, call: Call) -> None:
    service.answer = None
    async with asyncio.timeout(3):
        error = await failure(call(hasty))
    assert AnswerLost is type(error)
    assert "no answer in time" in str(error)


@every_call
async def test_a_refused_connection_means_that_nothing_was_done(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    broker = AzureBroker.from_connection_string(connection_string(port, KEY))
    error = await failure(call(broker))
    await broker.aclose()
    assert BrokerUnavailable is type(error)
    assert f"Cannot connect to host 127.0.0.1:{port}" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, messages(message("a \x01 b"))),
        Answer(200, b"\xff\xfe\x01"),
        Answer(200, ""),
        Answer(200, "<html>"),
        Answer(200, messages("<QueueMessage/>")),
        Answer(200, messages(message("").replace("<DequeueCount>3</DequeueCount>", ""))),
        Answer(200, messages(message("", expires="tomorrow"))),
    ],
    ids=["control", "not-utf8", "empty", "html", "bare", "no-count", "no-date"],
)
async def test_messages_that_cannot_be_read_are_an_answer_lost(
    service: Service, broker: AzureBroker, answer: Answer
) -> None:
    service.answer = answer
    error = await failure(CALLS["get"](broker))
    assert AnswerLost is type(error)
    assert "the answer can't be read" in str(error)
    assert 1 == len(service.requests)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("put", Answer(201, "<html/>")),
        ("put", Answer(200, "")),
        ("update", Answer(204)),
        ("delete", Answer(200, "<html/>")),
        ("count", Answer(200, "<html/>")),
        ("list_queues", Answer(200, "<html/>")),
    ],
)
async def test_an_answer_of_something_else_is_an_answer_lost(
    service: Service, broker: AzureBroker, call: str, answer: Answer
) -> None:
    service.answer = answer
    assert AnswerLost is type(await failure(CALLS[call](broker)))


def _after(prolog: str, text: str = "{}") -> str:
    return messages(message(text)).replace("?>", f"?>{prolog}", 1)


_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 11))
ENTITIES = {
    "billion laughs": _after(f'<!DOCTYPE x [<!ENTITY l0 "ha">{_LAUGHS}]>', "&l10;"),
    "one": _after('<!DOCTYPE x [<!ENTITY a "{}">]>', "&a;"),
    "none": _after("<!DOCTYPE x>"),
    "behind comments": _after("<!-- <a> --> <?x y?>\n<!--?> --><!DOCTYPE x>"),
}


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("xml", ENTITIES.values(), ids=ENTITIES.keys())
async def test_entities_are_refused_unread(service: Service, broker: AzureBroker, xml: str, status: int) -> None:
    service.answer = Answer(status, xml)
    error = await failure(CALLS["get"](broker))
    assert AnswerLost is type(error)
    assert "the answer can't be read (EntitiesRefused)" in str(error)


@pytest.mark.parametrize(
    ("call", "charset", "reason"),
    [
        ("peek", "utf-16", "EntitiesRefused"),
        ("peek", "klingon", "EntitiesRefused"),
        ("get", "utf-16", "UnicodeDecodeError"),  # what gets messages reads UTF-8 and nothing else
        ("get", "klingon", "EntitiesRefused"),
    ],
)
async def test_entities_are_refused_in_any_charset(
    service: Service, broker: AzureBroker, call: str, charset: str, reason: str
) -> None:
    body = ENTITIES["one"].encode("utf-16" if charset == "utf-16" else "utf-8")
    service.answer = Answer(200, body, {"Content-Type": f"application/xml; charset={charset}"})
    assert f"({reason})" in str(await failure(CALLS[call](broker)))


@pytest.mark.parametrize(
    "xml",
    [
        _after(f"<!-- {'-? ' * 20_000}-->", "&lt;!DOCTYPE html>"),
        _after("<!-- <!DOCTYPE x> -->", "<![CDATA[<!DOCTYPE html>]]>"),
    ],
    ids=["escaped", "cdata"],
)
async def test_what_only_looks_like_entities_is_read(service: Service, broker: AzureBroker, xml: str) -> None:
    service.answer = Answer(200, xml)
    assert ["<!DOCTYPE html>"] == [found.body for found in await broker.queue("jobs").get(32, visibility=30)]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("prolog", ["<?a?>" * 10_000, "<!--a-->" * 10_000, "<?a?> <!--a--> " * 5_000, " " * 60_000])
async def test_looking_for_entities_takes_no_longer_than_reading(
    service: Service, broker: AzureBroker, prolog: str
) -> None:
    service.answer = Answer(200, _after(prolog))
    assert ["{}"] == [found.body for found in await broker.queue("jobs").get(32, visibility=30)]
    service.answer = Answer(200, prolog + "<!DOCTYP")
    assert "can't be read" in str(await failure(CALLS["get"](broker)))


async def test_an_idle_connection_that_the_service_closed_is_not_used(service: Service, broker: AzureBroker) -> None:
    service.answer = Answer(201, PUT_DONE.body, then="close")
    await CALLS["put"](broker)
    assert 1 == await service.left.get()
    await CALLS["put"](broker)
    assert [1, 2] == [request.connection for request in service.requests]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServiceRequestTimeoutError(None, error=aiohttp.ConnectionTimeoutError(CANARY)), "no connection in time"),
        (TimeoutError(), "no connection in time"),
        (ServiceRequestError(None, error=aiohttp.InvalidURL(CANARY)), "InvalidUrlClientError"),
        (ConnectionResetError(CANARY), "ConnectionResetError"),
    ],
)
def test_what_was_never_sent_was_never_done(error: Exception, expected: str) -> None:
    translated = translate(error, Request(azure_errors.PUT, "azure://a", "mail"), sent=False)
    assert BrokerUnavailable is type(translated)
    assert CANARY not in str(translated)


def test_an_error_that_nobody_expects_is_told_by_its_place() -> None:
    def mistaken() -> None:
        raise TypeError(CANARY)

    with pytest.raises(TypeError) as caught:
        mistaken()
    translated = translate(caught.value, Request(azure_errors.PUT, "azure://a", "mail"), sent=False)
    assert BrokerRefused is type(translated)
    assert re.search(r"can't be made: TypeError in \S*test_broker, line \d+$", str(translated))


# Requests


@pytest.mark.parametrize(
    ("call", "answer", "line"),
    [
        ("put", PUT_DONE, "POST /devstoreaccount1/mail/messages?visibilitytimeout=0&messagettl=-1 HTTP/1.1"),
        (
            "get",
            Answer(200, messages()),
            "GET /devstoreaccount1/mail/messages?numofmessages=32&visibilitytimeout=60 HTTP/1.1",
        ),
        (
            "peek",
            Answer(200, messages()),
            "GET /devstoreaccount1/mail/messages?peekonly=true&numofmessages=32 HTTP/1.1",
        ),
        (
            "update",
            UPDATED,
            "PUT /devstoreaccount1/mail/messages/id-1?popreceipt=receipt-1&visibilitytimeout=60 HTTP/1.1",
        ),
        ("delete", Answer(204), "DELETE /devstoreaccount1/mail/messages/id-1?popreceipt=receipt-1 HTTP/1.1"),
        ("clear", Answer(204), "DELETE /devstoreaccount1/mail/messages HTTP/1.1"),
        ("create_queue", Answer(201), "PUT /devstoreaccount1/mail HTTP/1.1"),
        ("delete_queue", Answer(204), "DELETE /devstoreaccount1/mail HTTP/1.1"),
    ],
)
async def test_each_call_is_one_request(
    service: Service, broker: AzureBroker, call: str, answer: Answer, line: str
) -> None:
    service.answer = answer
    await CALLS[call](broker)
    assert [_sorted_query(line)] == [_sorted_query(request.line) for request in service.requests]
    assert "x-ms-version: 2025-11-05" in service.requests[0].head


def _sorted_query(line: str) -> tuple[str, list[str]]:
    method, target, _ = line.split(" ")
    path, _, query = target.partition("?")
    return f"{method} {path}", sorted(query.split("&"))


async def test_put_sends_delay_and_ttl_and_returns_the_id(service: Service, broker: AzureBroker) -> None:
    service.answer = PUT_DONE
    assert "id-1" == await broker.queue("mail").put("<&>", delay=5, ttl=60)
    assert "visibilitytimeout=5" in service.requests[0].line
    assert "messagettl=60" in service.requests[0].line
    assert "<MessageText>&lt;&amp;&gt;</MessageText>" in service.requests[0].body


async def test_get_returns_what_came(service: Service, broker: AzureBroker) -> None:
    ends = "Tue, 24 Nov 2026 05:00:00 GMT"
    service.answer = Answer(200, messages(message(" {}\n"), message("", expires=ends)))
    first, second = await broker.queue("mail").get(5, visibility=51)
    assert ("id-1", "receipt-1", 3, " {}\n", None) == (
        first.id,
        first.receipt,
        first.dequeue_count,
        first.body,
        first.expires_at,
    )
    assert datetime(2026, 11, 23, 5, tzinfo=UTC) == first.inserted_at
    assert datetime(2026, 11, 23, 5, 0, 9, tzinfo=UTC) == first.received_at
    assert ("", datetime(2026, 11, 24, 5, tzinfo=UTC)) == (second.body, second.expires_at)
    assert 1 == len(service.requests)


async def test_a_peek_was_at_the_time_of_the_services_clock(service: Service, broker: AzureBroker) -> None:
    service.answer = Answer(200, messages(message("x")), {"Date": "Mon, 23 Nov 2026 05:00:07 GMT"})
    [seen] = await broker.queue("mail").peek()
    assert datetime(2026, 11, 23, 5, 0, 7, tzinfo=UTC) == seen.seen_at


async def test_update_uploads_a_body_only_if_there_is_one(service: Service, broker: AzureBroker) -> None:
    service.answer = UPDATED
    queue = broker.queue("mail")
    assert "receipt-2" == await queue.update("id-1", "receipt-1", visibility=0)
    await queue.update("id-1", "receipt-1", visibility=0, body="")
    without, empty = service.requests
    assert "" == without.body
    assert "visibilitytimeout=0" in without.line
    assert "<QueueMessage><MessageText></MessageText></QueueMessage>" == empty.body


async def test_what_no_broker_takes_is_never_sent(service: Service, broker: AzureBroker) -> None:
    queue = broker.queue("mail")
    for body in ("\x00", "\x01", "\ufffe", "\ud800"):
        with pytest.raises(ValueError, match="can't hold the character"):
            await queue.put(body)
        with pytest.raises(ValueError, match="can't hold the character"):
            await queue.update("id-1", "receipt-1", visibility=1, body=body)
    with pytest.raises(MessageTooLarge):
        await queue.put("x" * 65537)
    with pytest.raises(MessageTooLarge):
        await queue.update("id-1", "receipt-1", visibility=1, body="x" * 65537)
    for bad in (queue.get(33, visibility=1), queue.get(visibility=0), queue.peek(0), queue.put("", delay=-1)):
        with pytest.raises(ValueError, match="must be"):
            await bad
    with pytest.raises(InvalidQueueName):
        broker.queue("No")
    assert [] == service.requests


async def test_create_says_whether_it_did(service: Service, broker: AzureBroker) -> None:
    service.answer = Answer(201)
    assert await broker.create_queue("mail")
    service.answer = Answer(204)  # the same queue
    assert not await broker.create_queue("mail")
    service.answer = refusal(409, "QueueAlreadyExists")  # one of the same name with other metadata
    assert not await broker.create_queue("mail")


async def test_list_reads_all_pages(service: Service, broker: AzureBroker) -> None:
    def page(names: list[str], marker: str) -> Answer:
        queues = "".join(f"<Queue><Name>{name}</Name></Queue>" for name in names)
        return Answer(
            200,
            f'<?xml version="1.0"?><EnumerationResults ServiceEndpoint="http://x/"><Prefix>m</Prefix>'
            f"<Queues>{queues}</Queues><NextMarker>{marker}</NextMarker></EnumerationResults>",
        )

    service.pages = [page(["mail-b", "mail-a"], "more"), page([], "still-more"), page(["m-x"], "")]
    assert ["m-x", "mail-a", "mail-b"] == await broker.list_queues("m")
    assert 3 == len(service.requests)


async def test_count_is_the_approximate_one(service: Service, broker: AzureBroker) -> None:
    service.answer = Answer(200, headers={"x-ms-approximate-messages-count": "7"})
    assert 7 == await broker.queue("mail").count()


# Connections


async def test_as_many_requests_at_once_as_are_made(service: Service, broker: AzureBroker) -> None:
    service.answer = None
    calls = [asyncio.create_task(broker.queue("mail").count()) for _ in range(150)]
    async with asyncio.timeout(4):  # less than a call may take: none has to end for another to begin
        for _ in calls:
            await service.arrivals.get()
    assert 150 == service.connections
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_each_event_loop_has_its_own_connections(service: Service, broker: AzureBroker) -> None:
    async def elsewhere() -> None:
        await CALLS["put"](broker)
        await broker.aclose()

    service.answer = PUT_DONE
    await CALLS["put"](broker)
    await asyncio.to_thread(asyncio.run, elsewhere())
    await CALLS["put"](broker)
    assert [1, 2, 1] == [request.connection for request in service.requests]


async def test_closing_is_not_the_end(service: Service, broker: AzureBroker) -> None:
    service.answer = PUT_DONE
    await CALLS["put"](broker)
    await broker.aclose()
    await broker.aclose()
    await CALLS["put"](broker)
    assert [1, 2] == [request.connection for request in service.requests]


async def test_a_loop_that_ended_is_forgotten(broker: AzureBroker) -> None:
    async def connect() -> None:
        broker._connect()

    ended = asyncio.new_event_loop()
    await asyncio.to_thread(ended.run_until_complete, connect())
    ended.close()
    forgotten = broker._connections[ended]
    broker._connect()
    assert [asyncio.get_running_loop()] == list(broker._connections)
    await forgotten.close()


async def test_a_forked_child_opens_connections_of_its_own(service: Service) -> None:
    script = f"""
import asyncio, os
from qworker.brokers.azure.broker import AzureBroker
broker = AzureBroker.from_connection_string({connection_string(service.port, KEY)!r})
with asyncio.Runner() as runner:
    runner.run(broker.queue("mail").put("before"))
    child = os.fork()
    if not child:
        async def in_child():
            await broker.queue("mail").put("child")
            await broker.aclose()
        asyncio._set_running_loop(None)
        asyncio.run(in_child())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    runner.run(broker.queue("mail").put("after"))
    runner.run(broker.aclose())
"""
    service.answer = PUT_DONE
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], capture_output=True, check=False)
    assert (0, b"") == (done.returncode, done.stderr)
    assert [1, 2, 1] == [request.connection for request in service.requests]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
async def test_a_proxy_in_the_environment_is_used(
    service: Service, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{service.port}")
    service.answer = PUT_DONE
    broker = AzureBroker.from_url(f"http://storage.invalid/account?{SAS}")
    await CALLS["put"](broker)
    await broker.aclose()
    assert service.requests[0].line.startswith("POST http://storage.invalid/account/mail/messages?")


# Accounts and credentials


def test_connection_strings() -> None:
    def label(text: str) -> str:
        return AzureBroker.from_connection_string(text).label

    assert "azure://shop" == label(f"DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={KEY}")
    assert "azure://shop" == label(f"QueueEndpoint=https://shop.queue.core.windows.net/;SharedAccessSignature={SAS}")
    assert "azure://devstoreaccount1 at 127.0.0.1:10001" == label("UseDevelopmentStorage=true")
    assert "azure://shop at shop.queue.core.chinacloudapi.cn" == label(
        f"AccountName=shop;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn;DefaultEndpointsProtocol=https"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        CANARY,
        "UseDevelopmentStorage=false",
        f"AccountKey={KEY}",
        "AccountName=shop",
        f"AccountName=shop;AccountKey={CANARY}!",
        f"AccountName=a b;AccountKey={KEY}",
        f"BlobEndpoint=https://shop.blob.core.windows.net;SharedAccessSignature={SAS}",
    ],
)
def test_a_malformed_connection_string_is_not_repeated(text: str) -> None:
    with pytest.raises(InvalidBrokerURL) as caught:
        AzureBroker.from_connection_string(text)
    _check_has_no_secret(caught.value)


def test_urls() -> None:
    def label(url: str) -> str:
        return AzureBroker.from_url(url).label

    assert "azure://shop" == label("https://shop.queue.core.windows.net")
    assert "azure://shop" == label(f"https://shop.queue.core.windows.net/?{SAS}")
    assert "azure://devstoreaccount1 at 127.0.0.1:1" == label(f"http://127.0.0.1:1/devstoreaccount1?{SAS}")
    assert "azure://queues.example" == label("https://queues.example/")
    assert "azure://shop" == AzureBroker.from_account("shop").label


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://shop.queue.core.windows.net?{SAS}",
        f"https://shop.queue.core.windows.net/mail?{SAS}",
        f"https://shop.queue.core.windows.net?secret={CANARY}",
        f"https://user:{CANARY}@shop.queue.core.windows.net",
        f"https://?{SAS}",
        f"https://[{CANARY}",
        "http://shop.queue.core.windows.net",
    ],
)
def test_a_malformed_url_is_not_repeated(url: str) -> None:
    with pytest.raises(InvalidBrokerURL) as caught:
        AzureBroker.from_url(url)
    _check_has_no_secret(caught.value)


@pytest.mark.parametrize("name", ["", "ab", "Shop", "a" * 25, "shop.evil", "shop/x"])
def test_a_name_that_no_account_has_is_refused(name: str) -> None:
    with pytest.raises(InvalidBrokerURL, match="3 to 24"):
        AzureBroker.from_account(name)


def test_without_azure_identity_the_way_to_get_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'qworker-azure\[identity\]'"):
        AzureBroker.from_account("shop")


class Credential:
    """Stands in for DefaultAzureCredential."""

    error: Exception
    closed: ClassVar[list["Credential"]] = []

    def __init__(self, *, transport: object) -> None:
        self.transport = transport

    async def get_token(self, *_: str, **__: object) -> AccessToken:
        raise self.error

    async def close(self) -> None:
        self.closed.append(self)


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (
            CredentialUnavailableError("nothing to sign in with\nAttempted: ..."),
            AccessDenied,
            "nothing to sign in with",
        ),
        (ClientAuthenticationError("the secret has expired\nTrace"), AccessDenied, "the secret has expired"),
        (ServiceRequestError("no network"), BrokerUnavailable, "can't be reached"),
    ],
)
async def test_a_credential_that_gives_no_token(
    monkeypatch: pytest.MonkeyPatch, error: AzureError, expected: type[BrokerError], text: str
) -> None:
    monkeypatch.setattr("azure.identity.aio.DefaultAzureCredential", Credential)
    monkeypatch.setattr(Credential, "error", error, raising=False)
    monkeypatch.setattr(Credential, "closed", [])
    broker = AzureBroker.from_account("shop")
    raised = await failure(CALLS["put"](broker))
    await broker.aclose()
    assert expected is type(raised)
    assert text in str(raised)
    assert "\n" not in str(raised)
    assert 1 == len(Credential.closed)


async def test_a_refused_sign_in_is_not_taken_for_the_queues_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Response:
        status_code = HTTPStatus.BAD_REQUEST
        reason = "Bad Request"

        def text(self) -> str:
            return "{}"

    error = ClientAuthenticationError("invalid_client", response=Response())  # type: ignore[arg-type]
    translated = translate(error, Request(azure_errors.GET, "azure://shop", "mail"), sent=False)
    assert AccessDenied is type(translated)
    assert "azure://shop: no credential to get messages from 'mail': invalid_client" == str(translated)


# Secrets


@pytest.fixture(params=["key", "sas"])
async def secretive(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[AzureBroker]:
    if request.param == "key":
        broker = AzureBroker.from_connection_string(connection_string(service.port, KEY), call_timeout=0.2)
    else:
        url = f"http://127.0.0.1:{service.port}/devstoreaccount1?{SAS}"
        broker = AzureBroker.from_url(url, call_timeout=0.2)
    yield broker
    await broker.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "reset",
        "hang up",
        Answer(200, "x" * 9, then="cut"),
        Answer(200, CANARY),
        *(refusal(status, code) for status, code, _, _ in REFUSALS),
        refusal(418, "Teapot"),
    ],
)
async def test_no_error_holds_a_secret(service: Service, secretive: AzureBroker, answer: Any) -> None:
    service.answer = answer
    for call in CALLS.values():
        _check_has_no_secret(await _raised(call(secretive)))
    _check_has_no_secret(secretive)
    _check_has_no_secret(secretive.queue("mail"))


async def _raised(call: Awaitable[object]) -> object:
    try:
        return await call
    except QworkerError as error:
        return error


def _check_has_no_secret(thing: object) -> None:
    texts = [str(thing), repr(thing)]
    if isinstance(thing, BaseException):
        texts += traceback.format_exception(thing)
        assert thing.__cause__ is None
        assert "\n" not in str(thing)
    for text in texts:
        assert CANARY not in text
        assert KEY not in text


async def test_representations(broker: AzureBroker, service: Service) -> None:
    where = f"azure://devstoreaccount1 at 127.0.0.1:{service.port}"
    assert f"<AzureBroker {where}>" == repr(broker)
    assert f"<AzureQueue mail of {where}>" == repr(broker.queue("mail"))
    assert isinstance(broker.queue("mail"), AzureQueue)


@pytest.mark.parametrize("ahead", [-1000.0, 0.0, 1000.0])
async def test_a_clock_is_compared_even_by_a_refusal(service: Service, broker: AzureBroker, ahead: float) -> None:
    """It may be the very reason of the refusal."""
    date = formatdate(time.time() + ahead, usegmt=True)
    service.answer = refusal(403, "AuthenticationFailed", **{"Date": date, "x-ms-version": "2025-11-05"})
    condition = await broker.examine()
    assert condition.clock_ahead is not None
    assert ahead == pytest.approx(condition.clock_ahead, abs=1)
    assert "2025-11-05" == condition.api_version == condition.version_asked


async def test_what_an_answer_does_not_say_is_not_known(service: Service, broker: AzureBroker) -> None:
    service.answer = refusal(403, "AuthenticationFailed", Date="yesterday")
    condition = await broker.examine()
    assert (None, None) == (condition.clock_ahead, condition.api_version)


@pytest.mark.parametrize("answer", [refusal(400, "InvalidHeaderValue"), refusal(503, "ServerBusy")])
async def test_a_refusal_for_another_reason_than_rights_is_one(
    service: Service, broker: AzureBroker, answer: Answer
) -> None:
    service.answer = answer
    with pytest.raises(BrokerError):
        await broker.examine()


@pytest.mark.parametrize("right", get_args(Right))
async def test_a_right_that_nobody_answers_for_is_not_called_given(
    service: Service, broker: AzureBroker, right: Right
) -> None:
    for answer, error in ((refusal(503, "ServerBusy"), BrokerBusy), (Answer(200, "?", then="cut"), AnswerLost)):
        service.answer = answer
        with pytest.raises(error):
            await broker.queue("mail").check_right(right)
