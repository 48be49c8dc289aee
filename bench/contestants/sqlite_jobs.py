"""No library: one row a job, each committed by itself, on the sqlite3 module."""

import os
import sqlite3

from bench.contestants import work


def enqueue(count: int) -> None:
    """Insert rows one after the other, each on the disk before the next if BENCH_FSYNC is 1."""
    connection = sqlite3.connect(work.URL.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if os.environ.get('BENCH_FSYNC') == '1' else 'NORMAL'}")
    connection.execute("CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
    body = (
        '{"v":1,"id":"0199aaaa-bbbb-7ccc-8ddd-eeeeffff0000","task":"noop","args":[1],"kwargs":{},"enqueued_at":"2026"}'
    )
    for _ in range(count):
        connection.execute("INSERT INTO jobs (body) VALUES (?)", (body,))
    connection.close()
