import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.brokers.base import check_text
from qworker.errors import InvalidEnvelope
from qworker.job import Reason
from qworker.wire.bodies import Encoding
from qworker.wire.envelope import decode
from qworker.wire.notes import NOTHING, Notes, with_notes, without_notes

ODD = '\x00\x01\x0b\x1f\t\r\n"\\\x7f\x85\x9f\u2028\ufeff\ufffd\ufffe\uffff😀\U0010ffff</QueueMessage>&amp;'
BODIES = [
    '{"task":"t"}',
    ' {\n"task":"t", "more":1e2, "kwargs":{"last":true, "noted": 1} }',
    '\ufeff{"task":"t"}',
]

notes = st.builds(
    Notes,
    releases=st.integers(0, 5),
    begun=st.booleans(),
    last=st.booleans(),
    given_up=st.none() | st.builds(Reason, st.text(max_size=20), st.text(max_size=20)),
    unknown=st.integers(0, 5),
)


def sent(body: str, encoding: Encoding) -> str:
    return base64.b64encode(body.encode()).decode() if encoding == "base64" else body


@given(st.sampled_from(BODIES), st.sampled_from(["text", "base64"]), notes, notes)
def test_notes_are_read_and_replaced_and_nothing_else_is_changed(
    text: str, encoding: Encoding, first: Notes, then: Notes
) -> None:
    body = sent(text, encoding)
    bare = decode(body, message_id="m1")
    noted = with_notes(with_notes(body, "m1", first), "m1", then)
    read = decode(noted, message_id="m1", deliveries=6)
    assert then == Notes(read.releases, read.begun, read.last, read.given_up, read.unknown)
    assert bare == replace(read, releases=0, begun=False, last=False, given_up=None, unknown=0)
    assert text.lstrip("\ufeff ") == decoded(without_notes(noted, "m1")).lstrip("\ufeff ")


def decoded(body: str) -> str:
    return body if "{" in body else base64.b64decode(body).decode()


@pytest.mark.parametrize("body", BODIES)
def test_a_body_without_notes_is_as_it_was(body: str) -> None:
    noted = with_notes(body, "m1", Notes(releases=1, last=True))
    assert noted != body == without_notes(noted, "m1")
    assert body == without_notes(body, "m1") == with_notes(body, "m1", NOTHING)


@pytest.mark.parametrize("message", ["no", 'a "quoted" \\ text\n},', ODD, "\ud800"])
def test_any_reason_can_be_noted(message: str) -> None:
    noted = check_text(with_notes(BODIES[0], "m1", Notes(given_up=Reason("m.Odd", message))))
    read = decode(noted, message_id="m1")
    assert Reason("m.Odd", message.encode("utf-8", "backslashreplace").decode()) == read.given_up


def test_notes_count_only_in_the_message_that_they_name() -> None:
    """A producer can't know its id."""
    noted = with_notes(BODIES[0], "m1", Notes(3, last=True, given_up=Reason("E", "no")))
    for message_id, deliveries in (("m2", 9), ("m1", 1)):
        job = decode(noted, message_id=message_id, deliveries=deliveries)
        assert (0, False, None) == (job.releases, job.last, job.given_up)
    assert noted == without_notes(noted, "m2")
    again = with_notes(noted, "m2", Notes(1))
    assert ("t", 1) == ((job := decode(again, message_id="m2", deliveries=2)).task, job.releases)


def test_there_are_no_more_releases_than_deliveries_before_this() -> None:
    noted = with_notes(BODIES[0], "m1", Notes(3))
    assert 3 == decode(noted, message_id="m1", deliveries=4).releases
    with pytest.raises(InvalidEnvelope, match="it notes more releases than it had deliveries: 2"):
        decode(noted, message_id="m1", deliveries=3)


@pytest.mark.parametrize("key", ["releases", "noted"])
def test_what_others_write_in_their_place_means_nothing(key: str) -> None:
    body = json.dumps({"task": "t", key: 1_000_000})
    assert 0 == decode(body, message_id="m1", deliveries=5).releases
    noted = with_notes(body, "m1", Notes(2))
    assert 2 == decode(noted, message_id="m1", deliveries=5).releases


@pytest.mark.parametrize(
    ("noted", "why"),
    [
        ({"releases": -1}, "'releases' must be a whole number"),
        ({"releases": 10**4299}, "'releases' must be a whole number"),
        ({"releases": True}, "'releases' must be a whole number"),
        ({"last": 1}, "'last' must be true"),
        ({"given_up": None}, "'given_up' must have the texts"),
        ({"given_up": {"type": "E"}}, "'given_up' must have the texts"),
        ({"given_up": {"type": "E", "message": "x" * 5_000}}, "'given_up' must have the texts"),
    ],
)
def test_odd_notes_are_refused(noted: dict[str, object], why: str) -> None:
    body = json.dumps({"noted": {"in": "m1"} | noted, "task": "t"})
    with pytest.raises(InvalidEnvelope, match=why):
        decode(body, message_id="m1", deliveries=2)
    assert "t" == decode(body, message_id="m1", deliveries=1).task


@pytest.mark.parametrize(
    "body",
    [
        "no JSON",
        "",
        '["noted"]',
        "{}",
        '{"noted":',
        '{"noted":{"in":"m1"}',
        '{"noted":{"a":1,"a":2},',
        '{"noted":' * 9_000,
    ],
)
def test_what_is_no_envelope_has_no_notes(body: str) -> None:
    assert body == without_notes(body, "m1")
