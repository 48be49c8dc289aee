import functools
import operator
import uuid
from datetime import UTC, datetime, timedelta

from qworker.brokers.base import MAX_TTL
from qworker.job import Job, new_job_id, new_job_ids, utc_now

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def test_ids_are_uuids_of_version_7() -> None:
    before = utc_now()
    job_id = uuid.UUID(new_job_id())
    assert (7, uuid.RFC_4122) == (job_id.version, job_id.variant)
    made_at = datetime.fromtimestamp((job_id.int >> 80) / 1000, UTC)
    assert before - timedelta(milliseconds=1) <= made_at <= utc_now()


def test_ids_that_are_made_together_differ_in_all_random_bits() -> None:
    ids = [uuid.UUID(job_id) for job_id in new_job_ids(1000)]
    assert {(7, uuid.RFC_4122)} == {(job_id.version, job_id.variant) for job_id in ids}
    ones = functools.reduce(operator.or_, (job_id.int for job_id in ids))
    zeros = functools.reduce(operator.and_, (job_id.int for job_id in ids))
    assert 74 == (ones & ~zeros).bit_count()  # RFC 9562, section 5.7: rand_a has 12 bits, rand_b 62
    assert [] == new_job_ids(0)


def test_ids_are_unique_and_sorted_by_time() -> None:
    ids = [new_job_id() for _ in range(1000)]
    assert len(ids) == len(set(ids))
    assert sorted(found[:13] for found in ids) == [found[:13] for found in ids]


def test_it_is_worth_starting_until_its_ttl_has_passed() -> None:
    just_after = timedelta(milliseconds=1)
    for job in (Job("j1", "t", ttl=5), Job("j1", "t", expires_at=NOW + timedelta(seconds=5))):
        assert job.has_ttl
        assert NOW + timedelta(seconds=5) == job.start_by(NOW)
        assert not job.expired(NOW, NOW + timedelta(seconds=5))
        assert job.expired(NOW, NOW + timedelta(seconds=5) + just_after)


def test_the_sooner_of_two_ends_counts() -> None:
    assert NOW == Job("j1", "t", ttl=5, expires_at=NOW).start_by(NOW)
    assert NOW == Job("j1", "t", ttl=5, expires_at=NOW + timedelta(seconds=9)).start_by(NOW - timedelta(seconds=5))


def test_what_has_no_ttl_or_one_beyond_all_time_is_always_worth_starting() -> None:
    assert not Job("j1", "t").has_ttl
    assert Job("j1", "t").start_by(NOW) is None
    assert not Job("j1", "t").expired(NOW, NOW + timedelta(days=99))
    assert not Job("j1", "t", ttl=MAX_TTL).expired(datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


def test_never_shows_what_it_carries() -> None:
    job = Job("j1", "t", ["s3cret"], {"a": "s3cret"}, state="s3cret", headers={"a": "s3cret"})
    assert "s3cret" not in repr(job)
