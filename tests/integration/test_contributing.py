"""CONTRIBUTING.md and SECURITY.md, held against the repository that they describe."""

import os
import re
import shlex
import signal
import sys
from pathlib import Path

from documents import blocks_of
from faults.statements import STATEMENTS
from running import ROOT, run, started

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()
_COMMAND = {"python": [sys.executable], "qworker": [sys.executable, "-m", "qworker"]}


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", PAGE)) | {"setup"}
    assert named <= targets
    assert {"test", "lint", "check", "faults"} <= named


def test_the_files_that_it_names_are_there() -> None:
    named = re.findall(r"`((?:qworker|tests|docs|examples|bench)/[\w./]*)`", PAGE)
    commanded = [
        word
        for block in blocks_of(PAGE)
        if block.language == "console"
        for word in shlex.split(block.text)
        if word.startswith("tests/")
    ]
    assert named
    assert commanded
    assert [] == [name for name in (*named, *commanded) if not (ROOT / name).exists()]


def test_it_lists_the_fault_points_that_there_are() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "qworker").rglob("*.py"))
    points = set(re.findall(r'\bfaultpoint(?:_soon)?\("([a-z-]+)"\)', sources))
    rows = section("How to debug with fault points").partition("| point |")[2].splitlines()[2:]
    listed = {point for row in rows if row.startswith("| `") for point in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert points == listed


def test_its_session_with_a_fault_point_goes_as_it_says(tmp_path: Path) -> None:
    (session,) = [
        block for block in blocks_of(section("How to debug with fault points")) if block.language == "console"
    ]
    environment = os.environ | {"QWORKER_BROKER": f"sqlite:///{tmp_path}/jobs.db", "PYTHONUNBUFFERED": "1"}
    enqueue, die, work = (line.removeprefix("$ ") for line in session.text.splitlines())

    program, *arguments = shlex.split(enqueue)
    run([*_COMMAND[program], *arguments], environment=environment)

    variable, program, *arguments = shlex.split(die)
    name, _, value = variable.partition("=")
    with started([*_COMMAND[program], *arguments], environment=environment | {name: value}) as dying:
        assert -signal.SIGKILL == dying.end()
    assert 1 <= dying.output.count("Hello, ")
    assert "job.succeeded" not in dying.output

    program, *arguments = shlex.split(work)
    with started([*_COMMAND[program], *arguments], environment=environment) as working:
        while working.output.count("job.succeeded") < 3:
            working.read_line()
        assert 0 == working.end(signal.SIGTERM)
    assert 3 == working.output.count("Hello, ")


def test_its_guarantees_are_statements_that_are_proved() -> None:
    lists = re.findall(r"\((\d+(?:, \d+)*)(?:, \[|\))", SECURITY)
    numbers = {int(number) for found in lists for number in found.split(", ")}
    assert {*STATEMENTS["Security"]} <= numbers
    assert numbers <= {*STATEMENTS["Security"], *STATEMENTS["Bad input"]}


def test_the_rooms_of_the_page_on_architecture_are_there() -> None:
    """Modules are named in that one table, which is easy to keep; the decisions speak of concepts."""
    before, _, rest = (ROOT / "docs/architecture.md").read_text().partition("## The rooms\n")
    rooms, _, after = rest.partition("\n## ")
    table = rooms.partition("| level |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([\w/.]+)`", row.split("|")[2])}
    packages = {f"{found.parent.name}/" for found in (ROOT / "qworker").glob("*/__init__.py")}
    assert [] == sorted(name for name in named if not (ROOT / "qworker" / name).exists())
    assert packages <= named
    modules = {found.name for found in (ROOT / "qworker").rglob("*.py")}
    assert [] == [name for name in re.findall(r"`(?:\w+/)*(\w+\.py)`", before + after) if name in modules]
