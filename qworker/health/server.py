"""Answers probes and Prometheus over HTTP, by aiohttp."""

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from aiohttp import web

from qworker._distribution import install
from qworker.errors import ConfigurationError

NO_METRICS: Final = f"there are no metrics: prometheus-client is not installed: {install('metrics')}"
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
    app = web.Application()
    app.router.add_get("/live", _verdict(target.live))
    app.router.add_get("/ready", _verdict(target.ready))
    app.router.add_get("/metrics", _metrics(target))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_WITHIN)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


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


_Handler = Callable[[web.Request], Coroutine[Any, Any, web.Response]]


def _verdict(ask: Callable[[], str | None]) -> _Handler:
    async def answer(_: web.Request) -> web.Response:
        reason = ask()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    return answer


def _metrics(target: Target) -> _Handler:
    async def answer(request: web.Request) -> web.Response:
        found = target.metrics(request.headers.get("Accept", ""))
        if found is None:
            return web.Response(text=f"{NO_METRICS}\n", status=501)
        body, content_type = found
        return web.Response(body=body, headers={"Content-Type": content_type})

    return answer
