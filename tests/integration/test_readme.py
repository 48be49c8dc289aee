"""Each snippet of README.md is executed."""

import shlex
import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import pytest

from azurite_server import Azurite
from documents import CLEAN_ENVIRONMENT, blocks_of, check_install, log_lines, write_module
from running import ROOT, run

README = (ROOT / "README.md").read_text()
PROGRAMS = {"python": [sys.executable], "qworker": [sys.executable, "-m", "qworker"]}
BLOCKS = blocks_of(README)


def block(section: str, language: str, number: int = 0) -> str:
    return [found.text for found in BLOCKS if found[:2] == (section, language)][number]


def play(session: str, folder: Path, environment: dict[str, str], values: Mapping[str, str] | None = None) -> str:
    """Execute a console session, in which *values* stand for settings that exist nowhere; return its output."""
    output = ""
    for line in session.splitlines():
        assert line.startswith("$ ")
        program, *arguments = shlex.split(line[2:], comments=True)
        if program == "pip":
            check_install(*arguments)
        elif program == "export":
            name, _, value = arguments[0].partition("=")
            environment[name] = values[value] if values else value
        else:
            until_done = ["--burst"] if arguments[0] == "run" else []
            command = [*PROGRAMS[program], *arguments, *until_done]
            output += run(command, cwd=folder, environment=environment)
    return output


@pytest.fixture
def environment() -> dict[str, str]:
    return {**CLEAN_ENVIRONMENT}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader has saved the first task and its producer."""
    write_module(tmp_path, block("qworker", "python"))
    write_module(tmp_path, block("A first task", "python"))
    return tmp_path


def test_every_block_has_its_test() -> None:
    assert [
        ("qworker", ["python", "console"]),
        ("A first task", ["python", "console"]),
        ("The same on Azure", ["console", "console", "console"]),
    ] == [(title, [found.language for found in group]) for title, group in groupby(BLOCKS, lambda found: found.section)]
    assert README.count("```") == 2 * len(BLOCKS)


def test_the_two_commands() -> None:
    demo, install = block("qworker", "console").splitlines()
    assert run([*shlex.split(demo.removeprefix("$ "), comments=True), "--dry-run"])
    check_install(*shlex.split(install.removeprefix("$ pip "), comments=True))


def test_the_first_task(folder: Path, environment: dict[str, str]) -> None:
    output = play(block("A first task", "console"), folder, environment)

    assert {"hello, Ada", "hello, Grace"} <= set(output.splitlines())
    assert (folder / "qworker.db").exists()
    assert len(block("qworker", "python").splitlines()) <= 7


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0, "DefaultEndpointsProtocol=https;AccountName=myaccount;AccountKey=…"),
        (2, "UseDevelopmentStorage=true"),
    ],
)
def test_the_same_on_azure(
    number: int,
    value: str,
    folder: Path,
    environment: dict[str, str],
    azurite: Azurite,
) -> None:
    session = block("The same on Azure", "console", number)

    output = play(session, folder, environment, {value: azurite.connection_string})

    assert 1 == output.splitlines().count("hello, Ada")
    (ready,) = log_lines(output, "worker.started")
    assert str(azurite.port) in ready["broker"]


def test_a_managed_identity_is_accepted(folder: Path, environment: dict[str, str]) -> None:
    """No sign-in is to be had here: the broker is made, and connects to nothing."""
    install, export, work = block("The same on Azure", "console", 1).splitlines(keepends=True)
    play(install + export, folder, environment)
    assert work == "$ qworker run tasks\n"

    show = "import tasks, qworker; print(qworker.default_app.broker.label)"
    label = run([sys.executable, "-c", show], cwd=folder, environment=environment)

    assert "myaccount" in label
