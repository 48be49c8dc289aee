"""Shows bad lines, and on a terminal a bar, on standard error while many jobs are enqueued."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from qworker.cli.enqueue.bulk import Unreported, View
from qworker.cli.enqueue.lines import LineSource
from qworker.cli.shared.hiding import without_secrets
from qworker.cli.shared.pipes import say
from qworker.lines.escaping import printable
from qworker.system.streams import forgiving


class _Lines:
    """Bad lines only, for a pipe or a file."""

    def bad_line(self, number: int, problem: str) -> None:
        if not say(_report(number, problem)):
            raise Unreported

    def enqueued(self, jobs: int) -> None:
        """Show nothing: a written line would stay."""


class _Bar:
    """A bar of the bytes read, beneath the bad lines."""

    def __init__(self, progress: Progress, source: LineSource) -> None:
        self._progress = progress
        self._source = source
        self._bar = progress.add_task("", total=source.size, jobs=0, rate=0)

    def bad_line(self, number: int, problem: str) -> None:
        self._progress.console.print(Text(_report(number, problem)), soft_wrap=True)

    def enqueued(self, jobs: int) -> None:
        elapsed = self._progress.tasks[self._bar].elapsed or 1
        self._progress.update(self._bar, completed=self._source.bytes_read, jobs=jobs, rate=jobs / elapsed)


@contextmanager
def view_of(source: LineSource) -> Iterator[View]:
    """Show it as long as the ``with`` block."""
    console = Console(file=forgiving(sys.stderr))
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.fields[jobs]:,} jobs"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        BarColumn(bar_width=None),
        TimeElapsedColumn() if source.size is None else TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, source)


def _report(number: int, problem: str) -> str:
    return printable(without_secrets(f"qworker: line {number}: {' '.join(problem.split())}"))
