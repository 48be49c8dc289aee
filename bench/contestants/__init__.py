"""The same work, done with each library as its own documentation says.

Each module has `enqueue`, which puts so many jobs into the queue; workers.py has how its worker is started. Both are
told by the environment where the queue is (`BENCH_URL`), and which file grows by a byte for each job that was handled
(`BENCH_PROGRESS`).
"""
