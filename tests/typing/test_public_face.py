"""What a type checker says to those who use qworker: right calls pass, and wrong ones are found on their line."""

import re
from collections.abc import Iterator
from pathlib import Path

from mypy import api

TASKS = """
from datetime import datetime, timedelta
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from qworker import INJECTED, App, Backoff, Context, FailedAttempt, Job, Reject, Retry, Snooze, Task, TaskDefaults
from qworker import current, task
from qworker.middleware import CallNext

app = App(broker="sqlite://")


@task
def thumbnail(path: str, width: int = 320) -> bytes:
    return b""


@task(name="bare.options", queue="slow")
def on_default_app(number: int) -> None: ...


@app.task
async def fetch(url: str) -> int:
    return 7


@app.task(
    name="mail.send", queue="mail", max_attempts=5, backoff=Backoff(base=5, factor=2, max=600), timeout=30, state=int
)
async def send(to: str, at: datetime | None = None, *, urgent: bool = False, ctx: Context = INJECTED) -> str:
    ctx.log.info("sending", to=to)
    await ctx.acheckpoint(3)
    if ctx.attempt > 1 and not ctx.lease_lost:
        raise Retry("busy", after=timedelta(minutes=1))
    raise Reject(ctx.task)


@dataclass
class Pool:
    size: int


@app.task(state=int)
async def counted(*, ctx: Context[Pool, int] = INJECTED) -> None:
    size: int = ctx.resources.size
    done: int = ctx.state or 0
    await ctx.acheckpoint(done + size)


@app.task
def pooled(*, ctx: Context[Pool] = INJECTED) -> None:
    size: int = ctx.resources.size
    ctx.checkpoint({"anything": size})


@app.task(give_up_on=(ValueError, KeyError), retry_on=OSError)
def bare(*, ctx: Context | None = None) -> None:
    other: Context[Pool, int] = current()
    if ctx is not None:
        ctx.checkpoint(ctx.resources["anything"])


@app.task(executor="process", timeout=timedelta(minutes=5))
def crunch(*numbers: float) -> float:
    raise Snooze(after=60)
"""

RIGHT = """
async def right() -> None:
    picture: bytes = thumbnail("a.png")
    status: int = await fetch("https://example.org")
    text: str = await send("a@b.c", ctx=current())
    job: Job = thumbnail.enqueue("a.png", width=200)
    job = await fetch.aenqueue("https://example.org")
    job = send.enqueue("a@b.c")
    job = await send.aenqueue("a@b.c", datetime.now(), urgent=True)
    job = on_default_app.enqueue(3)
    job = crunch.enqueue(1, 2.5, 3)
    job = send.using(delay=timedelta(minutes=5), queue="slow", ttl=600, headers={"a": "b"}).enqueue("a@b.c")
    job = await send.using(delay=5).using(queue="slow").aenqueue("a@b.c", urgent=True)
    jobs: list[Job] = thumbnail.enqueue_many([("a.png",), {"path": "b.png", "width": 99}])
    jobs = await thumbnail.aenqueue_many([f"{number}.png"] for number in range(9))
    jobs = send.using(delay=5).enqueue_many([("a@b.c",)])
    known: Task[..., Any] = app.get_task("mail.send")
    async with app.worker(queues=["mail"], concurrency=4) as worker:
        worker.request_stop("done")


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[Mapping[str, Any]]:
    yield {"pool": 7}


async def timed(ctx: Context, call_next: CallNext) -> Any:
    return await call_next()


@app.on_error
def report(failed: FailedAttempt) -> None:
    error: BaseException = failed.error
    text: str = failed.failure.traceback
    again: int | None = failed.retry_in
    final: bool = failed.given_up


other = App(broker="sqlite:///x.db", lifespan=lifespan, middleware=[timed], encoding="base64")


@asynccontextmanager
async def open_pool(app: App) -> AsyncIterator[Pool]:
    yield Pool(3)


async def sized(ctx: Context[Pool], call_next: CallNext) -> Any:
    ctx.log.info("size", size=ctx.resources.size)
    return await call_next()


pooled_app = App(
    lifespan=open_pool, middleware=[sized, timed], defaults=TaskDefaults(timeout=60, give_up_on=ValueError)
)
"""

