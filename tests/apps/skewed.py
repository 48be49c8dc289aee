"""The tasks of jobs.py, in a process whose wall clock is SKEW seconds ahead.

As a program it enqueues one job with a ttl: python skewed.py QUEUE N TTL
"""

import os
import sys
import time
from datetime import datetime, timedelta, tzinfo

_AHEAD = float(os.environ["SKEW"])
_real_time, _real_time_ns = time.time, time.time_ns
time.time = lambda: _real_time() + _AHEAD
time.time_ns = lambda: _real_time_ns() + int(_AHEAD * 1e9)

import qworker.job  # noqa: E402 — with the clock as it is to them
from jobs import app, quick  # noqa: E402 — likewise

__all__ = ["app"]


class _Skewed(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(seconds=_AHEAD)


vars(qworker.job)["datetime"] = _Skewed

if __name__ == "__main__":
    queue, n, ttl = sys.argv[1:]
    job = quick.using(queue=queue, ttl=float(ttl)).enqueue(int(n))
    assert job.enqueued_at is not None
    print(round(job.enqueued_at.timestamp() - _real_time()))  # noqa: T201 — how much it is ahead
