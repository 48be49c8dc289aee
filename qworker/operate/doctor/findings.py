"""Judges the findings of a check-up on a broker: fine, doubtful or broken, and the remedy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal

from qworker.operate.words import counted

Verdict = Literal["ok", "warning", "failed"]

_CLOCK_DOUBTFUL: Final = 5.0
_CLOCK_BROKEN: Final = 15 * 60.0
"""Seconds; the service refuses a request that is signed with a key and older than this."""
_SLOW: Final = {True: 0.25, False: 0.05}
"""Seconds that the median of a service's answers, and of looks at a file, should stay below."""
_STALLED: Final = 2.0
"""Seconds that no answer should take: a renewal has a few of them to succeed in."""
_FREE_DOUBTFUL: Final = 1 << 30
_FREE_BROKEN: Final = 64 << 20
"""Bytes; the log beside the file alone may take a quarter of them."""
_MONTH: Final = 30 * 86_400
_PRICED: Final = 10_000
"""Operations that a price list has a price for."""
_MEAN_REST: Final = 0.75
"""Of the longest rest between polls: each is shortened by a random part, up to half of it."""
_COUNT_EVERY: Final = 15
"""Seconds between two looks at the lengths of all queues, where metrics are served."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check-up."""

    check: str
    verdict: Verdict
    found: str
    todo: str = ""
    queue: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    """Numbers that a script may want to compare."""


def of_clock(ahead: float | None) -> Finding:
    """Judge by how many seconds a service's clock is ahead of this machine's."""
    if ahead is None:
        return Finding("clock", "warning", "the service's answers don't tell its time")
    figures = {"service_ahead_seconds": round(ahead, 1)}
    found = f"{abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the service's clock"
    if abs(ahead) < _CLOCK_DOUBTFUL:
        return Finding("clock", "ok", "within a few seconds of the service's clock", figures=figures)
    if abs(ahead) < _CLOCK_BROKEN:
        todo = "set this machine's clock by NTP: logs use it, and beyond 15 minutes the service rejects signed requests"
        return Finding("clock", "warning", found, todo, None, figures)
    return Finding(
        "clock",
        "failed",
        found,
        "set this machine's clock by NTP: beyond 15 minutes the service rejects signed requests",
        None,
        figures,
    )


def of_version(answered: str | None, asked: str | None) -> Finding:
    """Judge the version of the protocol that a service answered in; they are dates. Emulators name their newest."""
    if answered is None or asked is None:
        found = f"asked for {asked}, the answer names none"
        return Finding("api version", "warning", found, "does the queue service itself answer, or a proxy?")
    if answered < asked:
        found = f"asked for {asked}, answered in {answered}"
        return Finding("api version", "warning", found, "the service is older than qworker expects")
    return Finding(
        "api version", "ok", f"{asked}, as asked for" if answered == asked else f"{asked}, answered by {answered}"
    )


def of_times(seconds: Sequence[float], *, remote: bool, unanswered: str | None = None) -> Finding:
    """Judge how long requests took, and why one had no answer, if one hadn't."""
    if not seconds:
        return Finding(
            "round trips", "failed", f"only the first was answered: {unanswered}", "check whether this persists"
        )
    middle, worst = median(seconds), max(seconds)
    figures = {"median_ms": round(middle * 1000, 1), "worst_ms": round(worst * 1000, 1)}
    found = f"median {_ms(middle)}, worst {_ms(worst)} of {len(seconds)}"
    if unanswered is not None:
        return Finding(
            "round trips", "warning", f"{found}; then {unanswered}", "check whether this persists", None, figures
        )
    if worst >= _STALLED:
        todo = "find what stalls: network, a busy machine" if remote else "find what stalls: the disk, a busy machine"
        return Finding("round trips", "warning", found, todo, None, figures)
    if middle >= _SLOW[remote]:
        todo = (
            "run workers in the account's region, and more jobs at once (-c)"
            if remote
            else "a quicker disk, or more jobs at once (-c)"
        )
        return Finding("round trips", "warning", found, todo, None, figures)
    return Finding("round trips", "ok", found, figures=figures)


def of_journal(mode: str) -> Finding:
    """Judge how an SQLite file keeps its transactions."""
    if mode == "wal":
        return Finding("journal", "ok", "wal")
    return Finding("journal", "failed", mode, "SQLite can't keep a write-ahead log there: put the file on a local disk")


def of_disk(free: int) -> Finding:
    """Judge how many bytes are left on the disk of an SQLite file."""
    found, figures = f"{free / (1 << 20):,.0f} MiB free", {"free_bytes": free}
    if free >= _FREE_DOUBTFUL:
        return Finding("disk", "ok", found, figures=figures)
    todo = "make room: once the disk is full, no job can be enqueued or ended"
    return Finding("disk", "warning" if free >= _FREE_BROKEN else "failed", found, todo, None, figures)


def of_polling(queues: int, processes: int, poll_max: float, *, remote: bool, counts: bool) -> Finding:
    """Return the requests of idle workers in a month of 30 days; *counts*: they ask for the lengths of queues, too.

    What a request costs is a matter of the account: its kind, its region and the year.
    """
    if not remote:
        return Finding("polling", "ok", "costs nothing: there are no requests", figures={"requests_a_month": 0})
    polls = round(queues * processes * _MONTH / (poll_max * _MEAN_REST))
    lengths = 2 * queues * _MONTH // _COUNT_EVERY if counts else 0  # of its poison queue too
    total = polls + lengths
    workers = f"{processes} process{'' if processes == 1 else 'es'}"
    found = (
        f"{total:,} requests a month on each machine while idle ({counted(queues, 'queue')}, "
        f"{workers}, poll_max {poll_max:g} s{', with metrics' if counts else ''}): "
        f"{total / _PRICED:,.1f} times the price of 10,000 operations; each job takes about two more"
    )
    return Finding("polling", "ok", found, figures={"requests_a_month": total})


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"  # noqa: PLR2004 — two figures are enough
