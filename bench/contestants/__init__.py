"""The same work, done with each library as its own documentation says.

Each module has `enqueue`, which puts so many jobs into the queue; workers.py has how its worker is started. Both are
told by the environment where the queue is (`BENCH_URL`), and in which folder each thread has a file with the number of
jobs that it has handled (`BENCH_PROGRESS`).
"""
