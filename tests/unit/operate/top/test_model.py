import math
from datetime import UTC, datetime, timedelta

import pytest

from qworker.operate.top.model import FailureRow, Look, QueueSeen, Scrape, flow, increase, picture, quantile, recent
from qworker.poison.selection import GivenUp

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
INF = math.inf
GAUGES = {"running": 1.0, "slots": 16.0}


def scrape(
    done: float = 0, failed: float = 0, poisoned: float = 0, buckets: dict[float, float] | None = None
) -> Scrape:
    outcomes = {("t", "succeeded"): done, ("t", "retried"): failed, ("t", "poisoned"): poisoned, ("t", "snoozed"): 99.0}
    return Scrape(GAUGES, outcomes, {} if buckets is None else {"t": buckets})


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], None),
        ([(0.0, 5)], None),
        ([(0.0, 5), (0.0, 6)], None),
        ([(0.0, 5), (30.0, 11)], (12.0, 0.0)),
        ([(0.0, 5), (10.0, 8), (20.0, 2)], (9.0, 18.0)),
    ],
)
def test_a_rate_is_what_lengths_show(lengths: list[tuple[float, int]], expected: tuple[float, float] | None) -> None:
    assert expected == flow(lengths)


@pytest.mark.parametrize(("values", "grown"), [([], 0), ([7], 0), ([3, 5, 9], 6), ([8, 9, 2, 4], 5)])
def test_a_counter_that_goes_back_has_begun_anew(values: list[float], grown: float) -> None:
    assert grown == increase(values)


@pytest.mark.parametrize(
    ("buckets", "q", "expected"),
    [
        ({}, 0.5, None),
        ({1.0: 0, INF: 0}, 0.5, None),
        ({1.0: 10, INF: 10}, 0.5, 0.5),
        ({1.0: 0, 2.0: 10, INF: 10}, 0.95, 1.95),
        ({1.0: 4, 2.0: 4, 4.0: 8, INF: 8}, 0.75, 3.0),
        ({1.0: 4, 2.0: 4, 4.0: 8, INF: 8}, 0.5, 1.0),
        ({1.0: 4, INF: 10}, 0.95, INF),
        ({INF: 10, 2.0: 10, 1.0: 5}, 0.5, 1.0),
    ],
)
def test_a_percentile_lies_within_its_bucket(buckets: dict[float, float], q: float, expected: float | None) -> None:
    found = quantile(buckets, q)
    assert expected == (found if found is None else pytest.approx(found))


def test_a_window_keeps_what_it_begins_with() -> None:
    looks = [Look(at) for at in (0.0, 50.0, 55.0, 100.0, 115.0)]
    assert [55.0, 100.0, 115.0] == [look.at for look in recent(looks, 115.0)]
    assert [0.0, 50.0] == [look.at for look in recent(looks[:2], 50.0)]


def test_tasks_of_several_workers_are_added_up() -> None:
    """A worker that does not answer once, or that begins anew, makes no gap and no jump."""
    first, second = {1.0: 10.0, INF: 10.0}, {1.0: 10.0, INF: 30.0}
    looks = [
        Look(0.0, scrapes={"a": scrape(100, 5, 1, first), "b": scrape(50)}),
        Look(10.0, scrapes={"a": "gone", "b": scrape(70)}),
        Look(20.0, scrapes={"a": scrape(130, 7, 2, second), "b": scrape(10)}),
    ]
    (row,) = picture(looks).tasks
    assert (3 * (30 + 20 + 10), 3 * 3, 3 * 1) == (row.done, row.failed, row.given_up)
    assert (INF, INF, 1.0) == (row.median, row.p95, row.longest)
    (alone,) = picture(looks[:1]).tasks
    assert (None, None, None, 0.5) == (alone.done, alone.failed, alone.given_up, alone.median)


def test_those_that_do_most_come_first() -> None:
    def counts(a: float, b: float) -> Scrape:
        return Scrape(GAUGES, {("a", "succeeded"): a, ("b", "lost"): b, ("c", "succeeded"): 0}, {})

    rows = picture([Look(0.0, scrapes={"w": counts(0, 0)}), Look(60.0, scrapes={"w": counts(2, 5)})]).tasks
    assert [("b", 0, 5), ("a", 2, 0), ("c", 0, 0)] == [(row.name, row.done, row.failed) for row in rows]


def test_the_latest_failures_come_first_and_what_is_hidden_is_told() -> None:
    seen = [GivenUp(f"m{n}", "", None, None, f"t{n}", NOW - timedelta(seconds=n), NOW) for n in range(3)]
    queues = [QueueSeen("mail", 4, 3, [seen[2], seen[0]]), QueueSeen("shop", 4, 1, [seen[1]]), QueueSeen("none", 0)]
    found = picture([Look(0.0, queues), Look(60.0, [*queues, QueueSeen("new", problem="denied")])])
    assert ["mail", "shop", "mail"] == [row.queue for row in found.failures]
    assert "mail-poison: 2 of about 3 messages can be seen" == found.notes[0]
    assert ["new: denied"] == found.problems
    assert [0.0, 0.0, 0.0, None] == [row.arrived for row in found.queues]


def test_failures_that_are_alike_are_one_row() -> None:
    seen = [GivenUp(f"m{n}", "", None, None, "mail.send", NOW - timedelta(seconds=n), NOW) for n in range(3)]
    [row] = picture([Look(0.0, [QueueSeen("mail", 4, 3, [seen[1], seen[0], seen[2]])])]).failures
    assert FailureRow("mail", "mail.send", None, 3, timedelta(0)) == row


def test_what_is_not_known_is_told() -> None:
    bare = picture([Look(0.0, [QueueSeen("mail", 0)])])
    watched = picture([Look(0.0, [], {"w:1": "no answer within 3 s", "w:2": scrape()}, "no such host")])
    assert any("invisible" in note for note in bare.notes)
    assert any("--from" in note for note in bare.notes)
    assert (["no such host", "w:1: no answer within 3 s"], []) == (watched.problems, watched.notes)
