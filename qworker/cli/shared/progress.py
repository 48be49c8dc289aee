"""A bar that shows how far a command has come: on a terminal only, on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qworker.system.streams import forgiving

Told = Callable[[int, int, str], None]
"""Called with the number done, the total, and a text about them."""


@contextmanager
def progress_bar(title: str) -> Iterator[Told]:
    """Show a bar while the body runs; where no terminal reads standard error, nothing."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console  # noqa: PLC0415 — `qworker --help` need not wait for it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=forgiving(sys.stderr)), transient=True) as bar:
        shown = bar.add_task(title, total=None, said="")
        yield lambda done, total, said: bar.update(shown, completed=done, total=total, said=said)
