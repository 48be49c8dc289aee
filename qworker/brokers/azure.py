"""Azure Queue Storage: https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api."""

import asyncio
import base64
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import MAXYEAR, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import SplitResult, parse_qs, urlsplit
from urllib.request import getproxies_environment

import aiohttp
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from qworker.brokers.azure_errors import (
    CLEAR,
    COUNT,
    CREATE_QUEUE,
    DELETE,
    DELETE_QUEUE,
    GET,
    LIST_QUEUES,
    PEEK,
    PUT,
    UPDATE,
    Operation,
    QueueExists,
    Request,
    refusal_of,
    translate,
)
from qworker.brokers.azure_messages import MessageRequests, new_pipeline
from qworker.brokers.azure_transport import BareTransport, CautiousTransport
from qworker.brokers.base import (
    Broker,
    Condition,
    Message,
    PeekedMessage,
    Queue,
    Right,
    Urgency,
    check_body,
    check_lease,
    check_limit,
    check_put,
    check_queue_name,
    check_text,
    check_visibility,
)
from qworker.brokers.throttle import Throttle
from qworker.errors import (
    AccessDenied,
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    InvalidBrokerURL,
)

API_VERSION: Final = "2025-11-05"
"""The newest version of the protocol that emulators and sovereign clouds are known to take."""

_PUBLIC_CLOUD: Final = ".queue.core.windows.net"
_ACCOUNT_NAME: Final = re.compile(r"[a-z0-9]{3,24}")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
_HALF_A_SECOND: Final = 0.5
"""What a Date header leaves out, on average."""
_NOBODYS: Final = ("00000000-0000-0000-0000-000000000000", "AgAAAAMAAAAAAAAAAAAAAAAAAAA=")
"""A message id and a receipt that are well formed, and no message's."""

# Seconds after which an idle connection is not used again. It has to be shorter than the server's own limit: a message
# put while the server hangs up can neither be called sent nor not sent. Azure waits for minutes. Azurite (which alone
# speaks plain HTTP) waits for 5 s, as Node does.
_KEEP_ALIVE: Final = {"https": 30.0, "http": 4.0}

T = TypeVar("T")
_Open = Callable[[aiohttp.ClientSession, float], QueueServiceClient]


