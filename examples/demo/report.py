"""What the demo found, as tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from examples.demo.files import short
from qworker.brokers.base import MAX_BATCH, Queue
from qworker.poison.record import PoisonRecord, decode_poison
from qworker.wire.envelope import decode

LOOK = 60
"""Seconds that a poisoned job stays out of sight after it was read here."""


def read_results(file: Path) -> list[dict[str, Any]]:
    """Return the results, one for each file: a job may run twice, and says the same twice."""
    lines = file.read_text().splitlines() if file.exists() else []
    return list({result["path"]: result for result in map(json.loads, lines)}.values())


async def read_poison(queue: Queue) -> list[PoisonRecord]:
    """Return the records of all jobs that were given up, and leave them where they are."""
    records: list[PoisonRecord] = []
    while messages := await queue.get(MAX_BATCH, visibility=LOOK):
        records += (decode_poison(message.body) for message in messages)
    return records


def print_totals(console: Console, files: int, results: Sequence[dict[str, Any]], failed: int, seconds: float) -> None:
    """Print what all files come to."""
    table = Table(title="The standard library", title_justify="left", show_header=False, box=SIMPLE_HEAD)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("different contents", f"{len({result['sha256'] for result in results}):,}")
    for name in ("lines", "functions", "classes"):
        table.add_row(name, f"{sum(result[name] for result in results):,}")
    table.add_section()
    table.add_row("files", f"{files:,}")
    table.add_row("measured", f"{len(results):,}")
    table.add_row("failed", f"{failed:,}")
    table.add_section()
    table.add_row("seconds", f"{seconds:.1f}")
    table.add_row("jobs/s", f"{files / seconds:,.0f}")
    console.print(table)


def print_failures(console: Console, records: Sequence[PoisonRecord]) -> None:
    """Print which files failed and why, as the poison queue tells it."""
    console.print("\nIn the poison queue:", style="italic")
    for name, record in sorted((_file_of(record), record) for record in records):
        console.print(f"  {escape(name)} [dim]after {record.attempts} attempts[/]", soft_wrap=True)
        console.print(Padding(Text(str(record.failure), "red"), (0, 4)))
    console.print()


def _file_of(record: PoisonRecord) -> str:
    job = decode(record.body, message_id=record.message_id)
    return short(Path(job.args[0]))
