"""What a worker process reports to its supervisor, a line of JSON each second."""

import json
from dataclasses import dataclass
from typing import Final

REPORT_FD: Final = "QWORKER_REPORT_FD"
"""In the environment of a worker with a supervisor: the number of the file descriptor that it reports through."""

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name, and its labels in order."""
Samples = dict[Key, float]


@dataclass(frozen=True, slots=True)
class Report:
    """How a worker process is."""

    live: str | None
    """Why it should be restarted, if it should."""
    ready: str | None
    """Why it can't do its work, if it can't."""
    samples: Samples
    """Those that are new, or have changed."""
    gone: tuple[Key, ...] = ()
    """Those that are no more."""


def pack(report: Report) -> bytes:
    """Return a report as a line."""
    samples = [[name, labels, value] for (name, labels), value in report.samples.items()]
    return json.dumps([report.live, report.ready, samples, report.gone]).encode() + b"\n"


def unpack(line: bytes) -> Report:
    """Return what a line says."""
    live, ready, samples, gone = json.loads(line)
    return Report(
        live, ready, {_key(name, labels): value for name, labels, value in samples}, tuple(_key(*key) for key in gone)
    )


def _key(name: str, labels: list[list[str]]) -> Key:
    return name, tuple((label, value) for label, value in labels)