class AzureBroker(Broker):
    """The queues of one storage account.

    *call_timeout*: seconds that one request may take, whatever happens to it. Nothing is ever sent twice: what became
    of a request is for the caller to judge by the error's class, and so is whether to try again.
    """

    poll_max = 2.0
    shared = True
    remote = True

    def __init__(self, open_service: _Open, *, url: str, account: str | None, call_timeout: float = 10.0) -> None:
        host = urlsplit(url).netloc
        self.label = f"azure://{account or host}"
        if host not in {account, f"{account}{_PUBLIC_CLOUD}"}:
            self.label += f" at {host}"
        self._scheme = urlsplit(url).scheme
        self._open_service = open_service
        self._call_timeout = call_timeout
        # No lock, which a fork could leave locked forever: a loop runs in one thread, and only it touches its entry.
        self._connections: dict[asyncio.AbstractEventLoop, _Connections] = {}
        self._throttles: dict[str, Throttle] = {}
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label}>"

    @classmethod
    def from_connection_string(cls, text: str, *, call_timeout: float = 10.0) -> Self:
        """Return the broker of a storage account's connection string. Raises InvalidBrokerURL."""

        def open_service(session: aiohttp.ClientSession, timeout: float) -> QueueServiceClient:
            return QueueServiceClient.from_connection_string(text, **_options(session, timeout))

        probe = _parse_connection_string(text)
        return cls(open_service, url=probe.url, account=probe.account_name, call_timeout=call_timeout)

    @classmethod
    def from_account(cls, name: str, *, call_timeout: float = 10.0) -> Self:
        """Return the broker of a storage account in the public cloud, with DefaultAzureCredential.

        Raises InvalidBrokerURL, or ConfigurationError if azure-identity is not installed.
        """
        if not _ACCOUNT_NAME.fullmatch(name):
            msg = "azure://ACCOUNT takes the name of a storage account: 3 to 24 lower-case letters and digits"
            raise InvalidBrokerURL(msg)
        return cls._with_token(f"https://{name}{_PUBLIC_CLOUD}", call_timeout)

    @classmethod
    def from_url(cls, url: str, *, call_timeout: float = 10.0) -> Self:
        """Return the broker at a queue service's URL, with the SAS in its query or else with DefaultAzureCredential.

        Raises InvalidBrokerURL, or ConfigurationError if azure-identity is needed and not installed.
        """
        parts = _parse_url(url)
        if not parts.query:
            return cls._with_token(url, call_timeout)

        def open_service(session: aiohttp.ClientSession, timeout: float) -> QueueServiceClient:
            return QueueServiceClient(url, **_options(session, timeout))

        return cls(open_service, url=url, account=_account_of(parts), call_timeout=call_timeout)

    @classmethod
    def _with_token(cls, url: str, call_timeout: float) -> Self:
        try:
            from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415 - an extra, and slow to import
        except ImportError:
            msg = "signing in to Azure without a key or SAS needs azure-identity: pip install qworker[identity]"
            raise ConfigurationError(msg) from None

        def open_service(session: aiohttp.ClientSession, timeout: float) -> QueueServiceClient:
            return QueueServiceClient(url, DefaultAzureCredential(), **_options(session, timeout))

        return cls(open_service, url=url, account=_account_of(urlsplit(url)), call_timeout=call_timeout)

    def queue(self, name: str) -> "AzureQueue":
        """Return the queue of this name, whether it exists or not. Raises InvalidQueueName."""
        return AzureQueue(self, check_queue_name(name))

    async def create_queue(self, name: str) -> bool:
        """Create a queue; return False if it was there already. Raises InvalidQueueName."""
        try:
            await self.queue(name).ask(CREATE_QUEUE, lambda client: client.create_queue())
        except QueueExists:
            return False
        return True

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all its messages. Raises QueueNotFound."""
        await self.queue(name).ask(DELETE_QUEUE, lambda client: client.delete_queue())

    async def list_queues(self, prefix: str = "") -> list[str]:
        """Return the names of all queues that begin with *prefix*, sorted."""

        async def names(connections: _Connections) -> list[str]:
            found = connections.service.list_queues(name_starts_with=prefix or None)
            return [_given(queue.name) async for queue in found]

        return sorted(await self.ask(Request(LIST_QUEUES, self.label, f"{prefix}*"), names))

    async def examine(self) -> Condition:
        """List a queue, and read what stands in the head of the answer, whatever it is; see Broker.examine."""
        seen: list[Condition] = []

        async def list_one(connections: _Connections) -> None:
            began = time.time()

            def note(response: Any) -> None:
                seen.append(_condition(response.http_response.headers, (began + time.time()) / 2))

            await anext(connections.service.list_queues(results_per_page=1, raw_response_hook=note).by_page())

        try:
            await self.ask(Request(LIST_QUEUES, self.label, "*"), list_one)
        except AccessDenied:
            if not seen:  # no credential was found, and nothing sent
                raise
        return seen[-1]

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        connections = self._connections.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.close()

    async def ask(self, request: Request, call: "Callable[[_Connections], Awaitable[T]]") -> T:
        """Make one request: the boundary between the SDK's errors and ours."""
        progress = _Progress()
        _progress.set(progress)
        try:
            async with asyncio.timeout(self._call_timeout):
                answer = await call(self._connect())
        except Exception as error:  # noqa: BLE001 - the SDK raises anything over an answer that it can't read
            self._note_failure(error, request)
            failure = translate(error, request, sent=progress.sent)
        else:
            self.throttle(request.queue).accepted(time.monotonic())
            return answer
        # Out here, so that the SDK's error, with URLs and headers in it, is not even its context.
        raise failure

    def throttle(self, queue: str) -> Throttle:
        """Return what spaces the requests to a queue: the service's limits are each queue's own."""
        if self._pid != os.getpid():
            # A lock that another thread of the parent held at the fork would stay locked here for ever.
            self._throttles, self._pid = {}, os.getpid()
        throttle = self._throttles.get(queue)
        return throttle or self._throttles.setdefault(queue, Throttle(time.monotonic()))

    def _note_failure(self, error: Exception, request: Request) -> None:
        refusal = refusal_of(error)
        if refusal is None:
            return
        throttle = self.throttle(request.queue)
        if refusal.overloaded:
            throttle.refused(time.monotonic(), refusal.retry_after)
        else:
            throttle.accepted(time.monotonic())

    def _connect(self) -> "_Connections":
        loop = asyncio.get_running_loop()
        connections = self._connections.get(loop)
        if connections is None:
            for closed in [other for other in tuple(self._connections) if other.is_closed()]:
                self._connections.pop(closed, None)
            session = _new_session(_KEEP_ALIVE[self._scheme], self._call_timeout)
            service = self._open_service(session, self._call_timeout)
            connections = self._connections[loop] = _Connections(service, session)
        return connections


