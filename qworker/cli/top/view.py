"""Lays out `qworker top`: as wide as the terminal, and no higher."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from qworker.cli.shared.hiding import without_secrets
from qworker.cli.shared.tables import Cell, Column, make_table
from qworker.lines.escaping import printable
from qworker.operate.top.model import FailureRow, Picture, QueueRow, Scrape, TaskRow
from qworker.operate.words import NONE, span

_BAD, _DOUBTFUL, _QUIET = "bold red", "yellow", "dim"
_QUEUES: Final = (
    Column("QUEUE", gives_way=True),
    *(Column(title, right=True) for title in ("MESSAGES", "IN/MIN", "OUT/MIN", "GIVEN UP")),
)
_WORKERS: Final = (
    Column("WORKERS AT", gives_way=True),
    *(Column(title, right=True) for title in ("PROCESSES", "RUNNING", "WAITING", "SLOTS", "LOST", "DIED")),
)
_TASKS: Final = (
    Column("TASK", gives_way=True),
    *(Column(title, right=True) for title in ("RUNNING", "DONE/MIN", "FAILED/MIN", "GIVEN UP/MIN", "P50", "P95")),
)
_FAILURES: Final = (
    Column("GIVEN UP", right=True),
    Column("JOBS", right=True),
    Column("QUEUE", gives_way=True),
    Column("TASK", gives_way=True),
    Column("ERROR", gives_way=True),
)
_HEAD: Final = 3
"""Lines beside all sections and notes: the title, a blank one above the notes, and the one that the cursor is in."""
_OF_NOTES: Final = 4
"""The part of the height, one in so many, that notes may take."""


@dataclass(frozen=True, slots=True)
class _Section:
    """A table that may have to be shown in part."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class View:
    """One picture, to be shown on any screen; *height*: lines that there are, without one, as many as it takes."""

    title: str
    picture: Picture | None
    """None before the first."""
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay it out."""
        yield Text(printable(self.title), style="bold", no_wrap=True, overflow="ellipsis")
        if self.picture is None:
            yield Text("asking …", style=_QUIET)
            return
        sections = [section for section in self._sections(self.picture) if section.rows]
        told = ((self.picture.problems, _BAD), (self.picture.notes, _QUIET))
        notes = [Text(printable(without_secrets(note)), style=style) for some, style in told for note in some]
        shown = [len(section.rows) for section in sections]
        if self.height is not None:
            notes = _cut(notes, self.height // _OF_NOTES, console, options)
            lines = sum(len(console.render_lines(note, options)) for note in notes)
            shown = shares(shown, self.height - _HEAD - lines - 2 * len(sections))
        for section, rows in zip(sections, shown, strict=True):
            yield Text()
            yield _table(section, rows)
        yield Text()
        yield Group(*notes)

    def _sections(self, picture: Picture) -> list[_Section]:
        return [
            _Section(_QUEUES, [_queue(row) for row in picture.queues]),
            _Section(_WORKERS, [_worker(where, scrape) for where, scrape in picture.workers.items()]),
            _Section(_TASKS, [_task(row) for row in picture.tasks]),
            _Section(_FAILURES, [_failure(row) for row in picture.failures]),
        ]


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """Divide lines among sections: one for each, and the others one by one to those that still want some."""
    given = [min(1, each) for each in wanted]
    left = room - sum(given)
    while left > 0 and given != list(wanted):
        for number, each in enumerate(wanted):
            if left > 0 and given[number] < each:
                given[number] += 1
                left -= 1
    return given


def _cut(notes: list[Text], room: int, console: Console, options: ConsoleOptions) -> list[Text]:
    """Return notes that take no more than so many lines: the first of them, each in one, if they would."""
    if sum(len(console.render_lines(note, options)) for note in notes) <= room:
        return notes
    for note in notes:
        note.no_wrap, note.overflow = True, "ellipsis"
    return notes[:room]


def _table(section: _Section, shown: int) -> RenderableType:
    """Return so many lines below a heading; the last of them says how many rows there are beside those shown."""
    rows = section.rows
    hidden = len(rows) - shown
    if not hidden or shown < 2:  # noqa: PLR2004 — a single line is a row's
        return make_table(section.columns, rows[:shown])
    more = Text(f"… {hidden + 1} more", style=_QUIET, no_wrap=True)
    return Group(make_table(section.columns, rows[: shown - 1]), more)


def _queue(row: QueueRow) -> list[Cell]:
    return [
        without_secrets(row.name),
        _whole(row.messages),
        _rate(row.arrived),
        _rate(row.left),
        Text(_whole(row.poison), style=_BAD if row.poison else ""),
    ]


def _worker(where: str, scrape: Scrape | str) -> list[Cell]:
    if isinstance(scrape, str):
        return [Text(printable(where), style=_BAD), *[NONE] * 6]
    gauges = scrape.gauges
    running, slots = gauges.get("running"), gauges.get("slots")
    full = running is not None and slots is not None and running >= slots > 0
    return [
        where,
        _whole(gauges.get("workers")),
        Text(_whole(running), style=_DOUBTFUL if full else ""),
        _whole(gauges.get("waiting")),
        _whole(slots),
        *(
            Text(_whole(gauges.get(name)), style=_BAD if gauges.get(name) else "")
            for name in ("leases_lost", "process_deaths")
        ),
    ]


def _task(row: TaskRow) -> list[Cell]:
    return [
        row.name,
        _whole(row.running),
        _rate(row.done),
        Text(_rate(row.failed), style=_DOUBTFUL if row.failed else ""),
        Text(_rate(row.given_up), style=_BAD if row.given_up else ""),
        _seconds(row.median, row.longest),
        _seconds(row.p95, row.longest),
    ]


def _failure(row: FailureRow) -> list[Cell]:
    error = "not recorded" if row.error is None else row.error
    return [f"{span(row.ago.total_seconds())} ago", str(row.jobs), row.queue, row.task or NONE, error]


def _whole(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}"


def _rate(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"  # noqa: PLR2004 — two figures are enough


def _seconds(value: float | None, longest: float | None) -> str:
    if value is None:
        return NONE
    if math.isinf(value):
        return f">{longest:g}s"
    return f"{value * 1000:.3g}ms" if value < 1 else f"{value:.3g}s"
