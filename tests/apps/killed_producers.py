"""Producers that are killed in the middle of a call: each is forked from this process, so that hundreds cost little.

Usage: python killed_producers.py QUEUE KILLS SEED; the history says what each of them did.
"""

import itertools
import os
import random
import signal
import sys
import time
from typing import Final

from history_lines import FILE, append, now
from jobs import app, quick

_MOST_CALLS: Final = 30
_FIRST_CALL, _NEXT_CALL = 0.03, 0.004
"""Seconds into a call at which its process is killed, at most; the first one opens the file."""


def produce(queue: str, kill: int, returned: int) -> None:
    """Enqueue for ever; each time that enqueue returns, write a byte."""
    assert FILE is not None
    for n in itertools.count(kill * 1_000_000):
        append(FILE, {"what": "enqueueing", "n": n} | now())
        job = quick.using(queue=queue).enqueue(n)
        append(FILE, {"what": "enqueued", "n": n, "job": job.id} | now())
        os.write(returned, b".")


def main(queue: str, kills: int, seed: int) -> None:
    _import_all()
    chance = random.Random(seed)
    for kill in range(kills):
        calls = chance.randrange(_MOST_CALLS)
        moment = chance.uniform(0, _NEXT_CALL if calls else _FIRST_CALL)
        listening, returned = os.pipe()
        if (pid := os.fork()) == 0:
            produce(queue, kill, returned)
        os.close(returned)
        with os.fdopen(listening, "rb") as ids:
            assert calls == len(ids.read(calls))
            time.sleep(moment)
            _kill(pid)


def _kill(pid: int) -> None:
    assert FILE is not None
    append(FILE, {"what": "kill", "signal": signal.SIGKILL} | now() | {"pid": pid})
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _import_all() -> None:
    """Have a first call load what it needs; the children's are quicker then."""
    app.use_broker("sqlite://")
    quick.enqueue(0)
    app.close()
    app.use_broker(os.environ["QWORKER_BROKER"])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
