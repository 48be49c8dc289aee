import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.bodies import Encoding
from qworker.brokers.base import MAX_BODY_BYTES, check_body, check_text
from qworker.errors import InvalidEnvelope
from qworker.outcome import Failure
from qworker.poison import PoisonRecord, decode_poison, encode_poison

RECORD = PoisonRecord(
    body='{"task":"mail.send"}',
    queue="mail",
    failure=Failure("ValueError", "no", "Traceback …\nValueError: no", "mail.py:3 in send"),
    attempts=5,
    worker="host:1",
    poisoned_at=datetime(2027, 1, 1, 12, 0, 0, 123000, tzinfo=UTC),
    message_id="m1",
    job_id="j1",
    task="mail.send",
)


@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_round_trip(encoding: Encoding) -> None:
    assert RECORD == decode_poison(encode_poison(RECORD, encoding))
    bare = replace(RECORD, job_id=None, task=None, failure=Failure("WorkerLost", ""))
    assert bare == decode_poison(encode_poison(bare, encoding))


def test_what_it_looks_like() -> None:
    assert {
        "v": 1,
        "poison": {
            "queue": "mail",
            "attempts": 5,
            "worker": "host:1",
            "message_id": "m1",
            "job_id": "j1",
            "task": "mail.send",
            "at": "2027-01-01T12:00:00.123+00:00",
            "error": {
                "type": "ValueError",
                "message": "no",
                "where": "mail.py:3 in send",
                "traceback": "Traceback …\nValueError: no",
            },
        },
        "body": '{"task":"mail.send"}',
    } == json.loads(encode_poison(RECORD))


def test_the_end_of_a_long_traceback_is_kept() -> None:
    record = replace(RECORD, failure=Failure("E" * 1000, "m" * 10_000, "x" * 100_000 + "the end"))
    kept = decode_poison(encode_poison(record)).failure
    assert (256, 2048, 16_384) == (len(kept.type), len(kept.message), len(kept.traceback))
    assert kept.traceback.endswith("the end")


@pytest.mark.parametrize("size", [40_000, 47_000, 60_000, 64_000, 65_000, 65_400, MAX_BODY_BYTES])
@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_the_body_is_kept_whatever_its_size(size: int, encoding: Encoding) -> None:
    record = replace(RECORD, body="x" * size, failure=Failure("E", "m" * 3000, "t" * 30_000))
    sent = check_body(encode_poison(record, encoding))
    body = sent if sent == record.body else decode_poison(sent).body
    assert record.body == body


def test_the_traceback_gives_way_first() -> None:
    failure = Failure("E", "m" * 2048, "t" * 16_384)
    roomy = decode_poison(encode_poison(replace(RECORD, body="x" * 40_000, failure=failure))).failure
    tight = decode_poison(encode_poison(replace(RECORD, body="x" * 60_000, failure=failure))).failure
    tighter = decode_poison(encode_poison(replace(RECORD, body="x" * 64_000, failure=failure))).failure
    assert (16_384, 2048) == (len(roomy.traceback), len(roomy.message))
    assert (2048, 2048) == (len(tight.traceback), len(tight.message))
    assert (0, 256) == (len(tighter.traceback), len(tighter.message))


@given(st.text(st.characters(), max_size=50), st.text(st.characters(codec="utf-8"), max_size=50))
def test_any_text_of_an_error_can_be_sent(text: str, body: str) -> None:
    sent = encode_poison(replace(RECORD, body=body, failure=Failure("E", text, text)))
    assert sent == check_text(sent)
    assert body == decode_poison(sent).body


@pytest.mark.parametrize(
    "body",
    [
        "no json",
        '{"task":"t"}',
        '{"poison":{},"body":""}',
        '{"poison":[],"body":""}',
        '{"poison":{"queue":"q"},"body":1}',
        encode_poison(RECORD).replace('"attempts":5', '"attempts":"many"'),
        encode_poison(RECORD).replace('"error":{', '"error":[],"other":{'),
    ],
)
def test_what_is_no_record(body: str) -> None:
    with pytest.raises(InvalidEnvelope):
        decode_poison(body)
