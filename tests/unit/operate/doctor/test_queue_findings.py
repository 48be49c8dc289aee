from datetime import UTC, datetime, timedelta

import pytest

from qworker.brokers.base import PeekedMessage, Right
from qworker.job import Job
from qworker.operate.doctor import queue_findings
from qworker.operate.doctor.findings import Verdict
from qworker.operate.doctor.queue_findings import RIGHTS
from qworker.wire.bodies import Encoding
from qworker.wire.bundle import bundled
from qworker.wire.envelope import encode

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
TEXT, BASE64 = encode(Job("j1", "t")), encode(Job("j1", "t"), "base64")
BUNDLE = bundled([TEXT, TEXT], "text")
WORKER: set[Right] = {"get", "update", "delete"}


def seen(*bodies: str, hours: float | None = None) -> list[PeekedMessage]:
    end = None if hours is None else NOW + timedelta(hours=hours)
    return [PeekedMessage(f"m{number}", 0, body, NOW, end, NOW) for number, body in enumerate(bodies)]


@pytest.mark.parametrize(
    ("missing", "poison", "verdicts"),
    [
        (set(), False, ["ok"]),
        ({"put"}, False, ["warning"]),  # as docs/rights.md would have it for a worker
        ({"update"}, False, ["failed"]),
        (WORKER, False, ["failed"] * 3),
        (set(RIGHTS), False, ["failed"] * 4),
        (WORKER, True, ["warning"] * 3),
        ({"put"}, True, ["failed"]),
        (set(RIGHTS), True, ["failed"] * 4),
    ],
)
def test_what_a_worker_can_not_do_without_has_failed(
    missing: set[Right], *, poison: bool, verdicts: list[Verdict]
) -> None:
    denied = {right: "403" for right in RIGHTS if right in missing}
    found = queue_findings.of_rights("mail", denied, poison=poison)
    assert verdicts == [each.verdict for each in found]
    assert all(f"no right to {right}: 403" == each.found for right, each in zip(denied, found, strict=False))


@pytest.mark.parametrize(
    ("bodies", "encoding", "verdict", "says"),
    [
        ([], "text", "ok", "nothing to look at; the app writes text"),
        ([TEXT, BUNDLE], "text", "ok", "2 messages looked at, all text"),
        ([BASE64], "base64", "ok", "1 message looked at, all Base64"),
        ([TEXT, BASE64], "text", "warning", "1 of 2 messages looked at are Base64, the app writes text"),
        ([TEXT, BASE64], "base64", "warning", "1 of 2 messages looked at are text, the app writes Base64"),
        ([TEXT, "{}"], "text", "failed", "1 of 2 messages looked at hold no job: 'task' is missing"),
        (["?", BASE64], "text", "failed", "hold no job: it is neither a JSON object nor Base64"),
    ],
)
def test_bodies_are_read_as_a_worker_would(bodies: list[str], encoding: Encoding, verdict: Verdict, says: str) -> None:
    finding = queue_findings.of_encoding("mail", seen(*bodies), encoding)
    assert verdict == finding.verdict
    assert says in finding.found


def test_what_will_be_dropped_within_a_day_is_told() -> None:
    finding = queue_findings.of_ttl("mail", [*seen(TEXT, hours=30), *seen(TEXT, "?", hours=5), *seen(TEXT)])
    assert ("warning", "mail") == (finding.verdict, finding.queue)
    assert "2 of 4 messages looked at will be dropped unless they run before, the first in 5h" == finding.found


def test_what_lasts_longer_or_is_to_end_is_fine() -> None:
    asked = encode(Job("j1", "t", expires_at=NOW + timedelta(hours=1)))
    in_seconds = encode(Job("j1", "t", ttl=3600))
    messages = [*seen(TEXT, hours=30), *seen(asked, in_seconds, bundled([asked], "text"), hours=1), *seen(TEXT)]
    finding = queue_findings.of_ttl("mail", messages)
    assert "ok" == finding.verdict
    assert "5 messages looked at, none will be dropped within a day; 1 will later" == finding.found
    mixed = seen(bundled([asked, TEXT], "text"), hours=1)
    assert "warning" == queue_findings.of_ttl("mail", mixed).verdict
