"""Names the queues: which names every broker takes, and where the jobs of a queue go that were given up."""

import re

from qworker.errors import InvalidQueueName

DEFAULT_QUEUE = "default"
POISON_SUFFIX = "-poison"
_QUEUE_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
_MIN_NAME, _MAX_NAME = 3, 63


def check_queue_name(name: str) -> str:
    """Return *name* if every broker takes it as a queue's name; raises InvalidQueueName."""
    if not isinstance(name, str):
        raise InvalidQueueName(name, "is not a text")
    if not _MIN_NAME <= len(name) <= _MAX_NAME:
        raise InvalidQueueName(name, f"has {len(name)} characters: use {_MIN_NAME} to {_MAX_NAME}")
    if not _QUEUE_NAME.fullmatch(name):
        raise InvalidQueueName(
            name,
            "is not allowed: use lower-case letters, digits and single hyphens between them",
        )
    return name


def poison_queue_of(queue: str) -> str:
    """Return the name of the queue for jobs of *queue* that were given up."""
    return queue + POISON_SUFFIX


def check_task_queue(name: str) -> str:
    """Return *name* if it and its poison queue can both be made; raises InvalidQueueName."""
    check_queue_name(name)
    check_queue_name(poison_queue_of(name))
    return name