WRONG = [
    ("thumbnail.enqueue(3)", 'Argument 1 to "enqueue" of "Task" has incompatible type "int"; expected "str"'),
    ("thumbnail.enqueue()", 'Missing positional argument "path" in call to "enqueue" of "Task"'),
    (
        'thumbnail.enqueue("a.png", width="wide")',
        'Argument "width" to "enqueue" of "Task" has incompatible type "str"; expected "int"',
    ),
    (
        'thumbnail.enqueue("a.png", height=3)',
        'Unexpected keyword argument "height" for "enqueue" of "Task"',
    ),
    (
        'thumbnail.enqueue("a.png", delay=3)',
        'Unexpected keyword argument "delay" for "enqueue" of "Task"',
    ),
    ("await fetch.aenqueue(3)", 'Argument 1 to "aenqueue" of "Task" has incompatible type "int"; expected "str"'),
    (
        'send.using(delay=5).enqueue("a", urgent="very")',
        'Argument "urgent" to "enqueue" of "Producer" has incompatible type "str"; expected "bool"',
    ),
    (
        "await send.using(delay=5).aenqueue(3)",
        'Argument 1 to "aenqueue" of "Producer" has incompatible type "int"; expected "str"',
    ),
    (
        'send.using(delay="soon")',
        'Argument "delay" to "using" of "Task" has incompatible type "str"; expected "timedelta | float | None"',
    ),
    (
        "thumbnail.enqueue_many([3])",
        'List item 0 has incompatible type "int"; expected "Sequence[Any] | Mapping[str, Any]"',
    ),
    (
        'wrong: str = thumbnail("a.png")',
        'Incompatible types in assignment (expression has type "bytes", variable has type "str")',
    ),
    (
        'number: int = fetch("https://example.org")',
        'Incompatible types in assignment (expression has type "Coroutine[Any, Any, int]", variable has type "int")',
    ),
    (
        'await send("a@b.c", ctx=3)',
        (
            'Argument "ctx" to "__call__" of "Task" has incompatible type "int"; '
            'expected "Context[Mapping[str, Any], Any]"'
        ),
    ),
    (
        'on_default_app.enqueue("3")',
        'Argument 1 to "enqueue" of "Task" has incompatible type "str"; expected "int"',
    ),
    ('thumbnail.delay("a.png")', '"Task[[str, int], bytes]" has no attribute "delay"'),
    ("app.task(retries=3)", 'Unexpected keyword argument "retries" for overloaded function "task" of "App"'),
    (
        'TaskDefaults(timeout="soon")',
        'Argument "timeout" to "TaskDefaults" has incompatible type "str"; expected "timedelta | float | None"',
    ),
    (
        'app.task(give_up_on="ValueError")',
        (
            'Argument "give_up_on" to "task" of "App" has incompatible type "str"; '
            'expected "type[BaseException] | Collection[type[BaseException]] | None"'
        ),
    ),
    (
        'wrong_context: Context[Pool, int] = Context[Pool, str](job, queue="x")',
        (
            'Incompatible types in assignment (expression has type "Context[Pool, str]", '
            'variable has type "Context[Pool, int]")'
        ),
    ),
    (
        "await Context[Pool, int](job, queue='x').acheckpoint('three')",
        'Argument 1 to "acheckpoint" of "Context" has incompatible type "str"; expected "int"',
    ),
    ("Context[Pool, int](job, queue='x').resources.width", '"Pool" has no attribute "width"'),
    ("Context[Pool, int](job, queue='x').state + 1", 'Unsupported operand types for + ("None" and "int")'),
    (
        'crunch.enqueue("1")',
        'Argument 1 to "enqueue" of "Task" has incompatible type "str"; expected "float"',
    ),
]


def check(tmp_path: Path, text: str) -> str:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(text)
    cache = tmp_path.parent / "mypy-cache"
    output, problems, _ = api.run(["--strict", "--no-pretty", "--config-file=", f"--cache-dir={cache}", str(snippet)])
    assert "" == problems
    return output


def found(output: str) -> Iterator[tuple[int, str]]:
    for line in output.splitlines():
        if match := re.search(r"snippet\.py:(\d+): error: (.*?)(?:  \[[\w-]+\])?$", line):
            yield int(match[1]), match[2]


def test_right_calls_pass(tmp_path: Path) -> None:
    assert "Success: no issues found in 1 source file\n" == check(tmp_path, TASKS + RIGHT)


def test_wrong_calls_are_found_on_their_line(tmp_path: Path) -> None:
    head = TASKS + "\nasync def wrong_calls(job: Job) -> None:\n"
    first = head.count("\n") + 1
    output = check(tmp_path, head + "".join(f"    {call}\n" for call, _ in WRONG))
    errors: dict[int, str] = {}
    for line, error in found(output):
        errors.setdefault(line, error)
    assert {first + number: error for number, (_, error) in enumerate(WRONG)} == errors
