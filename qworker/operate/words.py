"""Puts amounts, spans of time and moments into words."""

from datetime import UTC, datetime
from typing import Final

NONE: Final = "-"
"""An empty cell, so that a script finds as many columns in each line."""
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60))


def counted(count: int, what: str) -> str:
    """Return "1 job", "2 jobs"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def span(seconds: float) -> str:
    """Return a span of time in the largest unit of which it has two: "119s", "2m", "47h", "3d"."""
    whole = max(0, int(seconds))
    for unit, size in _UNITS:
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def age(moment: datetime | None, now: datetime) -> str:
    """Return how long ago something was; NONE if nobody knows."""
    return NONE if moment is None else span((now - moment).total_seconds())


def iso(moment: datetime | None) -> str | None:
    """Return a moment as JSON has it, "2026-11-23T05:00:00.000Z"."""
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
