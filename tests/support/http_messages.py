"""HTTP/1.1 as the queue service speaks it: requests and answers, read whole."""

import re
from asyncio import IncompleteReadError, StreamReader
from dataclasses import dataclass, replace
from typing import Final, Self
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import unescape

OPERATIONS: Final = frozenset(
    {
        "put",
        "get",
        "peek",
        "update",
        "delete",
        "clear",
        "create queue",
        "delete queue",
        "queue properties",
        "set metadata",
        "list queues",
        "other",
    },
)
_OF_QUEUE: Final = {
    "PUT": "create queue",
    "DELETE": "delete queue",
    "GET": "queue properties",
    "HEAD": "queue properties",
}
_OF_MESSAGES: Final = {"POST": "put", "GET": "get", "DELETE": "clear"}
_OF_MESSAGE: Final = {"PUT": "update", "DELETE": "delete"}
_TEXT: Final = re.compile(rb"<MessageText>(.*?)</MessageText>", re.DOTALL)
_BODILESS: Final = frozenset({204, 304})

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for; the head is kept as it came."""

    head: bytes
    body: bytes
    method: str
    operation: str
    """One of OPERATIONS."""
    queue: str
    """Empty if it is about no queue."""
    message_id: str
    """As the path has it: empty for a put or get."""
    receipt: str

    @property
    def text(self) -> str:
        """The message's body, as sent, of a put or an update; empty if there is none."""
        found = _TEXT.search(self.body)
        return unescape(found[1].decode()) if found else ""

    @property
    def last(self) -> bool:
        """Whether the client wants the connection closed after the answer."""
        return header(_headers(self.head), "connection").lower() == "close"


@dataclass(frozen=True, slots=True)
class Response:
    """What the service answers, its body free of the chunks it came in."""

    status: int
    reason: str
    headers: Headers
    body: bytes

    @property
    def chunked(self) -> bool:
        return header(self.headers, "transfer-encoding").lower() == "chunked"

    @property
    def last(self) -> bool:
        """Whether the connection ends with this answer."""
        return header(self.headers, "connection").lower() == "close"

    def with_body(self, body: bytes) -> Self:
        """Return the same answer with another body, its length put right."""
        headers = tuple(
            (name, str(len(body)) if name.lower() == "content-length" else value) for name, value in self.headers
        )
        return replace(self, headers=headers, body=body)

    def encode(self) -> tuple[bytes, bytes]:
        """Return the head and the body as they go over the wire, chunked if the service's were."""
        lines = [f"HTTP/1.1 {self.status} {self.reason}", *(f"{name}: {value}" for name, value in self.headers)]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head, _in_chunks(self.body) if self.chunked else self.body


def _in_chunks(body: bytes) -> bytes:
    return (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


async def read_head(reader: StreamReader) -> bytes:
    """Return everything up to the first empty line, or nothing if the connection ended."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except IncompleteReadError:
        return b""


async def read_request(head: bytes, reader: StreamReader) -> Request:
    """Read the rest of a request; what the tests' clients send has a Content-Length or no body."""
    length = header(_headers(head), "content-length")
    body = await reader.readexactly(int(length or 0))
    method, target, _ = head.partition(b"\r\n")[0].decode().split(" ", 2)
    path, _, query = target.partition("?")
    options = {name: values[0] for name, values in parse_qs(query).items()}
    _account, queue, _messages, message_id = [*path.strip("/").split("/"), "", "", ""][:4]
    operation = _operation(method, path, options)
    return Request(head, body, method, operation, queue, unquote(message_id), options.get("popreceipt", ""))


def _operation(method: str, path: str, options: dict[str, str]) -> str:
    _account, *parts = path.strip("/").split("/")
    match parts:
        case [_, "messages", _]:
            return _OF_MESSAGE.get(method, "other")
        case [_, "messages"]:
            return "peek" if options.get("peekonly") == "true" else _OF_MESSAGES.get(method, "other")
        case [_] if options.get("comp") == "metadata" and method == "PUT":
            return "set metadata"
        case [_] if options.get("comp") in (None, "metadata"):
            return _OF_QUEUE.get(method, "other")
        case [] if options.get("comp") == "list":
            return "list queues"
        case _:
            return "other"


async def read_response(reader: StreamReader, method: str) -> Response:
    """Read one answer to the end. Raises ConnectionError if there is none, IncompleteReadError if it is cut."""
    head = await read_head(reader)
    if not head:
        raise ConnectionResetError("the service closed the connection without an answer")
    _, status, reason = (head.partition(b"\r\n")[0].decode("latin-1") + " ").split(" ", 2)
    headers = _headers(head)
    response = Response(int(status), reason.strip(), headers, b"")
    if method == "HEAD" or response.status in _BODILESS:
        return response
    if response.chunked:
        return replace(response, body=await _read_chunks(reader))
    length = header(headers, "content-length")
    body = await reader.readexactly(int(length)) if length else await reader.read()
    return replace(response, body=body)


async def _read_chunks(reader: StreamReader) -> bytes:
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # a trailer
    return b"".join(chunks)


def _headers(head: bytes) -> Headers:
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))


def header(headers: Headers, name: str) -> str:
    """Return a header's value, or nothing."""
    return next((value for key, value in headers if key.lower() == name), "")
