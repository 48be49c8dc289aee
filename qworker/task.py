"""A task: a registered function with its options, and the ways to enqueue a call of it."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    TypeVar,
)

from qworker._queue_names import DEFAULT_QUEUE, check_task_queue
from qworker.job import Job
from qworker.middleware import Middleware
from qworker.produce.producer import Call, P, Producer, Sender, Sending, bundle_of
from qworker.registration.callables import middleware_of
from qworker.registration.names import check_name
from qworker.registration.options import Executor, TaskOptions, executor_for, policy_of, state_type_for, timeout_of
from qworker.registration.surroundings import Surroundings
from qworker.registration.verbs import missing
from qworker.retry import Backoff, Delay, ErrorTypes
from qworker.wire.signature import Signature
from qworker.wire.states import States

R = TypeVar("R")


class Task(Generic[P, R]):
    """A function that can be enqueued. Calling it is calling the function, here and now."""

    def __init__(  # noqa: PLR0913 — each option of @task has its own name
        self,
        function: Callable[P, R],
        sender: Sender,
        *,
        name: str,
        queue: str = DEFAULT_QUEUE,
        max_attempts: int = 5,
        backoff: Backoff | None = None,
        timeout: Delay | None = None,
        executor: Executor | None = None,
        state: Any = None,
        middleware: Iterable[Middleware] = (),
        bundle: int = 1,
        retry_on: ErrorTypes | None = None,
        give_up_on: ErrorTypes | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        functools.update_wrapper(self, function, updated=())  # another library's "enqueue" must not hide this one
        self.function = function
        self.made_in = ""
        """The module that made it a task, if one did: not always the function's own."""
        self.name = check_name(name)
        self.queue = check_task_queue(queue)
        self.signature = Signature(name, function)
        self.states = States(name, state_type_for(name, state, self.signature.state_types))
        self.options = TaskOptions(
            policy=policy_of(f"task {name}", max_attempts, backoff, retry_on, give_up_on),
            timeout=timeout_of(f"task {name}", timeout),
            executor=executor_for(name, function, executor),
            middleware=middleware_of(middleware, f"task {name}: "),
        )
        self.surroundings = surroundings or Surroundings()
        """What its App has around it where it is a plain function."""
        sending = Sending(self.queue, bundle=bundle_of(f"task {name}", bundle))
        self._producer: Producer[P] = Producer(name, self.signature, sender, sending)

    @property
    def bundle(self) -> int:
        """How many of its jobs `enqueue_many` may put into one message."""
        return self._producer.bundle

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself; nothing is enqueued."""
        return self.function(*args, **kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue a call and return it once the broker has accepted it.

        Works anywhere: in scripts, threads, after a fork, and inside a running event loop, which it blocks
        for the time of one put; there, ``await aenqueue(…)`` doesn't.

        Raises InvalidArguments and MessageTooLarge, with nothing sent; EnqueueUncertain if the broker's answer was
        lost; other BrokerErrors if the job was not accepted.
        """
        return self._producer.enqueue(*args, **kwargs)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue a call without blocking the event loop; see enqueue."""
        return await self._producer.aenqueue(*args, **kwargs)

    def enqueue_many(self, calls: Iterable[Call]) -> list[Job]:
        """Enqueue many calls, each a tuple of positional or a mapping of keyword arguments.

        All are validated before the first is sent. With the task's option *bundle*, or ``using(bundle=…)``, a message
        carries as many jobs as that, and 64 KiB, allow.

        Raises InvalidArguments and MessageTooLarge, with nothing sent, and PartlyEnqueued if the broker accepted
        only some.
        """
        return self._producer.enqueue_many(calls)

    async def aenqueue_many(self, calls: Iterable[Call]) -> list[Job]:
        """Enqueue many calls without blocking the event loop; see enqueue_many."""
        return await self._producer.aenqueue_many(calls)

    def using(
        self,
        *,
        delay: Delay | None = None,
        queue: str | None = None,
        ttl: Delay | None = None,
        headers: Mapping[str, str] | None = None,
        bundle: int | None = None,
    ) -> Producer[P]:
        """Return a way to enqueue this task with other options than its own.

        *delay*: not before this time span (up to 7 days); *ttl*: not worth starting later than this (up to 68 years);
        *headers*: texts that the handler finds in ``ctx.headers``; *bundle*: how many jobs ``enqueue_many`` may put
        into one message.
        Time spans are timedeltas, or seconds.
        """
        return self._producer.using(delay=delay, queue=queue, ttl=ttl, headers=headers, bundle=bundle)

    if not TYPE_CHECKING:  # or type checkers would take any attribute for one

        def __getattr__(self, name: str) -> Any:
            raise missing(self, name)

    def __repr__(self) -> str:
        return f"<Task {self.name}{self.signature}>"
