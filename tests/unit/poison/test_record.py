import base64
import bisect
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.brokers.base import MAX_BODY_BYTES, check_body, check_text
from qworker.errors import InvalidEnvelope
from qworker.outcome import Failure
from qworker.poison.record import NoSoundRecord, PoisonRecord, decode_poison, encode_poison
from qworker.wire.bodies import Encoding, as_fields

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


FORGED = json.loads(encode_poison(replace(RECORD, worker="trusted:1", job_id="invoice-17")))
WAYS: dict[str, Callable[[str], str]] = {
    "text": lambda text: text,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "mark": lambda text: "\ufeff" + text,
    "space": lambda text: f" {text}\n",
}


def forged(size: int, pad: str, way: str, said: dict[str, Any]) -> str:
    """Return what looks like a record, of as many bytes as that, or a few less."""

    def padded(count: int) -> str:
        return WAYS[way](json.dumps(said | {"pad": pad * count}, ensure_ascii=False))

    count = bisect.bisect_right(range(size), size, key=lambda count: len(padded(count).encode())) - 1
    return padded(count)


@pytest.mark.parametrize("size", [30_000, 48_000, 65_000, 65_535, MAX_BODY_BYTES])
@pytest.mark.parametrize("pad", ['"', "x", "é"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_no_body_passes_for_a_record(size: int, pad: str, way: str, encoding: Encoding) -> None:
    """A producer may write one that leaves no room beside it."""
    for said in (FORGED, FORGED | {"poison": {"at": 1}}):
        body = check_body(forged(size, pad, way, said))
        sent = check_text(check_body(encode_poison(replace(RECORD, body=body), encoding)))
        try:
            record = decode_poison(sent)
        except NoSoundRecord:
            raise AssertionError("it is taken for a record that is not sound") from None
        except InvalidEnvelope:
            assert as_fields(body) == as_fields(sent)
        else:
            assert ("host:1", "j1", body) == (record.worker, record.job_id, record.body)


def test_what_no_message_can_hold_is_recorded_in_part() -> None:
    """Another program may write it into an SQLite file; it must not come back for ever."""
    for body in ("x" * (MAX_BODY_BYTES + 1), "\x01" + "x" * (MAX_BODY_BYTES - 1), "\x00" * MAX_BODY_BYTES):
        record = decode_poison(check_text(check_body(encode_poison(replace(RECORD, body=body)))))
        assert body[:4096] == record.body
        assert "its body is cut here" in record.failure.message
