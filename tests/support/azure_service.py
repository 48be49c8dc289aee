"""A queue service that answers whatever a test wants, over plain HTTP or TLS."""

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CANARY = "canary5ecret"
KEY = base64.b64encode(CANARY.encode()).decode()
SAS = f"sv=2025-11-05&ss=q&sp=ap&sig={CANARY}"


@dataclass(frozen=True)
class Answer:
    """An HTTP response; *then* is what happens to its connection: cut means that its last bytes never come."""

    status: int
    body: str | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    then: Literal["keep", "close", "cut"] = "keep"

    def encode(self) -> bytes:
        body = self.body.encode() if isinstance(self.body, str) else self.body
        headers = {"Content-Type": "application/xml", "Content-Length": str(len(body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} Text", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + body


@dataclass(frozen=True)
class Seen:
    """A request as the service saw it."""

    line: str
    head: str
    body: str
    connection: int


class Service:
    """Answers each request with what *answer* holds at that moment; None is silence, an exception a reset."""

    def __init__(self) -> None:
        self.answer: Answer | Literal["reset", "hang up"] | None = Answer(500)
        self.pages: list[Answer] = []
        self.requests: list[Seen] = []
        self.connections = 0
        self.port = 0
        self.arrivals: asyncio.Queue[Seen] = asyncio.Queue()
        self.left: asyncio.Queue[int] = asyncio.Queue()
        """The numbers of the connections that the client has closed."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while await self._respond(number, reader, writer):
                pass
            await reader.read()
        except ConnectionError:
            pass
        finally:
            self.left.put_nowait(number)
            writer.close()

    async def _respond(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return False
        length = next((int(x.split(":")[1]) for x in head.split("\r\n") if x.lower().startswith("content-length:")), 0)
        body = (await reader.readexactly(length)).decode()
        self.requests.append(Seen(head.partition("\r\n")[0], head, body, number))
        self.arrivals.put_nowait(self.requests[-1])
        return self._answer(writer, self.pages.pop(0) if self.pages else self.answer)

    def _answer(self, writer: asyncio.StreamWriter, answer: Answer | Literal["reset", "hang up"] | None) -> bool:
        match answer:
            case None:
                return True
            case "reset":
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.close()
                return False
            case "hang up":
                writer.write_eof()
                return False
            case Answer(then="cut"):
                writer.write(answer.encode()[:-3])
                writer.write_eof()
                return False
            case Answer(then="close"):
                writer.write(answer.encode())
                writer.write_eof()
                return False
        writer.write(answer.encode())
        return True


def refusal(status: int, code: str, **headers: str) -> Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>of {CANARY}</Message></Error>'
    return Answer(status, body, {"x-ms-error-code": code, **headers})


def messages(*inner: str) -> str:
    return f'<?xml version="1.0"?><QueueMessagesList>{"".join(inner)}</QueueMessagesList>'


def message(text: str, expires: str = "Fri, 31 Dec 9999 23:59:59 GMT") -> str:
    return (
        "<QueueMessage><MessageId>id-1</MessageId><InsertionTime>Mon, 23 Nov 2026 05:00:00 GMT</InsertionTime>"
        f"<ExpirationTime>{expires}</ExpirationTime><PopReceipt>receipt-1</PopReceipt>"
        "<TimeNextVisible>Mon, 23 Nov 2026 05:01:00 GMT</TimeNextVisible><DequeueCount>3</DequeueCount>"
        f"<MessageText>{text}</MessageText></QueueMessage>"
    )


PUT_DONE = Answer(201, messages(message("")))
UPDATED = Answer(
    204, headers={"x-ms-popreceipt": "receipt-2", "x-ms-time-next-visible": "Mon, 23 Nov 2026 05:01:00 GMT"}
)


@asynccontextmanager
async def serving(certificate: Path | None = None) -> AsyncIterator[Service]:
    """Serve at a free local port, by TLS if there is a certificate."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=context)
    service.port = server.sockets[0].getsockname()[1]
    async with server:
        yield service


def make_certificate(file: Path) -> Path:
    """Write a certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = (
        builder.not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file
