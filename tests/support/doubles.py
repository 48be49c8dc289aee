"""A queue and a broker that do what a test tells them, and remember what they were asked."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from qworker.brokers.base import Broker, Message, PeekedMessage, Queue, Right, Urgency
from qworker.errors import QueueNotFound

Answer = BaseException | Callable[[], Awaitable[Any]] | Any
"""Of a call: raised, awaited, or returned."""


class ScriptedQueue(Queue):
    """Each call takes the next of the answers it was given, or the plainest there is."""

    def __init__(self, name: str = "work") -> None:
        self.name = name
        self.calls: list[tuple[Any, ...]] = []
        self.admissions: list[tuple[Urgency, float | None]] = []
        self.limit: float | None = None
        self.puts_now = False
        self._answers: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self._receipts = count(2)

    def will(self, method: str, *answers: Answer) -> None:
        self._answers[method].extend(answers)

    def called(self, method: str) -> list[list[Any]]:
        return [arguments for name, *arguments in self.calls if name == method]

    @property
    def rate(self) -> float | None:
        return self.limit

    async def admit(self, urgency: Urgency, *, within: float | None = None) -> None:
        self.admissions.append((urgency, within))
        await self._take("admit", otherwise=None)

    async def put(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
        return str(await self._answer("put", body, delay, ttl, otherwise="m1"))

    def put_now(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str | None:
        if not self.puts_now:
            return None
        self.calls.append(("put_now", body, delay, ttl))
        answers = self._answers["put_now"]
        answer = answers.popleft() if answers else "m1"
        if isinstance(answer, BaseException):
            raise answer
        return str(answer)

    async def put_many(self, bodies: Sequence[str], *, delay: int = 0, ttl: int | None = None) -> None:
        await self._answer("put_many", [*bodies], delay, ttl, otherwise=None)

    async def get(self, limit: int = 1, *, visibility: int) -> list[Message]:
        messages: list[Message] = await self._answer("get", limit, visibility, otherwise=[])
        return messages

    async def wait(self, seconds: float) -> None:
        await self._answer("wait", seconds, otherwise=lambda: asyncio.sleep(seconds))

    async def peek(self, limit: int = 1) -> list[PeekedMessage]:
        raise NotImplementedError

    async def update(self, message_id: str, receipt: str, *, visibility: int, body: str | None = None) -> str:
        receipt_then = f"r{next(self._receipts)}"
        return str(await self._answer("update", message_id, receipt, visibility, body, otherwise=receipt_then))

    async def delete(self, message_id: str, receipt: str) -> None:
        await self._answer("delete", message_id, receipt, otherwise=None)

    async def clear(self) -> None:
        raise NotImplementedError

    async def count(self) -> int:
        raise NotImplementedError

    async def check_right(self, right: Right) -> None:
        await self._answer("check_right", right, otherwise=None)

    async def _answer(self, method: str, *arguments: Any, otherwise: Any) -> Any:
        self.calls.append((method, *arguments))
        return await self._take(method, otherwise=otherwise)

    async def _take(self, method: str, *, otherwise: Any) -> Any:
        answers = self._answers[method]
        answer = answers.popleft() if answers else otherwise
        if isinstance(answer, BaseException):
            raise answer
        return await answer() if callable(answer) else answer


class ScriptedBroker(Broker):
    """Its queues are scripted ones, made when they are asked for."""

    label, poll_max, shared = "scripted", 0.01, False

    def __init__(self) -> None:
        self.queues: dict[str, ScriptedQueue] = {}
        self.created: list[str] = []
        self.create_answers: deque[Exception | None] = deque()
        self.closed = 0

    def queue(self, name: str) -> ScriptedQueue:
        return self.queues.setdefault(name, ScriptedQueue(name))

    async def create_queue(self, name: str) -> bool:
        self.created.append(name)
        if self.create_answers and (answer := self.create_answers.popleft()) is not None:
            raise answer
        return True

    async def delete_queue(self, name: str) -> None:
        raise QueueNotFound(name)

    async def list_queues(self, prefix: str = "") -> list[str]:
        return sorted(self.queues)

    async def aclose(self) -> None:
        self.closed += 1


def message(body: str = '{"task":"t"}', *, number: int = 1, dequeue_count: int = 1) -> Message:
    now = datetime.now(UTC)
    return Message(f"m{number}", "r1", dequeue_count, body, now, None, now)
