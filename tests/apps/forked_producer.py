"""A producer that forks in every way there is, and enqueues before and after: the child's end must not be felt.

Usage: forked_producer.py sync|async|uvloop SEED ROUNDS. Prints a JSON line for each round: what was done, how many
messages were put, and how many seconds the parent's next took.
"""

import asyncio
import concurrent.futures
import gc
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from qworker import App

_PATIENCE: Final = 30
_FORK: Final = multiprocessing.get_context("fork")
app = App(broker=os.environ["QWORKER_BROKER"])


@app.task(queue="forks")
def note(text: str) -> None: ...


# What a child does


def nothing() -> int:
    return 0


def collect() -> int:
    gc.collect()
    return 0


def enqueue() -> int:
    note.enqueue("child")
    return 1


def enqueue_and_close() -> int:
    note.enqueue("child")
    app.close()
    return 1


def enqueue_async() -> int:
    async def put() -> None:
        await note.aenqueue("child")
        await app.aclose()

    asyncio.run(put())
    return 1


def close() -> int:
    app.close()
    return 0


def forget() -> int:
    """Free all that the broker has, as far as this program knows."""
    vars(app.broker).clear()
    app._made.clear()
    gc.collect()
    return 0


def fork_again() -> int:
    if not (child := os.fork()):
        note.enqueue("grandchild")
        sys.exit(0)
    os.waitpid(child, 0)
    return 1


ACTS: Final = (nothing, collect, enqueue, enqueue_and_close, enqueue_async, close, forget, fork_again)


# How a child is made, and ends


def _be_child(act: Callable[[], int], end: Callable[[], object]) -> None:
    signal.alarm(_PATIENCE)
    act()
    end()


def _wait(child: int) -> None:
    os.waitpid(child, 0)


def by_os(act: Callable[[], int], end: Callable[[], object]) -> None:
    if not (child := os.fork()):
        _be_child(act, end)
    _wait(child)


def by_forkpty(act: Callable[[], int], end: Callable[[], object]) -> None:
    child, terminal = os.forkpty()
    if not child:
        _be_child(act, end)
    try:
        while os.read(terminal, 1024):
            pass
    except OSError:  # the child has closed it
        pass
    os.close(terminal)
    _wait(child)


def by_daemon(act: Callable[[], int], end: Callable[[], object]) -> None:
    """Fork twice, as daemons do."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.setsid()
        if os.fork():
            os._exit(0)
        _be_child(act, end)
    os.close(writing)
    _wait(child)
    os.read(reading, 1)  # ends with the grandchild
    os.close(reading)


def by_multiprocessing(act: Callable[[], int], end: Callable[[], object]) -> None:
    process = _FORK.Process(target=_be_child, args=(act, end))
    process.start()
    process.join()


def by_pool(act: Callable[[], int], _: Callable[[], object]) -> None:
    with _FORK.Pool(1) as pool:
        pool.apply(act)


def by_executor(act: Callable[[], int], _: Callable[[], object]) -> None:
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=_FORK) as executor:
        executor.submit(act).result()


def by_preexec(act: Callable[[], int], _: Callable[[], object]) -> None:
    subprocess.run(["true"], preexec_fn=act, check=True)


def in_thread(act: Callable[[], int], _: Callable[[], object]) -> None:
    """Fork in another thread than the main one: that would not end the interpreter, so it has to leave."""

    def fork() -> None:
        if not (child := os.fork()):
            _be_child(act, leave)
        _wait(child)

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()


WAYS: Final = (by_os, by_forkpty, by_daemon, by_multiprocessing, by_pool, by_executor, by_preexec, in_thread)

NO_EXIT: Final = (by_preexec, by_executor, in_thread)
"""Where a sys.exit is not the interpreter's end."""


def leave() -> None:
    os._exit(0)


def end_as_usual() -> None:
    sys.exit(0)


def fail() -> None:
    sys.exit(3)


ENDS: Final = (end_as_usual, end_as_usual, fail, leave)


def rounds(seed: int, count: int) -> list[tuple[Callable[..., None], Callable[[], int], Callable[[], object]]]:
    """Return each way with each act once, in an order of chance, as far as there is room."""
    dice = random.Random(seed)
    pairs = [(way, act) for way in WAYS for act in ACTS if act is not fork_again or way not in NO_EXIT]
    dice.shuffle(pairs)
    return [(way, act, dice.choice(ENDS)) for way, act in pairs[:count]]


PUTS: Final = {enqueue: 1, enqueue_and_close: 1, enqueue_async: 1, fork_again: 1}


def report(way: Callable[..., None], act: Callable[[], int], end: Callable[[], object], began: float) -> None:
    line = {"did": f"{way.__name__} {act.__name__} {end.__name__}", "put": PUTS.get(act, 0) + 1}
    line |= {"took": time.monotonic() - began}
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


def be_sync(seed: int, count: int) -> None:
    note.enqueue("first")
    for way, act, end in rounds(seed, count):
        way(act, end)
        began = time.monotonic()
        note.enqueue("parent")
        report(way, act, end, began)


def be_async(seed: int, count: int, runner: asyncio.Runner) -> None:
    with runner:
        runner.run(note.aenqueue("first"))
        for n, (way, act, end) in enumerate(rounds(seed, count)):
            if n % 2:
                runner.run(in_coroutine(way, act, end))
            else:
                way(act, end)
            began = time.monotonic()
            runner.run(asyncio.wait_for(elsewhere(), _PATIENCE))
            runner.run(note.aenqueue("parent"))
            report(way, act, end, began)


async def elsewhere() -> None:
    """See that threads can still wake the event loop."""
    await asyncio.to_thread(time.sleep, 0)


async def in_coroutine(way: Callable[..., None], act: Callable[[], int], end: Callable[[], object]) -> None:
    """Fork where the event loop runs; a child that ends as usual ends it."""
    way(act, end)


if __name__ == "__main__":
    kind, given_seed, given_count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if kind == "sync":
        be_sync(given_seed, given_count)
    elif kind == "async":
        be_async(given_seed, given_count, asyncio.Runner())
    else:
        import uvloop

        be_async(given_seed, given_count, asyncio.Runner(loop_factory=uvloop.new_event_loop))
