import pickle
from collections.abc import Iterator

import pytest

from qworker import errors
from qworker.errors import (
    BrokerBusy,
    EnqueueUncertain,
    InvalidArguments,
    InvalidQueueName,
    LeaseLost,
    MessageTooLarge,
    PartlyEnqueued,
    PartlyPurged,
    PartlyReplayed,
    QueueBeingDeleted,
    QueueNotFound,
    QworkerError,
    UnknownTask,
    ValidatorFailed,
)

EXAMPLES: list[QworkerError] = [
    InvalidQueueName("X", "is wrong"),
    UnknownTask("mail", ["b", "a"]),
    InvalidArguments("mail", "to: missing"),
    MessageTooLarge(70_000, 65_536),
    EnqueueUncertain("j1", "mail"),
    PartlyEnqueued(["j1"], ["j2"], ["j3", "j4"], LeaseLost("m1")),
    PartlyPurged(2, "mail", LeaseLost("m1")),
    PartlyReplayed(2, "mail", LeaseLost("m1")),
    QueueNotFound("mail"),
    QueueBeingDeleted("mail"),
    LeaseLost("m1"),
    BrokerBusy("busy", retry_after=7.0),
    ValidatorFailed("mail", "to: a validator of its type raised KeyError"),
]


def subclasses(kind: type[QworkerError]) -> Iterator[type[QworkerError]]:
    for found in kind.__subclasses__():
        if found.__module__ == errors.__name__:
            yield found
            yield from subclasses(found)


def simple() -> list[QworkerError]:
    """Those that are made of a text only."""
    return [kind("it failed") for kind in subclasses(QworkerError) if kind not in {type(e) for e in EXAMPLES}]


@pytest.mark.parametrize("error", [*EXAMPLES, *simple()], ids=lambda error: type(error).__name__)
def test_survives_pickling(error: QworkerError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error)) == (type(copy), str(copy))
    assert {name: str(value) for name, value in vars(error).items()} == {
        name: str(value) for name, value in vars(copy).items()
    }


def test_the_tree_in_the_docstring_is_the_one_there_is() -> None:
    assert errors.__doc__ is not None
    for kind in subclasses(QworkerError):
        assert f"── {kind.__name__}" in errors.__doc__


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EXAMPLES[1], "unknown task 'mail'; registered: a, b"),
        (UnknownTask("mail", []), "unknown task 'mail'; registered: none"),
        (EXAMPLES[3], "the job is 70000 bytes as sent, the limit is 65536: pass a reference instead of the data"),
        (EXAMPLES[5], "1 of 4 jobs are queued, 1 may be, 2 are not: the lease of message m1 is lost: "),
    ],
)
def test_says_what_to_know(error: QworkerError, text: str) -> None:
    assert str(error).startswith(text)
