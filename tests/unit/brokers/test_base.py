import pytest

from qworker._queue_names import check_queue_name
from qworker.brokers.base import (
    MAX_BATCH,
    MAX_BODY_BYTES,
    MAX_TTL,
    MAX_VISIBILITY,
    check_body,
    check_lease,
    check_limit,
    check_put,
    check_text,
    check_visibility,
)
from qworker.errors import InvalidQueueName, MessageTooLarge


@pytest.mark.parametrize("name", ["abc", "a-b-c", "000", "a" * 63])
def test_a_good_name_is_returned(name: str) -> None:
    assert name == check_queue_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ab", "has 2 characters: use 3 to 63"),
        ("a" * 64, "has 64 characters: use 3 to 63"),
        ("A-queue", "is not allowed: use lower-case letters, digits and single hyphens between them"),
        ("queue\n", "is not allowed: use lower-case letters, digits and single hyphens between them"),
        ("a--b", "is not allowed: use lower-case letters, digits and single hyphens between them"),
        ("٣٣٣", "is not allowed: use lower-case letters, digits and single hyphens between them"),
    ],
)
def test_a_bad_name_is_named_with_what_is_allowed(name: str, why: str) -> None:
    with pytest.raises(InvalidQueueName) as caught:
        check_queue_name(name)
    assert f"queue name {name!r} {why}" == str(caught.value)
    assert name == caught.value.name


@pytest.mark.parametrize("body", ["", "x" * MAX_BODY_BYTES, "é" * (MAX_BODY_BYTES // 2), "😀" * (MAX_BODY_BYTES // 4)])
def test_a_body_of_64_kib_fits(body: str) -> None:
    assert body is check_body(body)


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
def test_a_body_is_measured_in_bytes(character: str) -> None:
    body = character * (MAX_BODY_BYTES // len(character.encode()) + 1)
    with pytest.raises(MessageTooLarge) as caught:
        check_body(body)
    assert (len(body.encode()), MAX_BODY_BYTES) == (caught.value.size, caught.value.limit)


def test_text_is_exactly_what_xml_can_carry() -> None:
    carried = {0x9, 0xA, 0xD, *range(0x20, 0xD800), *range(0xE000, 0xFFFE), 0x10000, 0x1F600, 0x10FFFF}
    for code in {*range(0x10001), 0x1F600, 0x10FFFF}:
        if code in carried:
            assert chr(code) == check_text(chr(code))
        else:
            with pytest.raises(ValueError, match=rf"U\+{code:04X} \(at 3\)"):
                check_text(f"abc{chr(code)}")


def test_a_put_takes_the_limits_themselves() -> None:
    check_put(0, None)
    check_put(MAX_VISIBILITY, None)
    check_put(0, 1)
    check_put(MAX_VISIBILITY, MAX_VISIBILITY + 1)
    check_put(0, MAX_TTL)


@pytest.mark.parametrize(
    ("delay", "ttl", "problem"),
    [
        (-1, None, "delay must be between 0 and 604800, not -1"),
        (MAX_VISIBILITY + 1, None, "delay must be between 0 and 604800, not 604801"),
        (0, 0, "ttl must be between 1 and 2147483647, not 0"),
        (9, 9, "ttl must be between 10 and 2147483647, not 9"),
        (0, MAX_TTL + 1, "ttl must be between 1 and 2147483647, not 2147483648"),
    ],
)
def test_a_put_says_what_it_takes(delay: int, ttl: int | None, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        check_put(delay, ttl)


def test_batches_and_leases_take_the_limits_themselves() -> None:
    check_limit(1)
    check_limit(MAX_BATCH)
    check_lease(1)
    check_lease(MAX_VISIBILITY)
    check_visibility(0)
    check_visibility(MAX_VISIBILITY)


@pytest.mark.parametrize("limit", [0, MAX_BATCH + 1])
def test_batches_beyond(limit: int) -> None:
    with pytest.raises(ValueError, match=f"^limit must be between 1 and 32, not {limit}$"):
        check_limit(limit)


@pytest.mark.parametrize("visibility", [0, MAX_VISIBILITY + 1])
def test_leases_beyond(visibility: int) -> None:
    with pytest.raises(ValueError, match=f"^visibility must be between 1 and 604800, not {visibility}$"):
        check_lease(visibility)


@pytest.mark.parametrize("visibility", [-1, MAX_VISIBILITY + 1])
def test_updates_beyond(visibility: int) -> None:
    with pytest.raises(ValueError, match=f"^visibility must be between 0 and 604800, not {visibility}$"):
        check_visibility(visibility)
