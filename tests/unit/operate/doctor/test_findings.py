import pytest

from qworker.operate.doctor import findings
from qworker.operate.doctor.findings import Verdict


@pytest.mark.parametrize(
    ("ahead", "verdict", "found"),
    [
        (0.4, "ok", "within a few seconds of the service's clock"),
        (-4.9, "ok", "within a few seconds of the service's clock"),
        (7.0, "warning", "7 s behind the service's clock"),
        (-90.0, "warning", "90 s ahead of the service's clock"),
        (-901.0, "failed", "901 s ahead of the service's clock"),
        (None, "warning", "the service's answers don't tell its time"),
    ],
)
def test_a_clock_is_judged_by_what_refuses_and_what_misleads(ahead: float | None, verdict: Verdict, found: str) -> None:
    finding = findings.of_clock(ahead)
    assert (verdict, found) == (finding.verdict, finding.found)
    assert ahead is None or ahead == finding.figures["service_ahead_seconds"]


@pytest.mark.parametrize(
    ("answered", "verdict"),
    [("2025-11-05", "ok"), ("2026-06-06", "ok"), ("2019-02-02", "warning"), (None, "warning")],
)
def test_an_older_protocol_is_doubtful(answered: str | None, verdict: Verdict) -> None:
    assert verdict == findings.of_version(answered, "2025-11-05").verdict


@pytest.mark.parametrize(
    ("seconds", "remote", "verdict"),
    [
        ([0.02, 0.03, 0.9], True, "ok"),
        ([0.02, 0.03, 2.1], True, "warning"),
        ([0.3, 0.3, 0.3], True, "warning"),
        ([0.001, 0.06, 0.07], False, "warning"),
        ([0.001, 0.002, 0.07], False, "ok"),
    ],
)
def test_round_trips_are_judged_by_median_and_worst(seconds: list[float], *, remote: bool, verdict: Verdict) -> None:
    finding = findings.of_times(seconds, remote=remote)
    assert verdict == finding.verdict
    assert {"median_ms": seconds[1] * 1000, "worst_ms": seconds[2] * 1000} == finding.figures
    assert (verdict == "ok") == (not finding.todo)


def test_a_request_without_an_answer_is_told() -> None:
    some, none = (findings.of_times(times, remote=True, unanswered="no answer in time") for times in ([0.02], []))
    assert ("warning", "median 20 ms, worst 20 ms of 1; then no answer in time") == (some.verdict, some.found)
    assert ("failed", "only the first was answered: no answer in time") == (none.verdict, none.found)


def test_a_file_is_judged_by_its_journal_and_its_disk() -> None:
    assert ["ok", "failed"] == [findings.of_journal(mode).verdict for mode in ("wal", "delete")]
    room = [findings.of_disk(mebibytes << 20) for mebibytes in (2000, 500, 50)]
    assert ["ok", "warning", "failed"] == [each.verdict for each in room]
    assert "2,000 MiB free" == room[0].found


def test_polls_are_counted_by_the_month() -> None:
    """An idle queue is asked after 0.75 of poll_max on average: 30 days have 1,728,000 times 1.5 s."""
    one = findings.of_polling(1, 1, 2.0, remote=True, counts=False)
    many = findings.of_polling(3, 4, 5.0, remote=True, counts=True)
    free = findings.of_polling(3, 4, 0.5, remote=False, counts=True)
    requests = [each.figures["requests_a_month"] for each in (one, many, free)]
    assert [1_728_000, 12 * 691_200 + 6 * 172_800, 0] == requests
    assert "1,728,000 requests a month" in one.found
    assert "172.8 times the price of 10,000 operations" in one.found
    assert "(3 queues, 4 processes, poll_max 5 s, with metrics)" in many.found
