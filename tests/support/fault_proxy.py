"""A proxy in front of Azurite that makes trouble, and knows what was asked.

It lives on a thread and event loop of its own; everything public may be used from any thread.
"""

import asyncio
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from azurite_server import Azurite, connection_string
from fault_actions import error_response
from fault_exchange import LOST, Client, Exchange, Seen, Upstream
from fault_report import Fault
from fault_rules import Rule
from http_messages import Response, header, read_head, read_request

Note = Callable[[dict[str, Any]], None] | Path
_BURST_SECONDS: Final = 0.1
_LOOK_AT_IDLE_SECONDS: Final = 0.02


class TokenBucket:
    """Lets so many requests a second through, a tenth of them at once."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._capacity = max(1.0, rate * _BURST_SECONDS)
        self._tokens = self._capacity
        self._at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class FaultProxy:
    """Passes requests on to a local port, except as its rules and modes say."""

    def __init__(self, upstream: int, seed: int = 0) -> None:
        self.upstream = upstream
        self.seed = seed
        """Of all that is random; rules take it when they are added."""
        self.retry_after: float | None = None
        """Seconds, said to those that are throttled."""
        self.stale_receipt_404 = False
        """Answer a receipt that is not the newest as the real service does: MessageNotFound."""
        self.idle_limit: float | None = None
        """Seconds after which connections without a request under way are closed."""
        self.note: Note | None = None
        """Gets a record of each fault that took effect; a path gets it as a line of JSON."""
        self.throttled = 0
        self.hung_up = 0
        """Connections closed because they were idle."""
        self.accepted = 0
        """Connections, ever."""
        self.errors: list[BaseException] = []
        """What went wrong in the proxy itself, or between it and the service."""
        self.port = 0
        self._bucket: TokenBucket | None = None
        self._rules: tuple[Rule, ...] = ()
        self._added = 0
        self._requests: Counter[str] = Counter()
        self._log: list[Seen] = []
        self._clients: set[Client] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself would forget them
        self._server: asyncio.Server | None = None
        self._place = socket.socket()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")

    def start(self) -> None:
        """Listen, on a port that stays its own until it is closed."""
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = self._place.getsockname()[1]
        self._thread.start()
        self._run(self._listen())
        self._loop.call_soon_threadsafe(self._start, self._hang_up_idle())

    def close(self) -> None:
        """End all that is under way."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._place.close()

    @property
    def connection_string(self) -> str:
        return connection_string(self.port)

    @property
    def requests(self) -> Counter[str]:
        """How often each operation was asked for until now, whatever became of it."""
        return Counter(self._requests)

    @property
    def log(self) -> list[Seen]:
        """All requests until now, in order of arrival."""
        return list(self._log)

    def seen(self, operation: str, queue: str | None = None) -> list[Seen]:
        """Return what the log has of one operation."""
        return [seen for seen in self.log if seen.operation == operation and queue in (None, seen.queue)]

    @property
    def thread_id(self) -> int:
        """Its thread's number in the kernel; 0 before it runs."""
        return self._thread.native_id or 0

    @property
    def open_connections(self) -> int:
        return len(self._clients)

    @property
    def throttle(self) -> float | None:
        """Requests a second, over which the service is busy."""
        return self._bucket.rate if self._bucket else None

    @throttle.setter
    def throttle(self, rate: float | None) -> None:
        self._bucket = None if rate is None else TokenBucket(rate)

    def add(self, rule: Rule) -> Rule:
        """Have a rule apply from now on; of several that strike a request, the one added first does."""
        rule.random = Random(f"{self.seed}/{self._added}")
        self._added += 1
        self._rules = (*self._rules, rule)
        return rule

    def remove(self, rule: Rule) -> None:
        self._rules = tuple(other for other in self._rules if other is not rule)

    def clear_rules(self) -> None:
        self._rules = ()

    def refuse(self) -> None:
        """Refuse new connections and reset those there are."""
        self._run(self._stop_listening())
        self._run(self._reset())

    def accept(self) -> None:
        """Accept connections again."""
        self._run(self._listen())

    @contextmanager
    def refusing(self) -> Iterator[None]:
        self.refuse()
        try:
            yield
        finally:
            self.accept()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_port=True)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _reset(self) -> None:
        for client in self._clients:
            if client.exchange is not None and not client.gone and not client.exchange.seen.action:
                client.exchange.seen.action = "Refuse"
                self._record(client.exchange.seen)
            client.drop("RST")

    async def _end(self) -> None:
        await self._stop_listening()
        for client in self._clients:
            client.drop("RST")
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(reader, writer)
        self.accepted += 1
        if self._server is None:
            client.drop("RST")
        else:
            self._start(self._serve(client))

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    async def _serve(self, client: Client) -> None:
        upstream = Upstream(self.upstream)
        self._clients.add(client)
        try:
            while not client.gone and (head := await _next_head(client)):
                client.idle_since = None
                await self._handle(head, client, upstream)
                client.exchange, client.idle_since = None, time.monotonic()
        finally:
            await upstream.close()
            await client.close()
            self._clients.discard(client)

    async def _handle(self, head: bytes, client: Client, upstream: Upstream) -> None:
        try:
            request = await read_request(head, client.reader)
        except LOST:
            return  # given up by the client in the middle
        seen = Seen(time.monotonic(), request)
        client.exchange = exchange = Exchange(seen, client, upstream, self._revise)
        self._log.append(seen)
        self._requests[request.operation] += 1
        try:
            await self._treat(exchange)
        except LOST:
            client.drop("RST")
            raise

    async def _treat(self, exchange: Exchange) -> None:
        struck = self._rule_for(exchange)
        if struck is not None:
            await struck.action.apply(exchange)
        elif self._bucket is not None and not self._bucket.take():
            self.throttled += 1
            exchange.seen.action = "Throttle"
            wait = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after:g}"}
            await exchange.answer(error_response(503, "ServerBusy", wait))
        else:
            await exchange.answer(await exchange.forward())

    def _rule_for(self, exchange: Exchange) -> Rule | None:
        striking = [rule for rule in self._rules if rule.strikes(exchange.request)]
        if not striking:
            return None
        rule = striking[0]
        rule.choose()

        def count(seen: Seen) -> None:
            rule.applied += 1
            self._record(seen)

        exchange.seen.action = type(rule.action).__name__
        exchange.random, exchange.on_effect = rule.random, count
        return rule

    def _revise(self, response: Response) -> Response:
        code = header(response.headers, "x-ms-error-code")
        if self.stale_receipt_404 and code == "PopReceiptMismatch":
            return error_response(404, "MessageNotFound", {}, "The specified message does not exist.")
        return response

    def _record(self, seen: Seen) -> None:
        """Write a fault down. A put's message has an id once the service has it; a get's are all in `messages`."""
        if self.note is None:
            return
        put = seen.ids[0] if seen.operation == "put" and seen.ids else None
        line = {
            "what": "fault",
            "action": seen.action,
            "operation": seen.operation,
            "queue": seen.queue,
            "message": seen.message_id or put,
            "messages": seen.ids,
            "upstream": seen.upstream,
            "at": time.monotonic(),
        }
        if isinstance(self.note, Path):
            _append(self.note, line)
        else:
            self.note(line)

    async def _hang_up_idle(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AT_IDLE_SECONDS)
            if self.idle_limit is not None:
                self._hang_up(before=time.monotonic() - self.idle_limit)

    def _hang_up(self, before: float) -> None:
        for client in self._clients:
            if client.idle_since is not None and client.idle_since <= before and not client.gone:
                self.hung_up += 1
                client.drop("FIN")


async def _next_head(client: Client) -> bytes:
    try:
        return await read_head(client.reader)
    except ConnectionError:
        return b""


def _append(file: Path, line: Mapping[str, Any]) -> None:
    descriptor = os.open(file, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


@pytest.fixture
def fault_proxy(azurite: Azurite, fault: Fault) -> Iterator[FaultProxy]:
    """A proxy in front of Azurite with the test's seed; that it did nothing unasked is checked at the end."""
    proxy = FaultProxy(azurite.port, fault.seed)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
    assert [] == proxy.errors
