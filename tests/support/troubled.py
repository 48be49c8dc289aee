"""Workers inside the test, on a broker that makes trouble: SQLite with a layer in between, Azurite behind the proxy."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest

from azurite_server import Azurite
from fault_actions import Answer, Delay, DropAnswer
from fault_proxy import FaultProxy
from fault_rules import Rule
from qworker import INJECTED, App, Backoff, Context
from qworker.brokers.azure.broker import AzureBroker
from qworker.brokers.base import Broker, Message, Queue
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.brokers.wrapped import WrappedBroker, WrappedQueue
from qworker.engine.worker import Worker
from qworker.errors import AnswerLost, BrokerBusy, InvalidEnvelope
from qworker.settings import Settings
from qworker.testing import EventRecorder
from qworker.wire.envelope import decode


class Trouble(Protocol):
    """What can go wrong with an operation, the same on every broker; *times*: how often, None for until it ends."""

    def busy(self, on: str, times: int | None = None) -> Callable[[], None]:
        """Refuse; return what ends it."""

    def lose_answer(self, on: str, times: int | None = None) -> Callable[[], None]:
        """Do it, and lose the answer."""

    def delay_answer(self, on: str, seconds: float, times: int | None = None) -> Callable[[], None]:
        """Do it, and hold the answer back."""


@dataclass
class Call:
    """One call that a worker made, and what came of it."""

    operation: str
    message: str
    receipt: str
    at: float
    ended: float = 0.0
    given: str = ""
    """The new receipt."""
    error: BaseException | None = None


@dataclass(eq=False)
class _Layer:
    """Stands between workers and their broker: notes each call, and does to it what it was told."""

    calls: list[Call] = field(default_factory=list)
    updates: defaultdict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    """The same of one kind, by message."""
    messages: dict[str, str] = field(default_factory=dict)
    """The id of the message that brought each job, by the job's."""
    _rules: list[tuple[str, list[None] | None, Callable[[Callable[[], Any]], Any]]] = field(default_factory=list)

    def of(self, operation: str) -> list[Call]:
        return [call for call in tuple(self.calls) if call.operation == operation]

    async def call(self, operation: str, act: Callable[[], Any], message: str = "", receipt: str = "") -> Any:
        call = Call(operation, message, receipt, time.monotonic())
        self.calls.append(call)
        if operation == "update":
            self.updates[message].append(call)
        try:
            result = await self._treated(operation, act)
        except BaseException as error:
            call.error = error
            raise
        finally:
            call.ended = time.monotonic()
        call.given = result if isinstance(result, str) else ""
        return result

    async def _treated(self, operation: str, act: Callable[[], Any]) -> Any:
        for on, left, treat in self._rules:
            if on == operation and (left is None or left):
                if left:
                    left.pop()
                return await treat(act)
        return await act()

    def _add(self, on: str, times: int | None, treat: Callable[[Callable[[], Any]], Any]) -> Callable[[], None]:
        rule = (on, None if times is None else [None] * times, treat)
        self._rules.append(rule)
        return lambda: self._rules.remove(rule)

    def busy(self, on: str, times: int | None = None) -> Callable[[], None]:
        async def refuse(_: Callable[[], Any]) -> None:
            raise BrokerBusy("injected")

        return self._add(on, times, refuse)

    def lose_answer(self, on: str, times: int | None = None) -> Callable[[], None]:
        async def lose(act: Callable[[], Any]) -> None:
            await act()
            raise AnswerLost("injected")

        return self._add(on, times, lose)

    def delay_answer(self, on: str, seconds: float, times: int | None = None) -> Callable[[], None]:
        async def delay(act: Callable[[], Any]) -> Any:
            result = await act()
            await asyncio.sleep(seconds)
            return result

        return self._add(on, times, delay)


