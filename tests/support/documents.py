"""The blocks of a document, and sessions of commands in them, run as a reader would."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from running import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLEAN_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("QWORKER_", "AZURE_"))}
"""The environment of a reader who has set nothing up."""
_TITLE_OR_BLOCK = re.compile(r"^#+ ([^\n]+)\n|^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    section: str
    language: str
    text: str


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a document, with the titles that they stand under."""
    section, blocks = "", []
    for found in _TITLE_OR_BLOCK.finditer(text):
        title, language, block = found.groups()
        if title is None:
            blocks.append(Block(section, language, block))
        else:
            section = title
    return blocks


def write_module(folder: Path, text: str) -> None:
    """Write a block of Python to the file that its first line names."""
    head, _, code = text.partition("\n")
    named = re.fullmatch(r"# (\w+\.py)", head)
    assert named, f"the block doesn't name its file: {head}"
    (folder / named[1]).write_text(code)


def check_install(verb: str, what: str) -> None:
    """Check a pip command by what it asks for: tests install nothing."""
    found = re.fullmatch(r"\.(?:\[(\w+)\])?", what)
    assert verb == "install"
    assert found
    assert found[1] in {None, *PROJECT["optional-dependencies"]}


def log_lines(output: str, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


class Runner:
    """Runs commands as forks of one process that has all loaded (page_commands.py): many cost little more than one."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "apps" / "page_commands.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
        """Return the exit code, and what was printed."""
        code, printed, _ = self.run_with(command, folder, environment, (os.devnull, "output", "output"))
        return code, printed

    def run_with(
        self,
        command: list[str],
        folder: Path,
        environment: Mapping[str, str],
        streams: tuple[str, str, str] = (os.devnull, "output", "errors"),
    ) -> tuple[int, str, str]:
        """Return the exit code, standard output and standard error.

        Each of the three *streams* is one that is returned, "closed", "unread" (a pipe without a reader), or a file.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"command": command, "folder": str(folder), "environment": environment, "streams": streams}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        code, output, errors = json.loads(self._process.stdout.readline())
        return code, output, errors

    def close(self) -> None:
        self._process.communicate()


class Reader:
    """Does what a page says, in one folder, from its first block to its last."""

    def __init__(self, runner: Runner, folder: Path) -> None:
        self.folder = folder
        self.output = ""
        self._runner = runner
        self._environment = {**CLEAN_ENVIRONMENT}

    def read(self, page: str) -> None:
        """Follow a page; each command has to succeed."""
        for block in blocks_of(page):
            match block.language:
                case "python":
                    write_module(self.folder, block.text)
                case "toml":
                    (self.folder / "pyproject.toml").write_text(block.text)
                case "jsonl":
                    (self.folder / "users.jsonl").write_text(block.text)
                case "console":
                    for line in block.text.splitlines():
                        self._type(line)
                case other:
                    raise AssertionError(f"nobody would know what to do with {other}")

    def _type(self, line: str) -> None:
        assert line.startswith("$ "), line
        program, *arguments = shlex.split(line[2:], comments=True)
        match program:
            case "pip":
                check_install(*arguments)
            case "export":
                name, _, value = arguments[0].partition("=")
                self._environment[name] = value
            case "python" | "qworker":
                until_done = ["--burst"] if arguments[0] == "run" else []
                code, printed = self._runner.run([program, *arguments, *until_done], self.folder, self._environment)
                assert code == 0, f"{line}: exit code {code}\n{printed}"
                self.output += printed
            case other:
                raise AssertionError(f"{other} can't be run here")
