import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker import App
from qworker.brokers.base import MAX_BODY_BYTES, MAX_TTL, check_text
from qworker.errors import ConfigurationError, InvalidArguments, InvalidEnvelope
from qworker.job import Job, Reason
from qworker.lines.escaping import has_hidden
from qworker.wire.bodies import Encoding, as_body
from qworker.wire.bounds import MAX_COUNT, MAX_HEADER, MAX_HEADERS, MAX_NAME
from qworker.wire.envelope import decode, encode, without_history

ODD = '\x00\x01\x0b\x1f\t\r\n"\\\x7f\x85\x9f\u2028\ufeff\ufffd\ufffe\uffff😀\U0010ffff</QueueMessage>&amp;'

texts = st.text(st.characters(codec="utf-8") | st.sampled_from(ODD), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = texts.filter(lambda text: text and not has_hidden(text))
moments = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 — hypothesis adds the zone
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
jobs = st.builds(
    Job,
    id=names,
    task=names,
    args=st.lists(values, max_size=3),
    kwargs=st.dictionaries(texts, values, max_size=3),
    enqueued_at=st.none() | moments,
    ttl=st.none() | st.integers(1, MAX_TTL),
    expires_at=st.none() | moments,
    attempts=st.integers(0, 10),
    state=values,
    headers=st.dictionaries(texts, texts, max_size=2),
    extra=st.dictionaries(texts.map("x-{}".format), values, max_size=2),
)


@given(jobs, st.sampled_from(["text", "base64"]))
def test_round_trip(job: Job, encoding: Encoding) -> None:
    body = encode(job, encoding)
    assert body == check_text(body)
    assert "\r" not in body
    assert job == decode(body, message_id="m1")


def test_odd_characters_survive() -> None:
    job = Job("j1", "naïve 😀\u200d\U000e0067", [ODD], {ODD: ODD}, state=ODD, headers={ODD: ODD})
    assert job == decode(encode(job), message_id="m1")


def test_wire_format() -> None:
    moment = datetime(2026, 11, 23, 6, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    least = Job("0199", "mail.send", ["a@b.c"], {"template": "hällo"})
    fields = '{"v":1,"id":"0199","task":"mail.send","args":["a@b.c"],"kwargs":{"template":"hällo"}'
    assert fields + "}" == encode(least)
    full = replace(least, enqueued_at=moment, ttl=9, attempts=2, state=[1], headers={"a": "b"})
    times = '"enqueued_at":"2026-11-23T05:00:00.123Z","ttl":9'
    ends = replace(least, enqueued_at=moment, ttl=9, expires_at=moment)
    assert f'{fields},{times},"expires_at":"2026-11-23T05:00:00.123Z"}}' == encode(ends)
    assert f'{fields},{times},"attempts":2,"state":[1],"headers":{{"a":"b"}}}}' == encode(full)


def test_base64_is_that_of_the_text() -> None:
    job = Job("j1", "naïve", ["\x00"])
    assert encode(job).encode() == base64.b64decode(encode(job, "base64"), validate=True)


@pytest.mark.parametrize("value", ["\ud800", float("nan"), float("inf"), json.loads("[" * 199 + "]" * 199)])
def test_what_no_worker_could_read_is_not_encoded(value: object) -> None:
    with pytest.raises(ValueError, match=r"surrogates|JSON compliant|over 200 levels deep"):
        encode(Job("j1", "t", [value]))


def test_the_least_a_producer_may_send() -> None:
    assert Job("m1", "t") == decode('{"task":"t"}', message_id="m1")
    assert Job("m1", "t", kwargs={"a": 1}) == decode(' \n{"task":"t","kwargs":{"a":1}}', message_id="m1")


def test_unknown_keys_mean_nothing() -> None:
    assert Job("m1", "t", extra={"priority": 9}) == decode(
        '{"task":"t","v":1,"priority":9,"state":null}', message_id="m1"
    )


def test_a_moment_is_one_in_utc_and_null_is_none() -> None:
    job = decode('{"task":"t","enqueued_at":"2026-11-23T07:00:00+02:00","expires_at":null,"ttl":null}', message_id="m1")
    assert datetime(2026, 11, 23, 5, tzinfo=UTC) == job.enqueued_at
    assert (None, None) == (job.ttl, job.expires_at)


def test_surrogates_in_pairs_are_a_character() -> None:
    assert ["😀"] == decode(r'{"task":"t","args":["\ud83d\uDE00"]}', message_id="m1").args


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


HOSTILE: dict[str, tuple[str, str]] = {
    "empty": ("", "empty"),
    "spaces": ("   ", "empty"),
    "plain text": ("hello there", "neither"),
    "not ASCII": ("héllo", "neither"),
    "byte order mark": ("\ufeff", "empty"),
    "two byte order marks within": ('{\ufeff"task":"t"}', "not JSON"),
    "a space that JSON doesn't know": ('\u2003{"task":"t"}', "neither"),
    "cut": ('{"task":"t"', "not JSON"),
    "more behind": ('{"task":"t"} {}', "not JSON"),
    "array": ("[]", "a JSON list"),
    "base64 of a number": (_base64(b"12"), "a JSON int"),
    "base64 of a text": (_base64(b'"t"'), "a JSON str"),
    "base64 without padding": ("eyJ0YXNrIjoidCJ9eyJ0", "not JSON"),
    "bad base64": ("eyJ0YXNr*", "neither"),
    "bad UTF-8 in base64": (_base64(b'{"task":"\xff"}'), "not UTF-8"),
    "deep arrays": ("[" * 100_000, "levels deep|not JSON"),
    "deep closed arrays": ('{"task":"t","args":' + "[" * 100_000 + "]" * 100_000 + "}", "levels deep|not JSON"),
    "deep objects": ('{"task":"t","kwargs":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}", "levels deep|not JSON"),
    "201 levels": (f'{{"task":"t","args":{"[" * 200}{"]" * 200}}}', "over 200 levels deep"),
    "201 levels of objects": ('{"task":"t","x":' + '{"a":' * 200 + "1" + "}" * 201, "over 200 levels deep"),
    "a deep version": (f'{{"task":"t","v":{"[" * 900}{"]" * 900}}}', "over 200 levels deep"),
    "huge integer": (f'{{"task":"t","args":[{"9" * 5000}]}}', "not JSON"),
    "huge float": ('{"task":"t","args":[1e400]}', "too large"),
    "huge negative float": ('{"task":"t","args":[-1e400]}', "too large"),
    "NaN": ('{"task":"t","args":[NaN]}', "NaN is not JSON"),
    "infinity": ('{"task":"t","args":[-Infinity]}', "-Infinity is not JSON"),
    "duplicate key": ('{"task":"t","task":"u"}', "twice"),
    "duplicate key inside": ('{"task":"t","kwargs":{"a":{"b":1,"b":1}}}', "twice"),
    "raw control character": ('{"task":"a\x01"}', "not JSON"),
    "lone surrogate": (r'{"task":"t","args":["\ud800"]}', "surrogate"),
    "lone low surrogate": (r'{"task":"\uDFFF"}', "surrogate"),
    "missing task": ("{}", "'task' is missing"),
    "empty task": ('{"task":""}', "'task' must be a text"),
    "task no text": ('{"task":1}', "'task' must be a text"),
    "id no text": ('{"task":"t","id":7}', "'id' must be a text"),
    "args no array": ('{"task":"t","args":{}}', "'args' must be an array"),
    "kwargs no object": ('{"task":"t","kwargs":[]}', "'kwargs' must be an object"),
    "version 2": ('{"v":2,"task":"t"}', "version is 2"),
    "version true": ('{"v":true,"task":"t"}', "version is True"),
    "version text": ('{"v":"1","task":"t"}', "version is '1'"),
    "version null": ('{"v":null,"task":"t"}', "version is None"),
    "a long version": ('{"task":"t","v":"' + "1" * 60_000 + '"}', "version is '1111.{0,60}…, this"),
    "a version of many digits": (f'{{"task":"t","v":{"9" * 4300}}}', "version is 9999"),
    "a long id": (f'{{"task":"t","id":"{"x" * (MAX_NAME + 1)}"}}', "'id' has 256 characters, the limit is 255"),
    "a long task": (f'{{"task":"{"x" * 60_000}"}}', "'task' has 60000 characters, the limit is 255"),
    "an id of two lines": (r'{"task":"t","id":"a\nb"}', "'id' holds a control character"),
    "a task that turns text": ('{"task":"a\u202eb"}', "'task' holds a control character, or one that turns"),
    "negative attempts": ('{"task":"t","attempts":-1}', "'attempts'"),
    "attempts true": ('{"task":"t","attempts":true}', "'attempts'"),
    "attempts a fraction": ('{"task":"t","attempts":1.5}', "'attempts'"),
    "too many attempts": (f'{{"task":"t","attempts":{MAX_COUNT + 1}}}', "'attempts' must be a whole number, 0 to"),
    "attempts of many digits": (f'{{"task":"t","attempts":{"9" * 4300}}}', "'attempts' must be a whole number, 0 to"),
    "given up null": ('{"task":"t","given_up":null}', "'given_up' must have the texts"),
    "given up for no reason": ('{"task":"t","given_up":{"type":"E"}}', "'given_up' must have the texts"),
    "given up for a number": ('{"task":"t","given_up":{"type":"E","message":1}}', "'given_up' must have the texts"),
    "last false": ('{"task":"t","last":false}', "'last' must be true"),
    "last a number": ('{"task":"t","last":1}', "'last' must be true"),
    "time a number": ('{"task":"t","enqueued_at":12}', "'enqueued_at'"),
    "time no time": ('{"task":"t","expires_at":"soon"}', "'expires_at'"),
    "time without a zone": ('{"task":"t","enqueued_at":"2026-11-23T05:00:00"}', "'enqueued_at' has no time zone"),
    "day": ('{"task":"t","expires_at":"2026-11-23"}', "'expires_at' has no time zone"),
    "time after all time": ('{"task":"t","expires_at":"9999-12-31T23:59:59-14:00"}', "'expires_at'"),
    "unset time": ('{"task":"t","expires_at":"0001-01-01T00:00:00Z"}', "'expires_at' must be a time from 1970 on"),
    "time before all time": ('{"task":"t","expires_at":"0001-01-01T00:00:00+14:00"}', "'expires_at'"),
    "ttl nothing": ('{"task":"t","ttl":0}', "'ttl' must be a whole number of seconds, 1 to 2147483647"),
    "ttl over 68 years": (f'{{"task":"t","ttl":{2**31}}}', "'ttl' must be"),
    "ttl before now": ('{"task":"t","ttl":-1}', "'ttl' must be"),
    "ttl a fraction": ('{"task":"t","ttl":1.5}', "'ttl' must be"),
    "ttl true": ('{"task":"t","ttl":true}', "'ttl' must be"),
    "ttl a text": ('{"task":"t","ttl":"300"}', "'ttl' must be"),
    "begun false": ('{"task":"t","begun":false}', "'begun' must be true"),
    "headers no object": ('{"task":"t","headers":[]}', "'headers'"),
    "headers null": ('{"task":"t","headers":null}', "'headers'"),
    "headers no texts": ('{"task":"t","headers":{"a":1}}', "'headers' must be texts"),
    "many headers": (
        json.dumps({"task": "t", "headers": {f"h{n}": "" for n in range(MAX_HEADERS + 1)}}),
        "'headers' are 65, the limit is 64",
    ),
    "a long header": (
        json.dumps({"task": "t", "headers": {"h": "x" * (MAX_HEADER + 1)}}),
        "'headers' have a text of over 8192 characters",
    ),
    "a long name of a header": (
        json.dumps({"task": "t", "headers": {"h" * (MAX_NAME + 1): ""}}),
        "'headers' have a name of over 255 characters",
    ),
}


@pytest.mark.parametrize(("body", "why"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_body(body: str, why: str) -> None:
    with pytest.raises(InvalidEnvelope, match=why) as caught:
        decode(body, message_id="m1")
    assert not has_hidden(str(caught.value))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("body", [body for body, _ in HOSTILE.values()], ids=HOSTILE.keys())
def test_hostile_body_in_base64(body: str) -> None:
    with pytest.raises(InvalidEnvelope):
        decode(_base64(body.encode()), message_id="m1")


def test_200_levels_are_read_and_written() -> None:
    wide = [[1]] * 1000
    job = decode(f'{{"task":"t","args":{"[" * 199}{"]" * 199},"state":{json.dumps(wide)}}}', message_id="m1")
    assert job == decode(encode(job), message_id="m1")


@given(texts | values.map(json.dumps) | st.binary().map(_base64))
def test_any_body_is_a_job_or_invalid(body: str) -> None:
    try:
        job = decode(body, message_id="m1")
    except InvalidEnvelope:
        return
    assert job.task


@given(
    st.fixed_dictionaries(
        {"task": values},
        optional=dict.fromkeys(
            (
                "v",
                "id",
                "args",
                "kwargs",
                "enqueued_at",
                "expires_at",
                "attempts",
                "last",
                "given_up",
                "state",
                "headers",
            ),
            values,
        )
        | {
            "noted": values
            | st.fixed_dictionaries({"in": st.just("m1")}, optional={"releases": values, "last": values})
        },
    )
)
def test_any_fields_are_a_job_or_invalid(fields: dict[str, Any]) -> None:
    try:
        job = decode(json.dumps(fields), message_id="m1")
    except InvalidEnvelope:
        return
    told = replace(job, releases=0, begun=False, last=False, given_up=None)  # is in notes
    assert told == decode(encode(job), message_id="m1")


@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_a_body_without_history_is_as_it_was_sent(encoding: Encoding) -> None:
    job = Job("j1", "t", ["naïve"], {"k": 1}, state={"page": 7}, headers={"trace": "x"})
    said = {"attempts": 3, "last": True, "given_up": {"type": "E", "message": "no"}}
    fields = json.loads(encode(job)) | said | {"noted": {"in": "m1", "releases": 3}}
    assert encode(job, encoding) == without_history(as_body(fields, encoding))


def test_what_the_message_of_a_part_says_of_its_failure_is_hearsay() -> None:
    body = '{"task":"t","attempts":2,"last":true,"given_up":{"type":"smtplib.SMTPException","message":"later"}}'
    job = decode(body, message_id="m1", deliveries=1)
    assert (2, True) == (job.attempts, job.last)
    assert Reason("GivenUp", "so its message says; because of smtplib.SMTPException: later") == job.given_up


def test_keys_of_another_version_are_kept() -> None:
    body = '{"task":"t","priority":7,"from":{"a":[1,null]}}'
    job = decode(body, message_id="m1")
    assert {"priority": 7, "from": {"a": [1, None]}} == job.extra
    written = json.loads(encode(replace(job, attempts=1)))
    assert (7, {"a": [1, None]}, 1) == (written["priority"], written["from"], written["attempts"])


def test_a_known_key_is_never_another_versions() -> None:
    assert "t" == json.loads(encode(Job("j1", "t", extra={"task": "other"})))["task"]


@pytest.mark.parametrize("body", ['{ "task":"t", "more":1e2 }', "no JSON", "", '["releases"]'])
def test_a_body_that_has_no_history_is_not_rewritten(body: str) -> None:
    assert body == without_history(body)


def test_a_body_that_would_outgrow_a_message_keeps_its_history() -> None:
    short = "[" + ",".join(["1e15"] * 13_000) + "]"
    body = f'{{"task":"t","args":{short},"attempts":1}}'
    assert len(body) <= MAX_BODY_BYTES < len(as_body(json.loads(body)))
    assert body == without_history(body)


@given(
    st.text(max_size=3) | st.sampled_from(["x" * MAX_NAME, "x" * (MAX_NAME + 1), "a\u202eb", "a\nb", "\ud800"]),
    st.dictionaries(texts | st.just("h" * (MAX_NAME + 1)), texts | st.just("x" * (MAX_HEADER + 1)), max_size=2),
    st.none() | st.integers(-1, MAX_TTL + 1),
)
def test_what_a_producer_may_enqueue_a_worker_reads(name: str, headers: dict[str, str], ttl: int | None) -> None:
    """Both go by the same bounds; trace context may come on top."""
    app = App(broker="sqlite://")
    try:
        task = app.task(name=name)(_nothing)
        producer = task.using(headers=headers, ttl=ttl)
        job = replace(producer.make((), {}), enqueued_at=None)  # a message has only its milliseconds
    except (ConfigurationError, InvalidArguments):
        return
    more = {f"trace-{number}": "x" * MAX_HEADER for number in range(2)}
    for sent in (job, replace(job, headers={**job.headers, **more})):
        assert sent == decode(encode(sent), message_id="m1", deliveries=1)


def _nothing() -> None: ...
