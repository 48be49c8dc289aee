"""Answers probes and Prometheus over HTTP, by aiohttp."""

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, cast

from aiohttp import web

from qworker._distribution import install
from qworker.errors import ConfigurationError
from qworker.observe.health.door import Door
from qworker.observe.health.seldom import Seldom

NO_METRICS: Final = f"there are no metrics: prometheus-client is not installed: {install('metrics')}"
_LONGEST_LINE: Final = 4_096
"""Bytes of a request's first line, and of a header."""
_SERVERS_FAULT: Final = 500
_STOP_WITHIN: Final = 2.0
"""Seconds that the server gets to end its answers."""


class Target(Protocol):
    """What is asked about; called on the server's event loop, and not to be waited for."""

    def live(self) -> str | None:
        """Return why it should be restarted, if it should."""

    def ready(self) -> str | None:
        """Return why it can't do its work, if it can't."""

    def metrics(self, accept: str) -> tuple[bytes, str] | None:
        """Return metrics in a form that is accepted, and which form; None if there can't be any here."""


def listen(port: int) -> socket.socket:
    """Take a port of this machine, or any that is free for 0. Raises ConfigurationError."""
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=128
        )
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT and both:  # a kernel that was told to do without IPv6
            return socket.create_server(("", port))
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(f"health_port: port {port} can't be listened on: {reason}") from None


@asynccontextmanager
async def serving(target: Target, listener: socket.socket) -> AsyncIterator[None]:
    """Answer on the running event loop, within the block."""
    server = _Server(_answers(target), listener)
    accepting = asyncio.create_task(server.door.run(), name="qworker-health-door")
    try:
        yield
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        listener.close()
        await server.shutdown(_STOP_WITHIN)


class _Server(web.Server):
    """Makes aiohttp's connections, each for one request."""

    def __init__(self, answer: "_Handler", listener: socket.socket) -> None:
        super().__init__(
            answer,
            access_log=None,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
            lingering_time=0,
            auto_decompress=False,
        )
        self.door = Door(listener, self)
        self.failed = Seldom("the health port failed to answer")

    def __call__(self) -> "_Connection":
        return _Connection(self, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.door.entered(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.door.left(handler)


class _Connection(web.RequestHandler):
    """Answers what is no sound request without a word in the log, and without its sender's words in the answer."""

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self.server = server

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 — aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 — the same
    ) -> web.StreamResponse:
        if status >= _SERVERS_FAULT:
            self.server.failed.note(type(exc).__name__)
        return _plain(status, "the health port can't read that" if status < _SERVERS_FAULT else "it failed")


class ServerThread(threading.Thread):
    """Answers on a thread and an event loop of its own, so that no handler can hold it up."""

    def __init__(self, target: Target, listener: socket.socket) -> None:
        super().__init__(name="qworker-health", daemon=True)
        self._target = target
        self._listener = listener
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()

    def run(self) -> None:
        """Answer until it is stopped."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(RuntimeError):  # its loop has closed
            self._loop.call_soon_threadsafe(self._stopped.set)
        self.join(_STOP_WITHIN)

    async def _serve(self) -> None:
        async with serving(self._target, self._listener):
            await self._stopped.wait()


_Handler = Callable[[web.BaseRequest], Coroutine[Any, Any, web.StreamResponse]]


def _answers(target: Target) -> _Handler:
    verdicts = {"/live": target.live, "/ready": target.ready}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        cast(_Connection, request.protocol).server.door.asked(request.protocol)
        if request.method not in {"GET", "HEAD"}:
            return _plain(405, "only GET is answered")
        if request.path in verdicts:
            reason = verdicts[request.path]()
            return _plain(503 if reason else 200, reason or "ok")
        return _metrics(target, request) if request.path == "/metrics" else _plain(404, "there is nothing here")

    return answer


def _metrics(target: Target, request: web.BaseRequest) -> web.StreamResponse:
    found = target.metrics(request.headers.get("Accept", ""))
    if found is None:
        return _plain(501, NO_METRICS)
    body, content_type = found
    return _closing(web.Response(body=body, headers={"Content-Type": content_type}))


def _plain(status: int, text: str) -> web.StreamResponse:
    return _closing(web.Response(text=f"{text}\n", status=status))


def _closing(response: web.StreamResponse) -> web.StreamResponse:
    """Have no second request wait behind this one, and say of the server no more than its name."""
    response.headers["Server"] = "qworker"
    response.force_close()
    return response
