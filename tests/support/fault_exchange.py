"""One request on its way through the fault-injecting proxy: what an action can do with it, and what is remembered."""

import re
import socket
import struct
import time
from asyncio import IncompleteReadError, StreamReader, StreamWriter, open_connection
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

from http_messages import Request, Response, read_response

How = Literal["FIN", "RST"]
"""A connection ends in good order, or as after a crash."""

_MESSAGE: Final = re.compile(rb"<QueueMessage>(.*?)</QueueMessage>", re.DOTALL)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
# Azurite closes connections that were idle for 5 s; one that it is about to close would be a fault nobody asked for.
_REUSED_FOR_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message in an answer."""

    id: str
    receipt: str
    dequeue_count: int
    """0 where the answer has none: that of a put."""


@dataclass(slots=True)
class Seen:
    """What became of one request; filled in as it happens."""

    at: float
    """By time.monotonic(), when it came."""
    request: Request
    action: str = ""
    """The name of the fault's class, "Throttle", "Refuse", or empty if it passed untouched."""
    upstream: int | None = None
    """The status that the service answered; None if it was not asked, or has not answered yet."""
    status: int | None = None
    """The status that the client was answered; None if it was not, or not yet."""
    messages: tuple[Delivered, ...] = ()
    """What the service's answer to a get, peek or put had."""

    @property
    def operation(self) -> str:
        return self.request.operation

    @property
    def queue(self) -> str:
        return self.request.queue

    @property
    def message_id(self) -> str:
        return self.request.message_id

    @property
    def receipt(self) -> str:
        return self.request.receipt

    @property
    def body(self) -> str:
        return self.request.text

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]


class Upstream:
    """A connection to the service, made when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[StreamReader, StreamWriter] | None = None
        self._used_at = 0.0

    async def ask(self, request: Request) -> Response:
        """Return the service's whole answer. Raises ConnectionError or IncompleteReadError."""
        reader, writer = await self._connected()
        writer.write(request.head + request.body)
        response = await read_response(reader, request.method)
        self._used_at = time.monotonic()
        if response.last:
            await self.close()
        return response

    async def _connected(self) -> tuple[StreamReader, StreamWriter]:
        if self._streams is not None and time.monotonic() - self._used_at > _REUSED_FOR_SECONDS:
            await self.close()
        if self._streams is None:
            self._streams = await open_connection("127.0.0.1", self._port)
        return self._streams

    async def close(self) -> None:
        if self._streams is not None:
            (_, writer), self._streams = self._streams, None
            await _closed(writer)


class Client:
    """A connection that the proxy accepted."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self.idle_since: float | None = time.monotonic()
        """By time.monotonic(); None while a request is under way."""
        self.exchange: Exchange | None = None

    @property
    def gone(self) -> bool:
        return self._writer.is_closing()

    async def write(self, data: bytes) -> None:
        """Send, unless the client is gone: what it makes of that is its own business."""
        if not self.gone:
            with suppress(ConnectionError):
                self._writer.write(data)
                await self._writer.drain()

    def drop(self, how: How) -> None:
        """End the connection; a reset also ends one that waits for the client to read the rest."""
        if how == "FIN":
            self._writer.close()
            return
        with suppress(OSError):  # if it is closed already
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()

    async def gives_up(self) -> None:
        """Return when the client has closed the connection; what it still sends is lost."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def close(self) -> None:
        await _closed(self._writer)


async def _closed(writer: StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@dataclass(slots=True)
class Exchange:
    """A request under way, in an action's hands."""

    seen: Seen
    client: Client
    upstream: Upstream
    revise: Callable[[Response], Response]
    """What the proxy makes of every answer of the service."""
    on_effect: Callable[[Seen], None] = lambda _: None
    random: Random = field(default_factory=Random)
    _taken: bool = False

    @property
    def request(self) -> Request:
        return self.seen.request

    def takes_effect(self) -> None:
        """Let the fault be counted and noted, once: before the client can notice."""
        if not self._taken:
            self._taken = True
            self.on_effect(self.seen)

    async def forward(self) -> Response:
        """Have the service do what is asked, and return its whole answer."""
        response = await self.upstream.ask(self.request)
        self.seen.upstream = response.status
        self.seen.messages += tuple(map(_delivered, _MESSAGE.findall(response.body)))
        return self.revise(response)

    async def answer(self, response: Response) -> None:
        """Answer the client."""
        await self.send_last(b"".join(response.encode()), response)

    async def send_last(self, part: bytes, response: Response) -> None:
        """Send the end of an answer, and end the connection if the answer, or the request, said so."""
        self.seen.status = response.status  # before the client, and so a test, can know it
        await self.send(part)
        if response.last or self.request.last:
            self.client.drop("FIN")

    async def send(self, part: bytes) -> None:
        """Send a part of an answer."""
        self.takes_effect()
        await self.client.write(part)

    def drop(self, how: How) -> None:
        """End the client's connection."""
        self.takes_effect()
        self.client.drop(how)

    async def client_gives_up(self) -> None:
        """Answer nothing until the client has closed the connection."""
        self.takes_effect()
        await self.client.gives_up()


def _delivered(xml: bytes) -> Delivered:
    return Delivered(
        _element(xml, b"MessageId"), _element(xml, b"PopReceipt"), int(_element(xml, b"DequeueCount") or 0)
    )


def _element(xml: bytes, name: bytes) -> str:
    return xml.partition(b"<%b>" % name)[2].partition(b"</%b>" % name)[0].decode()


LOST: Final = (ConnectionError, IncompleteReadError)
"""What reading from a connection raises when it ends."""
