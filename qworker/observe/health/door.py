"""Lets connections in: so many at once, each for so long, whoever is at the other end."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from qworker.observe.health.seldom import Seldom
from qworker.system.descriptors import EXHAUSTED

MOST: Final = 64
"""Connections at once: probes and scrapers need a few. The next one takes the place of the oldest."""
ASK_WITHIN: Final = 5.0
"""Seconds in which a connection has to bring its whole request."""
ANSWER_WITHIN: Final = 5.0
"""Seconds more in which it has to take the answer."""
_REST: Final = 1.0
"""Seconds to wait while there is no descriptor for another connection."""


@dataclass(slots=True, eq=False)
class _Guest:
    transport: asyncio.Transport
    timer: asyncio.TimerHandle


class Door:
    """Accepts on one listening socket, and closes what stays for too long. Used on one event loop."""

    def __init__(self, listener: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        """Take what makes the protocol of a connection, which has to call `entered`, `asked` and `left`."""
        self._listener = listener
        self._make = make
        self._guests: dict[asyncio.BaseProtocol, _Guest] = {}
        self._spare: int | None = None
        """A descriptor that is let go of where there is no other: a probe has to be answered then, too."""
        self._closed = Seldom(
            f"the health port closed a connection: it takes {MOST} at once, each with one request in {ASK_WITHIN:g} s"
        )
        self._full = Seldom("the health port can't take a connection")

    async def run(self) -> None:
        """Accept until cancelled; then close all there are."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        try:
            while True:
                self._keep_spare()
                if (connection := await self._accept(loop)) is not None:
                    await self._let_in(loop, connection)
        finally:
            self._use_spare()
            for guest in self._guests.values():
                guest.timer.cancel()
                guest.transport.abort()
            self._guests.clear()
            self._closed.flush()

    def entered(self, protocol: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
        """Take note of a connection, which is in the place of the oldest if there are too many."""
        while len(self._guests) >= MOST:
            self._throw_out(next(iter(self._guests)))
        timer = asyncio.get_running_loop().call_later(ASK_WITHIN, self._throw_out, protocol)
        self._guests[protocol] = _Guest(transport, timer)

    def asked(self, protocol: asyncio.BaseProtocol) -> None:
        """Take note that its request is there."""
        if (guest := self._guests.get(protocol)) is not None:
            guest.timer.cancel()
            guest.timer = asyncio.get_running_loop().call_later(ANSWER_WITHIN, self._throw_out, protocol)

    def left(self, protocol: asyncio.BaseProtocol) -> None:
        """Take note that it is closed."""
        if (guest := self._guests.pop(protocol, None)) is not None:
            guest.timer.cancel()

    def _throw_out(self, protocol: asyncio.BaseProtocol) -> None:
        if (guest := self._guests.pop(protocol, None)) is not None:
            guest.timer.cancel()
            guest.transport.abort()
            self._closed.note()

    async def _accept(self, loop: asyncio.AbstractEventLoop) -> socket.socket | None:
        try:
            return (await loop.sock_accept(self._listener))[0]
        except OSError as error:
            if error.errno not in EXHAUSTED:
                return None  # the other end was gone before it was let in
            self._full.note(error.strerror)
        if self._use_spare():
            with suppress(OSError):
                return self._listener.accept()[0]
        await asyncio.sleep(_REST)
        return None

    async def _let_in(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await loop.connect_accepted_socket(self._make, connection)
        except OSError:
            connection.close()

    def _keep_spare(self) -> None:
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)

    def _use_spare(self) -> bool:
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        return True
