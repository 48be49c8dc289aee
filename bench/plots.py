"""The plots of docs/performance.md."""

import math
import re
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from bench.board import Board

_OURS: Final = "#1668b8"
_OTHERS: Final = "#9aa5b1"


def draw(board: Board, folder: Path) -> None:
    """Draw what there are results for."""
    folder.mkdir(exist_ok=True)
    for scene in board.scenes("azure: "):
        _bars(board, scene, folder / f"azure-{_slug(scene)}.png")
    if board.whats("sqlite"):
        _bars(board, "sqlite", folder / "sqlite.png")
    for scene in board.scenes("polling"):
        _polling(board, scene, folder / "polling.png")
    if board.whats("sqlite: backlog"):
        _lines(board, "sqlite: backlog", "messages waiting", folder / "backlog.png")


def _slug(scene: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", scene.partition(": ")[2].lower()).strip("-")


def _bars(board: Board, scene: str, path: Path) -> None:
    whats = board.whats(scene)
    figure, axes = plt.subplots(1, len(whats), figsize=(6 * len(whats), 3.4), layout="constrained")
    for axis, what in zip(axes if len(whats) > 1 else [axes], whats, strict=True):
        names = board.who(scene, what)[::-1]
        rates = [board.figure(scene, what, name, lambda r: r.rate) for name in names]
        errors = [[each.median - each.low for each in rates], [each.high - each.median for each in rates]]
        colours = [_OURS if name.startswith("qworker") else _OTHERS for name in names]
        axis.barh(names, [each.median for each in rates], xerr=errors, color=colours, ecolor="#444", capsize=2)
        axis.set_xscale("log")
        least, most = min(each.low for each in rates), max(each.high for each in rates)
        axis.set_xlim(10 ** math.floor(math.log10(least)), most * 3)  # room for the figures
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("jobs a second (logarithmic)")
        axis.set_title(f"{scene}: {what}")
        for position, each in enumerate(rates):
            axis.annotate(f" {each.median:,.0f}", (each.high, position), va="center", fontsize=8)
    _save(figure, path)


def _lines(board: Board, scene: str, label: str, path: Path) -> None:
    names = board.who(scene, "drain")
    rates = [board.figure(scene, "drain", name, lambda r: r.rate) for name in names]
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    errors = [[each.median - each.low for each in rates], [each.high - each.median for each in rates]]
    axis.errorbar([int(name) for name in names], [each.median for each in rates], yerr=errors, color=_OURS, marker="o")
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel(label)
    axis.set_ylabel("jobs a second")
    _save(figure, path)


def _polling(board: Board, scene: str, path: Path) -> None:
    names = board.who(scene, "start p50, ms")
    x = [float(name) for name in names]
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for what, style in (("start p50, ms", "-"), ("start p99, ms", "--")):
        values = [board.figure(scene, what, name, lambda r: r.value).median for name in names]
        axis.plot(x, values, style, color=_OURS, marker="o", label=what)
    axis.set_xlabel("--poll-max, seconds")
    axis.set_ylabel("ms from enqueue to start")
    beside = axis.twinx()
    requests = [board.figure(scene, "idle requests an hour", name, lambda r: r.value).median for name in names]
    beside.plot(x, requests, ":", color="#c2571a", marker="s", label="requests an hour, idle")
    beside.set_ylabel("requests an hour while idle")
    beside.set_ylim(bottom=0)
    axis.set_ylim(bottom=0)
    lines: list[Any] = [*axis.get_lines(), *beside.get_lines()]
    axis.legend(lines, [str(line.get_label()) for line in lines], fontsize=8, loc="upper center")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=120)
    plt.close(figure)
