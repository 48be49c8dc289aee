"""A function becomes a task, a producer enqueues calls of it, a worker executes them.

    python -m examples.first_task               # the producer: enqueues three jobs, and ends
    qworker run examples.first_task --burst     # the worker: executes them, and ends when nothing is left

Both use the file qworker.db in the project's directory: that is the broker, unless QWORKER_BROKER names another.
"""

from datetime import date

from qworker import task


@task
def greet(name: str, *, birthday: date | None = None) -> None:
    print(f"Hello, {name}!")
    if birthday is not None:  # it went through the queue as JSON, and is a date again
        print(f"{name} was born on a {birthday:%A}.")


if __name__ == "__main__":
    job = greet.enqueue("Ada", birthday=date(1815, 12, 10))
    print(f"enqueued {job.task} as {job.id}")
    greet.enqueue_many([("Grace",), {"name": "Barbara"}])  # tuples are positional arguments, mappings named ones
    greet("you")  # a task is still a plain function: this calls it, here and now