class _ProxyTrouble:
    """The same, made by the proxy."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    def _add(self, rule: Rule) -> Callable[[], None]:
        added = self._proxy.add(rule)
        return lambda: self._proxy.remove(added)

    def busy(self, on: str, times: int | None = None) -> Callable[[], None]:
        return self._add(Rule(Answer(503, "ServerBusy"), on=on, times=times))

    def lose_answer(self, on: str, times: int | None = None) -> Callable[[], None]:
        return self._add(Rule(DropAnswer(), on=on, times=times))

    def delay_answer(self, on: str, seconds: float, times: int | None = None) -> Callable[[], None]:
        return self._add(Rule(Delay(seconds, before=False), on=on, times=times))


class _LayeredQueue(WrappedQueue):
    """Polled as any other broker's would be, and asked for no rights: neither is a call that goes wrong here."""

    wait = Queue.wait
    check_right = Queue.check_right

    def __init__(self, queue: Queue, layer: _Layer) -> None:
        super().__init__(queue)
        self._layer = layer

    async def put(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
        return str(await self._layer.call("put", lambda: self._queue.put(body, delay=delay, ttl=ttl)))

    async def get(self, limit: int = 1, *, visibility: int) -> list[Message]:
        got: list[Message] = await self._layer.call("get", lambda: self._queue.get(limit, visibility=visibility))
        for message in got:
            with suppress(InvalidEnvelope):
                self._layer.messages[decode(message.body, message_id=message.id).id] = message.id
        return got

    async def update(self, message_id: str, receipt: str, *, visibility: int, body: str | None = None) -> str:
        def update() -> Any:
            return self._queue.update(message_id, receipt, visibility=visibility, body=body)

        return str(await self._layer.call("update", update, message_id, receipt))

    async def delete(self, message_id: str, receipt: str) -> None:
        await self._layer.call("delete", lambda: self._queue.delete(message_id, receipt), message_id, receipt)


class _LayeredBroker(WrappedBroker):
    def __init__(self, broker: Broker, layer: _Layer) -> None:
        super().__init__(broker)
        self._layer = layer

    def queue(self, name: str) -> Queue:
        return _LayeredQueue(self._broker.queue(name), self._layer)


@dataclass
class Execution:
    """What a handler saw."""

    n: int
    attempt: int
    began: float
    ended: float = 0.0
    message: str | None = None
    """The id of the message that brought its job, if a troubled worker has it."""
    cancelled: bool = False
    lease_lost: bool = False


class Bench:
    """A queue, workers on it whose broker makes trouble, and others whose broker does not."""

    def __init__(self, troubled: Broker, clean: Broker, trouble: Trouble | None = None) -> None:
        self._layer = _Layer()
        self.trouble: Trouble = trouble or self._layer
        self.queue = f"q-{uuid4().hex[:12]}"
        self.clean = clean
        self.lease = 2 if isinstance(clean, SqliteBroker) else 4
        """Seconds; a renewal gets a sixth of them, and Azurite on a busy machine may take that."""
        self.troubled = _LayeredBroker(troubled, self._layer)
        self.executions: list[Execution] = []
        app = App(broker=clean)
        self._app = app
        bench = self

        @app.task(name="rest", max_attempts=5, backoff=Backoff(base=0))
        async def rest(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
            with bench._noted(n, ctx):
                await asyncio.sleep(seconds)

        @app.task(name="rest_into_renewal", max_attempts=5, backoff=Backoff(base=0))
        async def rest_into_renewal(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
            """End so long after its lease's renewal has begun."""
            with bench._noted(n, ctx) as execution:
                while not bench.renewals(execution):  # noqa: ASYNC110 — as above
                    await asyncio.sleep(0.01)
                await asyncio.sleep(seconds)

        self.rest = rest.using(queue=self.queue)
        self.rest_into_renewal = rest_into_renewal.using(queue=self.queue)

    @contextmanager
    def _noted(self, n: int, ctx: Context) -> Iterator[Execution]:
        execution = Execution(n, ctx.attempt, time.monotonic(), message=self._layer.messages.get(ctx.job_id))
        self.executions.append(execution)
        try:
            yield execution
        except asyncio.CancelledError:
            execution.cancelled, execution.lease_lost = True, ctx.lease_lost
            raise
        finally:
            execution.ended = time.monotonic()

    def calls(self, operation: str) -> list[Call]:
        """Return what the troubled workers asked for."""
        return self._layer.of(operation)

    def renewals(self, execution: Execution) -> list[Call]:
        """Return those of the lease that it ran under."""
        return self._layer.updates[execution.message or ""]

    def refused(self, operation: str) -> list[Call]:
        """Return what they asked for and didn't get."""
        return [call for call in self.calls(operation) if call.error is not None]

    @asynccontextmanager
    async def worker(self, *, troubled: bool = True, **settings: Any) -> AsyncIterator[EventRecorder]:
        """Run a worker for the block."""
        recorder = EventRecorder()
        plain = {"lease": self.lease, "concurrency": 4, "poll_max": 0.1, "grace": 1, "queues": {self.queue: 1}}
        broker = self.troubled if troubled else self.clean
        async with Worker(broker, self._app._tasks, Settings.load(plain | settings), listeners=[recorder]):
            yield recorder

    async def remaining(self) -> int:
        return await self.clean.queue(self.queue).count()

    async def aclose(self) -> None:
        await self.troubled.aclose()
        await self.clean.aclose()
        await self._app.aclose()


@pytest.fixture(params=["sqlite", "azure"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench on each broker."""
    if request.param == "sqlite":
        file = tmp_path / "jobs.db"
        bench = Bench(SqliteBroker(file), SqliteBroker(file))
    else:
        bench = azure_bench(request.getfixturevalue("fault_proxy"), request.getfixturevalue("azurite"))
    await bench.clean.create_queue(bench.queue)
    yield bench
    await bench.aclose()


@pytest.fixture
async def proxied_bench(fault_proxy: FaultProxy, azurite: Azurite) -> AsyncIterator[Bench]:
    """A bench on Azurite, for what only a network can do."""
    bench = azure_bench(fault_proxy, azurite)
    await bench.clean.create_queue(bench.queue)
    yield bench
    await bench.aclose()


def azure_bench(proxy: FaultProxy, azurite: Azurite, call_timeout: float = 10.0) -> Bench:
    """Return a bench whose troubled workers go through the proxy."""
    behind = AzureBroker.from_connection_string(proxy.connection_string, call_timeout=call_timeout)
    direct = AzureBroker.from_connection_string(azurite.connection_string)
    return Bench(behind, direct, _ProxyTrouble(proxy))
