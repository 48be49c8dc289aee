import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from doubles import message
from qworker.brokers.base import PeekedMessage
from qworker.outcome import Failure
from qworker.poison.record import PoisonRecord, encode_poison
from qworker.poison.selection import EVERYTHING, GivenUp, Selection

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
AN_HOUR, A_SECOND = timedelta(hours=1), timedelta(seconds=1)


def given_up(task: str | None = "mail.send", error: str = "ValueError", at: datetime = NOON) -> GivenUp:
    record = PoisonRecord('{"task":"t"}', "mail", Failure(error, "no"), 5, "host:1", at, "old-1", "j1", task)
    found = message(encode_poison(record))
    return GivenUp.of(replace(found, received_at=found.inserted_at + AN_HOUR))


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), True),
        (Selection(task="mail.send"), True),
        (Selection(task="mail.*"), True),
        (Selection(task="mail"), False),
        (Selection(task="MAIL.SEND"), False),
        (Selection(error="ValueError"), True),
        (Selection(error="*Error"), True),
        (Selection(error="KeyError"), False),
        (Selection(ids=["j1"]), True),
        (Selection(ids=["m1"]), True),
        (Selection(ids=["old-1", "another"]), True),
        (Selection(ids=["j2"]), False),
        (Selection(older=AN_HOUR), False),
        (Selection(older=AN_HOUR - A_SECOND), True),
        (Selection(newer=AN_HOUR), True),
        (Selection(newer=AN_HOUR - A_SECOND), False),
        (Selection(task="mail.*", error="KeyError"), False),
    ],
)
def test_a_selection_takes_what_fits_all_that_it_says(selection: Selection, *, taken: bool) -> None:
    assert taken == selection.takes(given_up())
    assert (selection == Selection()) == selection.takes_all


@pytest.mark.parametrize("wrong_by", [timedelta(0), 400 * timedelta(days=1), -400 * timedelta(days=1)])
def test_no_workers_clock_says_when_it_was(wrong_by: timedelta) -> None:
    assert AN_HOUR == given_up(at=NOON + wrong_by).age


def test_a_message_that_was_peeked_at_is_as_old_as_one_that_was_received() -> None:
    found = message("{}")
    peeked = PeekedMessage(found.id, 1, found.body, found.inserted_at, None, found.inserted_at + AN_HOUR)
    assert AN_HOUR == GivenUp.of(peeked).age


def test_an_error_is_known_by_its_last_name_too() -> None:
    failed = given_up(error="smtplib.SMTPException")
    assert Selection(error="SMTPException").takes(failed)
    assert Selection(error="smtplib.*").takes(failed)
    assert not Selection(error="smtplib").takes(failed)


def test_a_body_without_a_record_is_known_by_what_it_says() -> None:
    body = json.dumps({"id": "j1", "task": "mail.send"})
    bare = GivenUp.of(message(body))
    assert (body, None, "j1", "mail.send") == (bare.body, bare.record, bare.job_id, bare.task)
    assert Selection(task="mail.send", ids=["j1"]).takes(bare)
    assert not Selection(error="*").takes(bare)


@pytest.mark.parametrize("body", ["no JSON", "[]", '{"task":7}', ""])
def test_what_says_nothing_is_taken_only_by_its_message(body: str) -> None:
    nothing = GivenUp.of(message(body))
    assert (None, None, {"m1"}) == (nothing.job_id, nothing.task, nothing.ids)
    assert EVERYTHING.takes(nothing)
    assert Selection(ids=["m1"]).takes(nothing)
    assert not Selection(task="*").takes(nothing)


def test_a_task_without_an_id_has_none() -> None:
    assert (None, "t") == ((bare := GivenUp.of(message('{"task":"t"}'))).job_id, bare.task)
