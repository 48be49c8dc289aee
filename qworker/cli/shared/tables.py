"""Prints tables and blocks for people, and JSON for scripts; texts that others wrote among them."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Union

from qworker.cli.shared.pipes import print_text
from qworker.lines.escaping import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

Cell = Union[str, "Text"]
"""A cell of a table: a text of anyone's, or one that is printable, with a style."""

_ENDLESS: Final = 1_000_000
"""Columns of a pipe: its reader wants all."""
_SHORTEST: Final = 8
"""Characters of an id that are shown at least."""
_LONGEST_ID: Final = 64
_GAP: Final = 2
"""Characters between two columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    right: bool = False
    """Whether its texts end below each other, as numbers do."""
    gives_way: bool = False
    """Whether its texts are cut where the terminal is too narrow for all columns."""
    wraps: bool = False
    """Whether they are continued below instead."""
    ids: bool = False
    """Whether its texts are ids, of which a beginning is enough where the terminal is too narrow for all."""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below their columns' titles: as wide as a terminal at most, and uncut where none reads it."""
    table = [list(row) for row in rows]
    if sys.stdout.isatty() and _width(columns, table) > _terminal_width():
        for number, column in enumerate(columns):
            if column.ids:
                for row, short in zip(table, beginnings([row[number] for row in table]), strict=True):
                    row[number] = short
    print_whole(make_table(columns, table))


def beginnings(ids: Sequence[str]) -> list[str]:
    """Return the beginnings of ids, as short as they can be to differ from each other."""
    distinct = set(ids)
    size = next(
        (size for size in range(_SHORTEST, _LONGEST_ID) if len({each[:size] for each in distinct}) == len(distinct)),
        _LONGEST_ID,
    )
    return [each[:size] for each in ids]


def _width(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    cells = ([column.title, *(row[number] for row in rows)] for number, column in enumerate(columns))
    return sum(max(map(len, each)) + _GAP for each in cells) - _GAP


def _terminal_width() -> int:
    from rich.console import Console  # noqa: PLC0415 — `qworker --help` need not wait for it

    return Console(file=sys.stdout).width


def print_whole(what: "RenderableType") -> None:
    """Print what rich can render: as wide as a terminal at most, and uncut and plain where none reads it."""
    from rich.console import Console  # noqa: PLC0415 — `qworker --help` need not wait for it

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _ENDLESS, highlight=False)
    with console.capture() as captured:
        console.print(what)
    print_text("".join(f"{line.rstrip()}\n" for line in captured.get().rstrip("\n").split("\n")))


def make_table(columns: Sequence[Column], rows: "Iterable[Sequence[Cell]]") -> "Table":
    """Return a table of rows below their columns' titles."""
    from rich.table import Table  # noqa: PLC0415 — see above
    from rich.text import Text  # noqa: PLC0415 — the same

    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        side: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(
            column.title,
            justify=side,
            no_wrap=not (column.gives_way or column.wraps),
            overflow="fold" if column.wraps else "ellipsis",
        )
    for row in rows:
        cells = [Text(printable(cell)) if isinstance(cell, str) else cell.copy() for cell in row]
        for column, cell in zip(columns, cells, strict=True):
            cell.no_wrap, cell.overflow = not column.wraps, "fold" if column.wraps else "ellipsis"
        table.add_row(*cells)
    return table


def print_block(fields: Mapping[str, str]) -> None:
    """Print names and their texts, one below the other; a text of several lines stands below its name."""
    width = max(map(len, fields), default=0)
    for name, text in fields.items():
        lines = [printable(line) for line in text.rstrip("\n").split("\n")]
        if len(lines) == 1:
            print_text(f"{name:<{width}}  {lines[0]}".rstrip() + "\n")
        else:
            print_text("".join(f"{line}\n" for line in (name, *(f"    {line}" for line in lines))))


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print_text(as_json_text(value) + "\n")


def as_json_text(value: Any) -> str:
    """Return a value as JSON, in ASCII: no terminal and no locale can spoil it."""
    return json.dumps(value, indent=2)
