"""Azure Queue Storage: https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import MAXYEAR, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import urlsplit

from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from qworker._distribution import install
from qworker._queue_names import check_queue_name
from qworker.brokers.azure.connections import API_VERSION, ByLoop, Connections, OpenService, Way
from qworker.brokers.azure.errors import (
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
    Refused,
    Request,
    refusal_of,
    translate,
)
from qworker.brokers.azure.messages import MessageRequests
from qworker.brokers.azure.pool import Progress
from qworker.brokers.azure.proxy import proxy_options
from qworker.brokers.azure.url import PUBLIC_CLOUD, account_of, parse_connection_string, parse_url, url_of
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
)

_HALF_A_SECOND: Final = 0.5
"""What a Date header leaves out, on average."""
_NOBODYS: Final = ("00000000-0000-0000-0000-000000000000", "AgAAAAMAAAAAAAAAAAAAAAAAAAA=")
"""A message id and a receipt that are well formed, and no message's."""

T = TypeVar("T")


class AzureBroker(Broker):
    """The queues of one storage account.

    *call_timeout*: seconds that one request may take, whatever happens to it. Nothing is ever sent twice: what became
    of a request is for the caller to judge by the error's class, and so is whether to try again.
    """

    poll_max = 2.0
    shared = True
    remote = True

    def __init__(self, open_service: OpenService, *, url: str, account: str | None, call_timeout: float = 10.0) -> None:
        host = urlsplit(url).netloc.lower()
        self.label = f"azure://{account or host}"
        if host not in {account, f"{account}{PUBLIC_CLOUD}"}:
            self.label += f" at {host}"
        self._scheme = urlsplit(url).scheme
        self._proxy = proxy_options(url)
        self._open_service = open_service
        self._call_timeout = call_timeout
        self._connections = ByLoop(self)
        self._throttles: dict[str, Throttle] = {}
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label}>"

    @classmethod
    def from_connection_string(cls, text: str, *, call_timeout: float = 10.0) -> Self:
        """Return the broker of a storage account's connection string. Raises InvalidBrokerURL."""
        account = parse_connection_string(text)

        def open_service(way: Way) -> QueueServiceClient:
            return QueueServiceClient(account.url, account.credential, **way.options())

        return cls(open_service, url=account.url, account=account.name, call_timeout=call_timeout)

    @classmethod
    def from_account(cls, name: str, *, call_timeout: float = 10.0) -> Self:
        """Return the broker of a storage account in the public cloud, with DefaultAzureCredential.

        Raises InvalidBrokerURL, or ConfigurationError if azure-identity is not installed.
        """
        return cls._with_token(url_of(name), call_timeout)

    @classmethod
    def from_url(cls, url: str, *, call_timeout: float = 10.0) -> Self:
        """Return the broker at a queue service's URL, with the SAS in its query or else with DefaultAzureCredential.

        Raises InvalidBrokerURL, or ConfigurationError if azure-identity is needed and not installed.
        """
        parts = parse_url(url)
        url = parts.geturl()
        if not parts.query:
            return cls._with_token(url, call_timeout)

        def open_service(way: Way) -> QueueServiceClient:
            return QueueServiceClient(url, **way.options())

        return cls(open_service, url=url, account=account_of(parts), call_timeout=call_timeout)

    @classmethod
    def _with_token(cls, url: str, call_timeout: float) -> Self:
        try:
            from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415 - an extra, and slow to import
        except ImportError:
            needs = f"signing in to Azure without a key or SAS needs azure-identity: {install('identity')}"
            raise ConfigurationError(needs) from None

        def open_service(way: Way) -> QueueServiceClient:
            return QueueServiceClient(url, DefaultAzureCredential(transport=way.to_sign_in()), **way.options())

        return cls(open_service, url=url, account=account_of(urlsplit(url)), call_timeout=call_timeout)

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

        async def names(connections: Connections) -> list[str]:
            found = connections.service.list_queues(name_starts_with=prefix or None)
            return [_given(queue.name) async for queue in found]

        return sorted(await self.ask(Request(LIST_QUEUES, self.label, f"{prefix}*"), names))

    async def examine(self) -> Condition:
        """List a queue, and read what stands in the head of the answer, whatever it is; see Broker.examine."""
        seen: list[Condition] = []

        async def list_one(connections: Connections) -> None:
            began = time.time()

            def note(headers: Mapping[str, str]) -> None:
                seen.append(_condition(headers, (began + time.time()) / 2))

            def note_answer(response: Any) -> None:
                note(response.http_response.headers)

            pages = connections.service.list_queues(results_per_page=1, raw_response_hook=note_answer).by_page()
            try:
                await anext(pages)
            except Refused as refused:
                note(refused.headers)
                raise

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

    async def ask(self, request: Request, call: Callable[[Connections], Awaitable[T]]) -> T:
        """Make one request: the boundary between the SDK's errors and ours."""
        progress = Progress.begin()
        try:
            async with asyncio.timeout(self._call_timeout):
                connections = self._connect()
                connections.calls += 1
                try:
                    answer = await call(connections)
                finally:
                    connections.calls -= 1
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
            self._begin_anew()
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

    def _begin_anew(self) -> None:
        """Have connections of its own in a fork; throttles, too, as a lock of theirs may stay locked for ever here."""
        self._connections, self._throttles, self._pid = ByLoop(self), {}, os.getpid()

    def _connect(self) -> Connections:
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._begin_anew()
        connections = self._connections.get(loop)
        if connections is None or connections.closed:
            self._connections.abandon_those_left_behind()
            connections = Connections(self._open_service, self._scheme, self._proxy, self._call_timeout)
            self._connections[loop] = connections
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

        dates: list[str] = []

        def note(response: Any) -> None:
            dates.append(response.http_response.headers.get("Date", ""))

        async def peek(client: QueueClient) -> list[PeekedMessage]:
            seen = await client.peek_messages(limit, raw_response_hook=note)
            return [_peeked(message, parsedate_to_datetime(dates[-1])) for message in seen]

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


def _peeked(seen: QueueMessage, at: datetime) -> PeekedMessage:
    return PeekedMessage(
        id=_given(seen.id),
        dequeue_count=_given(seen.dequeue_count),
        body=_body(seen),
        inserted_at=_given(seen.inserted_on),
        expires_at=_expiry(seen),
        seen_at=at,
    )


def _body(message: QueueMessage) -> str:
    return cast(str | None, message.content) or ""


def _expiry(message: QueueMessage) -> datetime | None:
    expires = _given(message.expires_on)
    return None if expires.year == MAXYEAR else expires
