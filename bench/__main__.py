"""Run all of it, or some: ``python -m bench --help``."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import azure, moments, report, sqlite
from bench.results import Result, append
from bench.servers import Server, azurite, running

_RESULTS = Path(__file__).parents[1] / "build/bench.jsonl"
_SCENES = ("sqlite", "processes", "backlogs", "moments", "starts", "memory", "azure", "polling", "latency")


def main() -> None:
    """Measure, and write docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure qworker beside its peers.")
    parser.add_argument("scenes", nargs="*", default=[], help=f"which of {', '.join(_SCENES)}; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="how many jobs, as a share of what is usual")
    parser.add_argument(
        "--server", action="append", default=[], metavar="NAME=PORT", help="a running server instead of Azurite"
    )
    parser.add_argument("--results", type=Path, default=_RESULTS, help="where results are added")
    parser.add_argument("--report-only", action="store_true", help="measure nothing: write the report of what was")
    options = parser.parse_args()
    if unknown := set(options.scenes) - set(_SCENES):
        parser.error(f"no scene is called {', '.join(sorted(unknown))}: there are {', '.join(_SCENES)}")
    if not options.report_only:
        _measure(options)
    report.write(options.results)


def _measure(options: argparse.Namespace) -> None:
    scenes, rounds, scale = options.scenes or _SCENES, options.rounds, options.scale
    on_machine: dict[str, Callable[[], Iterator[Result]]] = {
        "sqlite": lambda: sqlite.rounds(rounds, scale),
        "processes": lambda: sqlite.processes(rounds, scale),
        "backlogs": lambda: sqlite.backlogs(rounds, scale),
        "moments": lambda: moments.on_sqlite(rounds),
        "starts": lambda: moments.starts(rounds),
        "latency": lambda: moments.latencies(Server("SQLite", "sqlite:///FOLDER/q.db", lambda: 0), 1),
        "memory": lambda: moments.asleep(1, int(10_000 * scale)),
    }
    for name, results in on_machine.items():
        if name in scenes:
            append(options.results, results())
    if not {"azure", "processes", "polling", "latency"}.isdisjoint(scenes):
        for server in [_server(text) for text in options.server]:
            _measure_on(server, options, scenes, scale)
        if not options.server:
            with azurite() as server:
                _measure_on(server, options, scenes, scale / 4)  # it serves some hundred requests a second


def _measure_on(server: Server, options: argparse.Namespace, scenes: Sequence[str], scale: float) -> None:
    if "azure" in scenes:
        append(options.results, azure.rounds(server, options.rounds, scale))
    if "processes" in scenes:
        append(options.results, azure.processes(server, options.rounds, scale))
    if "latency" in scenes:
        append(options.results, moments.latencies(server, 1))
    if "polling" in scenes:
        append(options.results, moments.on_azure(server, 1))


def _server(text: str) -> Server:
    name, _, port = text.rpartition("=")
    return running(name, int(port))


if __name__ == "__main__":
    main()
