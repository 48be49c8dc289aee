"""What talks to Azure Queue Storage: the connections of one event loop, which end when that does."""

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from azure.storage.queue.aio import QueueClient, QueueServiceClient

from qworker.brokers.azure.messages import MessageRequests, new_pipeline
from qworker.brokers.azure.pool import Pool
from qworker.brokers.azure.transport import BareTransport, CautiousTransport, SignInTransport
from qworker.system.inheritance import leave_to_parent

API_VERSION: Final = "2025-11-05"
"""The newest version of the protocol that emulators and sovereign clouds are known to take."""


_A_MOMENT: Final = 0.01


class Way:
    """How to come to a service: the pool, and the proxy in between if there is one."""

    def __init__(self, pool: Pool, proxy: dict[str, Any]) -> None:
        self._pool, self._proxy = pool, proxy

    def options(self) -> dict[str, Any]:
        """Return how the SDK's clients are set up: to send by this way, and never to try again by themselves."""
        timeout = self._pool.call_timeout
        return {
            "transport": CautiousTransport(
                self._pool.session, self._proxy, connection_timeout=timeout / 2, read_timeout=timeout * 0.9
            ),
            "api_version": API_VERSION,
            "retry_total": 0,
            "permit_redirects": False,
            "http_logging_level": logging.DEBUG,
        }

    def of_messages(self) -> BareTransport:
        """Return what sends the requests of azure_messages."""
        return BareTransport(self._pool.session, self._proxy)

    def to_sign_in(self) -> SignInTransport:
        """Return what a credential sends by: to other hosts, and what it sends is no request to a queue."""
        return SignInTransport(self._pool.new_session("https"))


OpenService = Callable[[Way], QueueServiceClient]


class Connections:
    """What one event loop needs to talk to the service: a pool of connections, and clients that share it."""

    def __init__(self, open_service: OpenService, scheme: str, proxy: dict[str, Any], call_timeout: float) -> None:
        self.calls = 0
        """How many requests are under way."""
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.current_thread()
        self._pool = Pool(scheme, call_timeout)
        way = Way(self._pool, proxy)
        self.service = open_service(way)
        self._pipeline = new_pipeline(self.service, way.of_messages())
        self._queues: dict[str, QueueClient] = {}
        self._messages: dict[str, MessageRequests] = {}
        self._end = self._at_the_end()
        leave_to_parent(self)
        if not getattr(self._loop, "_asyncgens_shutdown_called", False):
            with suppress(StopIteration):
                anext(self._end).send(None)

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

    def descriptors(self) -> Iterable[int]:
        """Return what is open of it; see Opened."""
        return self._pool.descriptors()

    def are_left_behind(self) -> bool:
        """Say whether their event loop is gone: it is closed, or its thread has ended or runs another."""
        if self._loop.is_closed():
            return True
        if self.calls or self._loop.is_running():
            return False
        return self._thread is threading.current_thread() or not self._thread.is_alive()

    async def close(self) -> None:
        """Close the pool, and the credential if there is one."""
        await self._end.aclose()  # which does it, if it has begun
        if not self.closed:
            await self._close()

    def abandon(self) -> None:
        """Do it without the event loop, which is gone."""
        self._pool.abandon()

    async def _at_the_end(self) -> AsyncGenerator[None, None]:
        """Wait for the end of the event loop, which ends its generators first: it tells of that in no other way."""
        try:
            yield
        finally:
            self.closed = True
            while self.calls:  # noqa: ASYNC110 — of other generators that end now; each is bounded in time
                await asyncio.sleep(_A_MOMENT)
            await self._close()

    async def _close(self) -> None:
        self.closed = True
        await self.service.close()
        close_credential = getattr(self.service.credential, "close", None)
        if close_credential is not None:
            await close_credential()
        await self._pool.close()


class ByLoop(dict[asyncio.AbstractEventLoop, Connections]):
    """Each event loop's connections. No lock guards it, which a fork could leave locked: a loop has one thread."""

    def __init__(self, owner: object) -> None:
        super().__init__()
        # A copy, as the owner refers to this; it is called when Python ends, too.
        weakref.finalize(owner, _close_all, self, os.getpid())

    def abandon_those_left_behind(self) -> None:
        """Close what belongs to event loops that are gone."""
        for loop, connections in tuple(self.items()):
            if connections.are_left_behind() and self.pop(loop, None) is not None:
                connections.abandon()


def _close_all(connections: ByLoop, pid: int) -> None:
    """Close what nobody will use: its owner is gone, or Python ends. A child leaves it to the parent."""
    if os.getpid() != pid:
        return
    for loop, each in connections.items():
        if not loop.is_running():
            each.abandon()
        elif not each.closed:
            asyncio.run_coroutine_threadsafe(each.close(), loop)
