"""The sockets of one event loop: aiohttp's sessions over them, and their end, with the loop or without it."""

import asyncio
import socket
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler

from qworker.system.inheritance import wakers_of

# Seconds after which an idle connection is not used again. It has to be shorter than the server's own limit: a message
# put while the server hangs up can neither be called sent nor not sent. Azure waits for minutes. Azurite (which alone
# speaks plain HTTP) waits for 5 s, as Node does.
_KEEP_ALIVE: Final = {"https": 30.0, "http": 4.0}


class Pool:
    """The connections of one event loop, on which it has to be made."""

    def __init__(self, scheme: str, call_timeout: float) -> None:
        self.call_timeout = call_timeout
        self._loop = asyncio.get_running_loop()
        self._sockets = weakref.WeakSet[socket.socket]()
        self._sessions: list[aiohttp.ClientSession] = []
        self.session = self.new_session(scheme, trace_configs=[_noting_what_is_sent()])
        """For requests to queues: it sends nothing twice, and notes in the caller's Progress what was sent."""

    def new_session(self, scheme: str, **options: Any) -> aiohttp.ClientSession:
        """Return a session of its own that ends with the pool. The environment has no say in it; see azure_proxy."""
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=_KEEP_ALIVE[scheme], socket_factory=self._new_socket
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "qworker"},
            skip_auto_headers=("Content-Type",),  # which is signed, and is not to be added behind a signature
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.call_timeout / 2),
            auto_decompress=False,
            middlewares=(_send_once,),
            trust_env=False,
            **options,
        )
        self._sessions.append(session)
        return session

    async def close(self) -> None:
        """Close it, on its event loop."""
        for session in self._sessions:
            await session.close()

    def abandon(self) -> None:
        """Close it without its event loop, which is closed or will not run again."""
        for session in self._sessions:
            connector = session.connector
            session.detach()
            if connector is not None:
                _abandon(connector)
        if self._loop.is_closed():
            self._silence_transports()
        for each in tuple(self._sockets):
            each.close()

    def descriptors(self) -> Iterable[int]:
        """Return what is open: its sockets, and what wakes its loop."""
        sockets = [each.fileno() for each in tuple(self._sockets)]
        return sockets if self._loop.is_closed() else [*sockets, *wakers_of(self._loop)]

    def _silence_transports(self) -> None:
        """Have asyncio's transports not complain that their loop has not closed them, which it can't any more."""
        for transport in tuple(getattr(self._loop, "_transports", {}).values()):
            if getattr(transport, "_sock", None) in self._sockets:
                transport._sock = None  # noqa: SLF001 - asyncio has no way for it

    def _new_socket(self, address: Any) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made


def _abandon(connector: aiohttp.BaseConnector) -> None:
    """Let go of a connector whose event loop is gone, and of its connections; the sockets are still to be closed.

    aiohttp has no way for it: closing takes the loop, and a connector that is not closed complains.
    """
    for protocol in _protocols(connector):
        if protocol.transport is not None:
            with suppress(RuntimeError):  # the loop is closed
                protocol.transport.abort()
    connector._closed = True  # noqa: SLF001


def _protocols(connector: aiohttp.BaseConnector) -> Iterator[ResponseHandler]:
    for idle in connector._conns.values():  # noqa: SLF001
        yield from (protocol for protocol, _ in idle)
    yield from connector._acquired  # noqa: SLF001


class Progress:
    """How far a request came."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False

    @classmethod
    def begin(cls) -> Self:
        """Return what tells of the request that the caller makes next."""
        progress = cls()
        _progress.set(progress)
        return progress


_progress: Final[ContextVar[Progress]] = ContextVar("qworker_azure_progress")


def _noting_what_is_sent() -> aiohttp.TraceConfig:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_on_headers_sent)
    return trace


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
