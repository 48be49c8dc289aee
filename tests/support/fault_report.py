"""The tests of faults: short in the whole suite, in full with --full, and as a table.

A test marked ``@pytest.mark.fault(13)`` proves a part, or the whole, of statement 13 in faults/statements.py.
It takes the fixture ``fault``, which says how much to do, hands out the seed, and notes what was done and seen.
"""

import os
import platform
import random
import textwrap
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from faults.statements import STATEMENTS

T = TypeVar("T")
_BEGIN, _END = "<!-- written by make faults -->\n", "<!-- end of what make faults writes -->\n"
_FULL_TIMEOUT: Final = 1_500
_SEED: Final = pytest.StashKey[int]()
_TABLE: Final = pytest.StashKey["FaultTable"]()


class Fault:
    """What a fault's test may do, and what it has to tell."""

    def __init__(self, node: pytest.Item, *, full: bool, seed: int) -> None:
        self._node = node
        self.full = full
        self.seed = seed
        self.random = random.Random(seed)

    def scale(self, *, short: T, full: T) -> T:
        """Return the first in the whole suite, the second in `make faults`."""
        return full if self.full else short

    def did(self, text: str) -> None:
        """Note what was done, with its figures: "200 kills over 10,000 jobs"."""
        self._node.user_properties.append(("did", text))

    def saw(self, text: str) -> None:
        """Note what was measured: "lost 0, slowest restart 5.1 s"."""
        self._node.user_properties.append(("saw", text))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--full", action="store_true", help="run the faults in their full form")
    group.addoption("--seed", type=int, default=None, help="what randomness begins with")
    group.addoption("--fault-table", metavar="FILE", default=None, help="write the table of faults into FILE")


def pytest_configure(config: pytest.Config) -> None:
    marker = "fault(*numbers, minutes=0): proves these statements of tests/faults/statements.py; in full, it takes long"
    config.addinivalue_line("markers", marker)
    given = config.getoption("--seed")
    workers = getattr(config, "workerinput", {})
    config.stash[_SEED] = workers.get("fault_seed", given if given is not None else random.randrange(10**6))
    if config.getoption("--fault-table") and not workers:
        config.stash[_TABLE] = table = FaultTable(config.stash[_SEED])
        config.pluginmanager.register(table)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give the seed to a process of pytest-xdist."""
    node.workerinput["fault_seed"] = node.config.stash[_SEED]


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.stash[_SEED]} (again with --seed {config.stash[_SEED]})"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        numbers = [number for marker in item.iter_markers("fault") for number in marker.args]
        item.user_properties.append(("faults", numbers))
        if numbers and config.getoption("--full"):
            item.add_marker(pytest.mark.timeout(_FULL_TIMEOUT))
    if config.getoption("--full"):
        items[:] = _longest_soon(items)


def _longest_soon(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return tests in an order that has the long ones begin early and side by side: xdist gives out two at a time."""
    minutes = {item: max((m.kwargs.get("minutes", 0) for m in item.iter_markers("fault")), default=0) for item in items}
    long = sorted((item for item in items if minutes[item]), key=lambda item: -minutes[item])
    short = [item for item in items if not minutes[item]]
    pairs = zip_longest(long, short[: len(long)])
    return [item for pair in pairs for item in pair if item is not None] + short[len(long) :]


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    """How much to do, and the seed, which is of this test alone and follows from the run's."""
    base = request.config.stash[_SEED]
    seed = zlib.crc32(f"{base} {request.node.nodeid}".encode())
    print(f"seed {seed}: again with --seed {base}")  # noqa: T201 — pytest shows it on failure
    return Fault(request.node, full=request.config.getoption("--full"), seed=seed)


@dataclass
class _Row:
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    did: list[str] = field(default_factory=list)
    saw: list[str] = field(default_factory=list)

    @property
    def holds(self) -> str:
        if self.failed:
            return "**no**"
        return "yes" if self.passed else "**no test**"


class FaultTable:
    """Collects what the tests of faults noted, prints it as a table, and writes it into a file."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._began = time.monotonic()
        self._rows: defaultdict[int, _Row] = defaultdict(_Row)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = report.user_properties
        numbers = next((value for key, value in properties if key == "faults"), [])
        if not isinstance(numbers, list) or (report.when != "call" and not report.failed):
            return
        for number in numbers:
            row = self._rows[number]
            row.did += [str(value) for key, value in properties if key == "did"]
            row.saw += [_with_variant(report.nodeid, str(value)) for key, value in properties if key == "saw"]
            if report.failed:
                row.failed.append(report.nodeid)
            else:
                row.passed += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        terminalreporter.section("faults")
        for group, statements in STATEMENTS.items():
            terminalreporter.write_line(f"\n{group}")
            for number, statement in statements.items():
                self._print(terminalreporter, number, statement)
        terminalreporter.write_line(f"\n{self._summary()}")
        _write_between(Path(config.getoption("--fault-table")), self._markdown())

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.OK and self._held() < _total():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _print(self, terminal: pytest.TerminalReporter, number: int, statement: str) -> None:
        row = self._rows[number]
        holds = row.holds.strip("*")
        body = f"{statement}  | did: {'; '.join(_unique(row.did)) or '-'}  | saw: {'; '.join(row.saw) or '-'}"
        lines = textwrap.wrap(body, 110, subsequent_indent=" " * 13)
        terminal.write_line(f"{number:>4} {holds:<8}{lines[0]}", green=holds == "yes", red=holds != "yes")
        for line in lines[1:]:
            terminal.write_line(line)

    def _held(self) -> int:
        return sum(self._rows[number].holds == "yes" for group in STATEMENTS.values() for number in group)

    def _summary(self) -> str:
        minutes = (time.monotonic() - self._began) / 60
        return f"{self._held()} of {_total()} hold; seed {self._seed}; {minutes:.0f} min"

    def _markdown(self) -> str:
        python = platform.python_version()
        machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {python}"
        lines = [f"{datetime.now(UTC):%Y-%m-%d}, {machine}: {self._summary()}.", ""]
        for group, statements in STATEMENTS.items():
            lines += [f"### {group}", "", "| | statement | test | observed | holds |", "|---|---|---|---|---|"]
            for number, statement in statements.items():
                row = self._rows[number]
                did, saw = "; ".join(_unique(row.did)), "; ".join(row.saw)
                cells = [str(number), statement, did, saw, row.holds]
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
            lines.append("")
        return "\n".join(lines)


def _unique(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _with_variant(nodeid: str, text: str) -> str:
    """Say of which broker a figure is."""
    variant = nodeid.partition("[")[2].rstrip("]")
    return f"{variant}: {text}" if variant else text


def _total() -> int:
    return sum(len(group) for group in STATEMENTS.values())


def _write_between(file: Path, text: str) -> None:
    """Replace what an earlier run wrote into the file."""
    before, begin, rest = (file.read_text() if file.exists() else "").partition(_BEGIN)
    after = rest.partition(_END)[2] if begin else ""
    file.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")