class AzureQueue(Queue):
    """One queue of a storage account."""

    def __init__(self, broker: AzureBroker, name: str) -> None:
        self.name = name
        self._broker = broker

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self._broker.label}>"

    @property
    def rate(self) -> float | None:
        """Requests a second that it is asked at most; see Queue.rate."""
        return self._broker.throttle(self.name).rate

    async def admit(self, urgency: Urgency, *, within: float | None = None) -> None:
        """Wait until there is room for another request; see Queue.admit."""
        throttle = self._broker.throttle(self.name)
        if throttle.rate is not None and not await throttle.admit(urgency, within):
            raise BrokerBusy(f"{self._broker.label} is too busy for another request to {self.name!r}: none was sent")

    async def put(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
        """Add a message and return its id; see Queue.put."""
        check_put(delay, ttl)
        check_text(check_body(body))

        return await self._ask_of_messages(PUT, lambda messages: messages.put(body, delay, ttl), body=body)

    async def get(self, limit: int = 1, *, visibility: int) -> list[Message]:
        """Lease visible messages; see Queue.get."""
        check_limit(limit)
        check_lease(visibility)

        return await self._ask_of_messages(GET, lambda messages: messages.get(limit, visibility))

    async def peek(self, limit: int = 1) -> list[PeekedMessage]:
        """Look at visible messages; see Queue.peek."""
        check_limit(limit)

        async def peek(client: QueueClient) -> list[PeekedMessage]:
            return [_peeked(seen) for seen in await client.peek_messages(limit)]

        return await self.ask(PEEK, peek)

    async def update(self, message_id: str, receipt: str, *, visibility: int, body: str | None = None) -> str:
        """Let a leased message reappear later; see Queue.update."""
        check_visibility(visibility)
        if body is not None:
            check_text(check_body(body))

        return await self._ask_of_messages(
            UPDATE, lambda messages: messages.update(message_id, receipt, visibility, body), message_id, body or ""
        )

    async def delete(self, message_id: str, receipt: str) -> None:
        """Delete a leased message; see Queue.delete."""
        await self._ask_of_messages(DELETE, lambda messages: messages.delete(message_id, receipt), message_id)

    async def clear(self) -> None:
        """Delete all messages, the invisible ones too."""
        await self.ask(CLEAR, lambda client: client.clear_messages())

    async def count(self) -> int:
        """Return how many messages there are, about; the invisible ones count too."""

        async def count(client: QueueClient) -> int:
            return _given((await client.get_queue_properties()).approximate_message_count)

        return await self.ask(COUNT, count)

    async def check_right(self, right: Right) -> None:
        """Ask for what can't be done, and see which is refused: the right or the request; see Queue.check_right.

        An update and a delete are of a message that isn't there; a get is of no messages. A put is of one that would be
        visible only when its life had ended: no version takes that, and one that did would drop it unseen. A service
        that looked at the request before the right would hide that the right is missing.
        """
        try:
            if right == "put":
                await self._ask_of_messages(PUT, lambda messages: messages.put("", delay=7, ttl=1))
            elif right == "get":
                await self._ask_of_messages(GET, lambda messages: messages.get(0, 1))
            elif right == "update":
                await self.update(*_NOBODYS, visibility=0)
            else:
                await self.delete(*_NOBODYS)
        except (AccessDenied, AnswerLost, BrokerBusy, BrokerUnavailable):
            raise
        except BrokerError:
            pass

    async def ask(self, operation: Operation, call: Callable[[QueueClient], Awaitable[T]]) -> T:
        """Make one request of this queue."""
        request = Request(operation, self._broker.label, self.name)
        return await self._broker.ask(request, lambda connections: call(connections.queue(self.name)))

    async def _ask_of_messages(
        self,
        operation: Operation,
        call: Callable[[MessageRequests], Awaitable[T]],
        message_id: str = "",
        body: str = "",
    ) -> T:
        request = Request(operation, self._broker.label, self.name, message_id, body)
        return await self._broker.ask(request, lambda connections: call(connections.messages(self.name)))


class _Connections:
    """What one event loop needs to talk to the service: a pool of connections, and clients that share it."""

    def __init__(self, service: QueueServiceClient, session: aiohttp.ClientSession) -> None:
        self.service = service
        self._pipeline = new_pipeline(service, BareTransport(session))
        self._queues: dict[str, QueueClient] = {}
        self._messages: dict[str, MessageRequests] = {}

    def queue(self, name: str) -> QueueClient:
        """Return the client of a queue; making one costs more than a request."""
        client = self._queues.get(name)
        if client is None:
            client = self._queues[name] = self.service.get_queue_client(name)
        return client

    def messages(self, name: str) -> MessageRequests:
        """Return what asks for the messages of a queue."""
        requests = self._messages.get(name)
        if requests is None:
            requests = self._messages[name] = MessageRequests(self._pipeline, self.queue(name).url, API_VERSION)
        return requests

    async def close(self) -> None:
        """Close the pool, and the credential if it has connections of its own."""
        await self.service.close()
        close_credential = getattr(self.service.credential, "close", None)
        if close_credential is not None:
            await close_credential()


class _Progress:
    """How far a request came."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


_progress: Final[ContextVar[_Progress]] = ContextVar("qworker_azure_progress")


async def _on_headers_sent(*_: object) -> None:
    _progress.get().sent = True


class _ConnectionLost(aiohttp.ClientError):
    """The connection ended before the answer came."""


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a GET, PUT or DELETE again when a connection breaks.

    It can't know that ours are not idempotent: a get leases other messages, an update or a delete that was applied
    would be refused the second time.
    """
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _ConnectionLost(type(error).__name__) from None


def _new_session(keep_alive: float, call_timeout: float) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_on_headers_sent)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=keep_alive),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "qworker"},
        skip_auto_headers=("Content-Type",),  # which is signed, and is not to be added behind a signature
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=call_timeout / 2),
        auto_decompress=False,
        middlewares=(_send_once,),
        trace_configs=[trace],
        trust_env=_behind_proxy(),
    )


