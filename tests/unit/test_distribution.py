import re
import subprocess
import tomllib
from collections.abc import Iterator

import pytest

from qworker import _distribution
from running import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {*PROJECT["optional-dependencies"]}
_COMMAND = re.compile(r"pip3? (?:install|download|wheel)[^\n`]*")
_WITH_EXTRAS = re.compile(r"(?<![\w.-])(qworker(?:-\w+)*)\[([\w,]+)\]")
_ALONE = re.compile(r"(?<![\w./-])qworker(?![\w.\[/-])")


def texts() -> Iterator[tuple[str, str]]:
    """Each text of the repository but this one, with its name."""
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split():
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".yaml", ".txt", ".bicep", ".service", ""}
            and path.name != "test_distribution.py"
        ):
            yield name, path.read_text()


def strangers_in(text: str) -> list[str]:
    """Return what would install a distribution that is not ours, or an extra that is not there."""
    alone = [command for command in _COMMAND.findall(text) if _ALONE.search(command)]
    named = [
        f"{name}[{extras}]"
        for name, extras in _WITH_EXTRAS.findall(text)
        if name != _distribution.NAME or not EXTRAS.issuperset(extras.split(","))
    ]
    return alone + named


def test_the_name_is_that_of_the_project() -> None:
    assert PROJECT["name"] == _distribution.NAME
    assert PROJECT["version"] == _distribution.version()


def test_no_hint_names_another_distribution() -> None:
    found = {name: strangers for name, text in texts() if (strangers := strangers_in(text))}
    assert {} == found


@pytest.mark.parametrize(
    "hint",
    [
        "pip install qworker",
        "pip install 'qworker[metrics]'",
        "pip install -U qworker==1.0",
        "$ pip install --upgrade 'qworker[metrics,otel]>=1'",
        "pip install 'qworker-azure[metricks]'",
        "dependencies = ['qworker[otel]']",
    ],
)
def test_a_hint_at_a_stranger_is_found(hint: str) -> None:
    assert strangers_in(hint)


@pytest.mark.parametrize("hint", [_distribution.install(extra) for extra in sorted(EXTRAS)])
def test_our_own_hints_are_fine(hint: str) -> None:
    assert [] == strangers_in(hint)
