"""What the fault-injecting proxy can do to a request."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import uuid4
from xml.sax.saxutils import escape

from fault_exchange import Exchange, How
from http_messages import Response

_REASONS: Final = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict"}
_MESSAGES: Final = re.compile(rb"<QueueMessage>.*?</QueueMessage>", re.DOTALL)
_STEPS_PER_SECOND: Final = 20


class Action(Protocol):
    """A fault. Each request is in the hands of one action, which sees to its answer."""

    async def apply(self, exchange: Exchange) -> None: ...


@dataclass(frozen=True)
class Answer:
    """Answer with the service's error, without asking it; without a code, as a gateway in between would."""

    status: int
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "injected"

    async def apply(self, exchange: Exchange) -> None:
        await exchange.answer(error_response(self.status, self.code, self.headers, self.message))


def error_response(status: int, code: str, headers: Mapping[str, str], message: str = "injected") -> Response:
    """Return an error as the service words it."""
    body = b""
    ours = {"x-ms-request-id": str(uuid4()), "x-ms-version": "2021-02-12"}
    if code:
        text = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        body = f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()
        ours |= {"x-ms-error-code": code, "Content-Type": "application/xml"}
    ours |= {"Content-Length": str(len(body))}
    return Response(status, _REASONS.get(status, "Injected"), tuple((ours | dict(headers)).items()), body)


@dataclass(frozen=True)
class DropBefore:
    """End the connection instead of asking the service: not applied."""

    how: How = "FIN"

    async def apply(self, exchange: Exchange) -> None:
        exchange.drop(self.how)


@dataclass(frozen=True)
class DropAnswer:
    """End the connection instead of passing the answer on: applied."""

    how: How = "FIN"

    async def apply(self, exchange: Exchange) -> None:
        await exchange.forward()
        exchange.drop(self.how)


@dataclass(frozen=True)
class CutBody:
    """End the connection in the middle of the answer's body: applied."""

    how: How = "FIN"

    async def apply(self, exchange: Exchange) -> None:
        head, body = (await exchange.forward()).encode()
        await exchange.send(head + body[: len(body) // 2])
        exchange.drop(self.how)


@dataclass(frozen=True)
class Delay:
    """Hold the request for some seconds, or the answer. A client that gave up doesn't undo the request."""

    seconds: float
    before: bool = True

    async def apply(self, exchange: Exchange) -> None:
        if self.before:
            exchange.takes_effect()
            await asyncio.sleep(self.seconds)
        response = await exchange.forward()
        if not self.before:
            exchange.takes_effect()
            await asyncio.sleep(self.seconds)
        await exchange.answer(response)


@dataclass(frozen=True)
class BlackHole:
    """Never answer; the service is asked or not."""

    forward: bool = False

    async def apply(self, exchange: Exchange) -> None:
        if self.forward:
            await exchange.forward()
        await exchange.client_gives_up()


@dataclass(frozen=True)
class Trickle:
    """Let the answer come slowly."""

    bytes_per_second: int

    async def apply(self, exchange: Exchange) -> None:
        response = await exchange.forward()
        rest = b"".join(response.encode())
        step = max(1, self.bytes_per_second // _STEPS_PER_SECOND)
        while len(rest) > step:
            part, rest = rest[:step], rest[step:]
            await exchange.send(part)
            await asyncio.sleep(step / self.bytes_per_second)
        await exchange.send_last(rest, response)


@dataclass(frozen=True)
class ChangeXML:
    """Change the body of the answer."""

    change: Callable[[bytes], bytes]

    async def apply(self, exchange: Exchange) -> None:
        response = await exchange.forward()
        await exchange.answer(response.with_body(self.change(response.body)))


@dataclass(frozen=True)
class Shuffle:
    """Deliver the messages of a batch in another order."""

    async def apply(self, exchange: Exchange) -> None:
        response = await exchange.forward()
        messages = _MESSAGES.findall(response.body)
        exchange.random.shuffle(messages)
        await exchange.answer(response.with_body(_MESSAGES.sub(lambda _: messages.pop(), response.body)))


@dataclass(frozen=True)
class Duplicate:
    """Have the service do it twice, and answer once: two messages of one put."""

    async def apply(self, exchange: Exchange) -> None:
        response = await exchange.forward()
        await exchange.forward()
        await exchange.answer(response)


@dataclass(frozen=True)
class CloseAfterAnswer:
    """End the connection after an answer that doesn't say so."""

    async def apply(self, exchange: Exchange) -> None:
        await exchange.answer(await exchange.forward())
        exchange.drop("FIN")
