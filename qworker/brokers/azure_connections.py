"""What talks to Azure Queue Storage: the connections of one event loop, and how far a request on them came."""

import logging
from contextvars import ContextVar
from typing import Any, Final, Self
from urllib.request import getproxies_environment

import aiohttp
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from qworker.brokers.azure_messages import MessageRequests, new_pipeline
from qworker.brokers.azure_transport import BareTransport, CautiousTransport

API_VERSION: Final = "2025-11-05"
"""The newest version of the protocol that emulators and sovereign clouds are known to take."""

# Seconds after which an idle connection is not used again. It has to be shorter than the server's own limit: a message
# put while the server hangs up can neither be called sent nor not sent. Azure waits for minutes. Azurite (which alone
# speaks plain HTTP) waits for 5 s, as Node does.
_KEEP_ALIVE: Final = {"https": 30.0, "http": 4.0}


class Connections:
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


def new_session(scheme: str, call_timeout: float) -> aiohttp.ClientSession:
    """Return a pool of connections that sends nothing twice, and notes in the caller's Progress what was sent."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_on_headers_sent)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE[scheme]),
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


def options_of(session: aiohttp.ClientSession, timeout: float) -> dict[str, Any]:
    """Return how the SDK's clients are set up: on this session, and never trying again by themselves."""
    transport = CautiousTransport(session=session, connection_timeout=timeout / 2, read_timeout=timeout * 0.9)
    return {
        "transport": transport,
        "api_version": API_VERSION,
        "retry_total": 0,
        "permit_redirects": False,
        "http_logging_level": logging.DEBUG,
    }