def _behind_proxy() -> bool:
    """Say whether the environment names a proxy: looking for it at each request doubles what one costs."""
    return not getproxies_environment().keys().isdisjoint({"http", "https", "all"})


def _options(session: aiohttp.ClientSession, timeout: float) -> dict[str, Any]:
    transport = CautiousTransport(session=session, connection_timeout=timeout / 2, read_timeout=timeout * 0.9)
    return {
        "transport": transport,
        "api_version": API_VERSION,
        "retry_total": 0,
        "permit_redirects": False,
        "http_logging_level": logging.DEBUG,
    }


def _parse_connection_string(text: str) -> QueueServiceClient:
    """Return a client that is never used: the SDK knows how to read the text. Raises InvalidBrokerURL."""
    probe = None
    try:
        probe = QueueServiceClient.from_connection_string(text)
        base64.b64decode(getattr(probe.credential, "account_key", ""), validate=True)
        sound = _HOST.fullmatch(urlsplit(probe.url).netloc) is not None
    except ValueError:
        sound = False
    if probe is None or not sound:
        msg = (
            "the connection string of the storage account is incomplete or malformed: "
            "copy it from the account's access keys, it begins with DefaultEndpointsProtocol=https;AccountName="
        )
        raise InvalidBrokerURL(msg)
    return probe


def _parse_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        sound = _HOST.fullmatch(parts.netloc) is not None
    except ValueError:
        sound = False
    if not sound or parts.scheme not in _KEEP_ALIVE:
        raise InvalidBrokerURL(
            "the URL of a storage account is https://ACCOUNT.queue.core.windows.net, with or without a SAS"
        )
    if parts.query and "sig" not in parse_qs(parts.query):
        raise InvalidBrokerURL(f"what follows the ? of https://{parts.netloc} is not a SAS: it has no sig=")
    if not parts.query and parts.scheme != "https":
        raise InvalidBrokerURL(f"http://{parts.netloc} has no SAS, and a token is only sent over https")
    if parts.path.strip("/") and ".queue.core." in parts.netloc:
        raise InvalidBrokerURL(f"https://{parts.netloc} is the account's URL: leave out the queue's name after it")
    return parts


def _account_of(parts: SplitResult) -> str:
    """Return the account's name: the first label of its host, or the path where emulators have it."""
    return parts.path.strip("/") or parts.netloc.partition(".queue.")[0]


def _condition(headers: Mapping[str, str], local: float) -> Condition:
    """Return what the head of an answer says that was made at this time of our own."""
    ahead = None
    with suppress(KeyError, ValueError):
        ahead = parsedate_to_datetime(headers["Date"]).timestamp() + _HALF_A_SECOND - local
    return Condition(clock_ahead=ahead, api_version=headers.get("x-ms-version"), version_asked=API_VERSION)


def _given(value: T | None) -> T:
    """Return a value that every answer of the service has."""
    if value is None:
        raise ValueError("the answer lacks a value")
    return value


def _peeked(seen: QueueMessage) -> PeekedMessage:
    return PeekedMessage(
        id=_given(seen.id),
        dequeue_count=_given(seen.dequeue_count),
        body=_body(seen),
        inserted_at=_given(seen.inserted_on),
        expires_at=_expiry(seen),
    )


def _body(message: QueueMessage) -> str:
    return cast(str | None, message.content) or ""


def _expiry(message: QueueMessage) -> datetime | None:
    expires = _given(message.expires_on)
    return None if expires.year == MAXYEAR else expires
