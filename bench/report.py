"""Turns results into docs/performance.md: medians, and the spread between rounds."""

import platform
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from bench import plots
from bench.board import Board, Figure
from bench.results import load

_DOCS: Final = Path(__file__).parents[1] / "docs"
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"
_TITLES: Final = {"sqlite: moments": "SQLite: an idle worker"}


def write(results: Path) -> None:
    """Put the figures into docs/performance.md, and draw its plots."""
    board = Board(load(results))
    page = _DOCS / "performance.md"
    text = page.read_text(encoding="utf-8")
    before, after = text.partition(_BEGIN)[0], text.partition(_END)[2]
    tables = "\n".join([_machine(), *_tables(board)])
    page.write_text(f"{before}{_BEGIN}\n\n{tables}\n{_END}{after}", encoding="utf-8")
    plots.draw(board, _DOCS / "img")


def _machine() -> str:
    memory = psutil.virtual_memory().total / (1 << 30)
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {psutil.cpu_count()} cores ({platform.machine()}), "
        f"{memory:.0f} GiB, Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}. "
        "Each figure is the median of all rounds, with the lowest and the highest in brackets.\n"
    )


def _tables(board: Board) -> Iterable[str]:
    for scene in [*board.scenes("azure: "), *board.scenes("processes: "), *board.scenes("sqlite")]:
        if "moments" not in scene:
            yield from _rates(board, scene)
    for scene in [
        *board.scenes("latency"),
        *board.scenes("sqlite: moments"),
        *board.scenes("polling"),
        *board.scenes("start"),
        *board.scenes("memory"),
    ]:
        yield from _values(board, scene)


def _rates(board: Board, scene: str) -> Iterable[str]:
    counted = not scene.startswith("sqlite")
    for what in board.whats(scene):
        yield f"### {_title(scene)}: {what}\n"
        yield f"| | jobs/s | CPU, ms per job | {'requests per job | ' if counted else ''}rate relative to qworker |"
        yield f"|---|---|---|---|{'---|' if counted else ''}"
        names = board.who(scene, what)
        best = board.figure(scene, what, names[0], lambda r: r.rate).median
        for name in names:
            rate = board.figure(scene, what, name, lambda r: r.rate)
            cpu = board.figure(scene, what, name, lambda r: r.cpu_ms)
            requests = board.figure(scene, what, name, lambda r: r.requests)
            cells = [name, rate.text(), cpu.text(".3f"), *([requests.text(".3f")] if counted else [])]
            yield f"| {' | '.join(cells)} | {rate.median / best:.3g} |"
        yield ""


def _title(scene: str) -> str:
    return _TITLES.get(scene) or f"{scene[0].upper()}{scene[1:]}".replace("Sqlite", "SQLite")


def _plain(figure: Figure) -> str:
    form = ",.0f" if figure.high >= 100 else ".3g"  # noqa: PLR2004 - three digits are enough of it
    return figure.text(form) if figure.low < figure.high else f"{figure.median:{form}}"


def _values(board: Board, scene: str) -> Iterable[str]:
    whats = board.whats(scene)
    names = list(dict.fromkeys(name for what in whats for name in board.who(scene, what)))
    yield f"### {_title(scene)}\n"
    yield f"| | {' | '.join(whats)} |"
    yield f"|---|{'---|' * len(whats)}"
    for name in names:
        cells = [
            _plain(board.figure(scene, what, name, lambda r: r.value)) if name in board.who(scene, what) else ""
            for what in whats
        ]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
