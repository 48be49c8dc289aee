"""A rule strikes the requests that it says, and the same ones with the same seed."""

from random import Random
from typing import Any

import pytest

from fault_actions import DropBefore
from fault_rules import Rule
from http_messages import Request


def request(operation: str = "put", queue: str = "work") -> Request:
    return Request(b"", b"", "", operation, queue, "", "")


def struck(rule: Rule, requests: list[Request]) -> list[int]:
    """Number the requests that are struck, from 1."""
    numbers = []
    for number, asked in enumerate(requests, 1):
        if rule.strikes(asked):
            rule.choose()
            numbers.append(number)
    return numbers


@pytest.mark.parametrize(
    ("restriction", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"nth": 3}, [3]),
        ({"every": 2}, [2, 4, 6]),
        ({"times": 2}, [1, 2]),
        ({"every": 2, "times": 2}, [2, 4]),
        ({"probability": 0.0}, []),
        ({"probability": 1.0, "times": 1}, [1]),
    ],
)
def test_of_those_that_match_it_picks(restriction: dict[str, Any], expected: list[int]) -> None:
    assert expected == struck(Rule(DropBefore(), **restriction), [request()] * 6)


def test_only_what_matches_is_counted() -> None:
    mixed = [request("get"), request(), request(queue="other"), request(), request("update")]
    assert [4] == struck(Rule(DropBefore(), on="put", queue="work", nth=2), mixed)
    assert [1, 5] == struck(Rule(DropBefore(), on={"get", "update"}), mixed)
    assert [3] == struck(Rule(DropBefore(), when=lambda asked: asked.queue == "other"), mixed)


def test_the_same_seed_decides_the_same() -> None:
    def decisions(seed: int) -> list[int]:
        rule = Rule(DropBefore(), probability=0.3)
        rule.random = Random(seed)
        return struck(rule, [request()] * 100)

    assert decisions(1) == decisions(1)
    assert decisions(1) != decisions(2)
    assert 10 < len(decisions(1)) < 50


def test_an_unknown_operation_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no operation: \['renew'\]"):
        Rule(DropBefore(), on={"put", "renew"})
