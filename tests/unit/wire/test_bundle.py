import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.brokers.base import MAX_BODY_BYTES, check_text
from qworker.errors import InvalidEnvelope
from qworker.job import Job
from qworker.wire.bodies import Encoding
from qworker.wire.bounds import MAX_JOBS
from qworker.wire.bundle import TASK, bundled, contents_of, may_be_bundle, pack
from qworker.wire.envelope import decode, encode

BOTH: tuple[Encoding, ...] = ("text", "base64")


def text(number: int, argument: str = "x") -> str:
    return encode(Job(f"j{number}", "mail.send", [argument]))


@pytest.mark.parametrize("encoding", BOTH)
def test_a_bundle_holds_envelopes(encoding: Encoding) -> None:
    texts = [text(number) for number in range(3)]
    body = check_text(bundled(texts, encoding))
    assert may_be_bundle(body)
    contents = contents_of(body, message_id="m1")
    assert contents is not None
    assert [json.loads(each) for each in texts] == [member.said for member in contents.members]
    assert [decode(each, message_id="m1") for each in texts] == [member.job for member in contents.members]
    assert (0, 36) == (contents.releases, len(contents.id))


@pytest.mark.parametrize("encoding", BOTH)
def test_to_a_worker_that_knows_no_bundles_it_is_a_job_of_an_unknown_task(encoding: Encoding) -> None:
    job = decode(bundled([text(1), text(2)], encoding), message_id="m1")
    assert (TASK, 2) == (job.task, len(job.extra["jobs"]))
    again = contents_of(encode(job), message_id="m1")
    assert again is not None
    assert ["j1", "j2"] == [member.said["id"] for member in again.members]


def test_other_messages_are_no_bundles() -> None:
    job = encode(Job("j1", "mail.send", [TASK]))
    assert may_be_bundle(job)
    assert contents_of(job, message_id="m1") is None
    assert not may_be_bundle(text(1))
    assert not may_be_bundle(base64.b64encode(text(1).encode()).decode())
    assert not may_be_bundle("neither")


def test_a_job_without_an_id_gets_one_of_the_messages() -> None:
    body = f'{{"task":"{TASK}","jobs":[{{"task":"a"}},{{"task":"b","id":"own"}},7]}}'
    contents = contents_of(body, message_id="m1")
    assert contents is not None
    said = [member.said for member in contents.members]
    assert [{"id": "m1-0", "task": "a"}, {"id": "own", "task": "b"}, 7] == said
    assert ("m1", {"task": TASK}) == (contents.id, contents.fields)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f'{{"task":"{TASK}"}}', "'jobs' must be an array"),
        (f'{{"task":"{TASK}","jobs":{{}}}}', "'jobs' must be an array"),
        (f'{{"task":"{TASK}","jobs":[],"v":2}}', "version is 2"),
        (f'{{"task":"{TASK}","jobs":[],"noted":{{"in":"m1","releases":-1}}}}', "'releases' must be a whole number"),
        (f'{{"task":"{TASK}","jobs":[}}', "not JSON"),
        (f'{{"task":"{TASK}","jobs":[{",".join(["1"] * 32_000)}]}}', "it has 32000 jobs, the limit is 1024"),
        (f'{{"task":"{TASK}","jobs":[1]}}', "1 of its 1 jobs are none, the first because of this: it is a JSON int"),
        (f'{{"task":"{TASK}","jobs":[{{}},7]}}', "2 of its 2 jobs are none, .* 'task' is missing"),
        (f'{{"task":"{TASK}","jobs":[{",".join(["7"] * 33)},{{"task":"t"}}]}}', "33 of its 34 jobs are none"),
        (f'{{"task":"{TASK}","jobs":[{{"task":"{TASK}","jobs":[]}}]}}', "it is a bundle within a bundle"),
    ],
)
def test_what_is_refused(body: str, reason: str) -> None:
    with pytest.raises(InvalidEnvelope, match=reason):
        contents_of(body, message_id="m1")


def test_a_few_bad_jobs_leave_the_others_sound() -> None:
    jobs = ",".join([*["7"] * 16, *["{}"] * 16, '{"task":"t","id":"j1"}'])
    contents = contents_of(f'{{"task":"{TASK}","jobs":[{jobs}]}}', message_id="m1")
    assert contents is not None
    assert [Job("j1", "t")] == [member.job for member in contents.members if isinstance(member.job, Job)]
    assert 32 == sum(isinstance(member.job, InvalidEnvelope) for member in contents.members)


def test_what_is_packed_has_never_too_many_jobs() -> None:
    texts = ['{"task":"t"}'] * 3_000
    parts = list(pack(texts, 5_000, "text"))
    assert [MAX_JOBS, MAX_JOBS, 3_000 - 2 * MAX_JOBS] == [len(part) for part in parts]
    assert contents_of(bundled(texts[:MAX_JOBS], "text"), message_id="m1") is not None


def test_at_most_so_many_jobs_in_a_message() -> None:
    parts = list(pack([text(number) for number in range(250)], 100, "text"))
    assert [range(100), range(100, 200), range(200, 250)] == parts


@given(st.lists(st.integers(0, 70_000), max_size=30), st.integers(2, 20), st.sampled_from(BOTH))
def test_what_is_packed_fits_and_nothing_is_missing(sizes: list[int], most: int, encoding: Encoding) -> None:
    texts = [text(number, "ä" * (size // 2)) for number, size in enumerate(sizes)]
    parts = list(pack(texts, most, encoding))
    assert list(range(len(texts))) == [number for part in parts for number in part]
    for part in parts:
        assert 1 <= len(part) <= most
        if len(part) > 1:
            assert len(bundled([texts[number] for number in part], encoding).encode()) <= MAX_BODY_BYTES - 20


@pytest.mark.parametrize("encoding", BOTH)
def test_messages_are_filled(encoding: Encoding) -> None:
    texts = [text(number, "x" * 1_000) for number in range(300)]
    first = next(iter(pack(texts, 1_000, encoding)))
    size = len(bundled([texts[number] for number in first], encoding))
    assert MAX_BODY_BYTES - 2_000 < size <= MAX_BODY_BYTES


def test_what_would_be_nested_too_deep_has_a_message_of_its_own() -> None:
    deep: list[object] = []
    for _ in range(196):
        deep = [deep]
    texts = [text(1), encode(Job("j2", "mail.send", [deep])), text(3), text(4)]
    assert [range(1), range(1, 2), range(2, 4)] == list(pack(texts, 100, "text"))
    wide = encode(Job("j5", "mail.send", [[[]] * 300]))
    assert [range(2)] == list(pack([wide, wide], 100, "text"))
