"""The snippets of docs/options.md are executed, and its tables compared with the code."""

import inspect
import re
import signal
import sys
from pathlib import Path

import pytest

from documents import CLEAN_ENVIRONMENT, blocks_of, log_lines, write_module
from qworker import Backoff, Task
from qworker.settings import Settings
from running import ROOT, run, started

PAGE = (ROOT / "docs" / "options.md").read_text()
MODULE, SETTINGS = blocks_of(PAGE)
QWORKER = [sys.executable, "-m", "qworker"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader has saved the example."""
    write_module(tmp_path, MODULE.text)
    return tmp_path


def test_the_blocks_are_those_that_are_tried() -> None:
    assert ["python", "toml"] == [MODULE.language, SETTINGS.language]


def test_the_options_of_a_task(folder: Path) -> None:
    run([sys.executable, "mail.py"], cwd=folder, environment=CLEAN_ENVIRONMENT)

    with started([*QWORKER, "run", "mail"], cwd=folder, environment=CLEAN_ENVIRONMENT) as worker:
        worker.wait_for('"event": "job.poisoned"')
        while len(log_lines(worker.output, "job.succeeded")) < 2:
            worker.read_line()
        assert worker.end(signal.SIGTERM) == 0

    (rejected,) = log_lines(worker.output, "job.poisoned")
    assert rejected["error"] == "Reject: 'nobody' is no address"
    retried = log_lines(worker.output, "job.retried")
    assert [("mail.send", "1/8", "1s")] * 2 == [(line["task"], line["attempt"], line["retry_in"]) for line in retried]


def test_the_settings_in_pyproject(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(SETTINGS.text)

    output = run([*QWORKER, "run", "--burst"], cwd=folder, environment=CLEAN_ENVIRONMENT)

    (ready,) = log_lines(output, "worker.started")
    assert ("mail,default", "90s", 1) == (ready["queues"], ready["lease"], ready["tasks"])


def names_in_table(head: str) -> list[str]:
    """Return the names in the first column of the table with this heading, with no letters of flags."""
    rows = PAGE.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_the_tables_name_every_option() -> None:
    assert set(names_in_table("option of `@task`")) == set(inspect.signature(Task).parameters) - {
        "function",
        "sender",
        "surroundings",
    }
    assert set(names_in_table("option of `using(…)`")) == set(inspect.signature(Task.using).parameters) - {"self"}
    assert set(names_in_table("setting")) == set(Settings.model_fields)


def in_words(default: object) -> str:
    """Return a setting's default as the table has it; nothing where it depends on something else."""
    match default:
        case None | {}:
            return ""
        case bool():
            return "yes" if default else "no"
        case str():
            return f"`{default}`"
        case _:
            return str(default)


def test_the_table_of_settings_has_the_defaults() -> None:
    rows = PAGE.partition("| setting |")[2].partition("\n\n")[0].splitlines()[2:]
    shown = {
        name: default.strip().removesuffix(" s")
        for _, names, default, *_ in (row.split("|") for row in rows)
        for name in re.findall(r"`(\w+)`", names)
    }
    expected = {name: in_words(field.default) for name, field in Settings.model_fields.items()}
    assert {name: default for name, default in expected.items() if default} == {
        name: default for name, default in shown.items() if expected[name]
    }


def test_the_tables_of_options_have_the_defaults() -> None:
    rows = PAGE.partition("| option of `@task` |")[2].partition("\n\n")[0].splitlines()[2:]
    shown = {row.split("|")[1].strip(" `"): row.split("|")[2].strip(" `") for row in rows}
    signature = inspect.signature(Task).parameters
    assert ('"default"', "5", "1") == (shown["queue"], shown["max_attempts"], shown["bundle"])
    assert ("default", 5, 1) == tuple(signature[name].default for name in ("queue", "max_attempts", "bundle"))
    assert eval(shown["backoff"], {"Backoff": Backoff}) == Backoff()


def test_the_table_of_settings_has_the_flags() -> None:
    usage = run([*QWORKER, "run", "--help"])
    without_flag = {"app", "poll_min", "encoding", "tracing"}

    for name in set(names_in_table("setting")) - without_flag:
        assert f"--{name.replace('_', '-')} " in usage
    for letter, name in re.findall(r"(-\w), --([\w-]+)", usage):
        assert letter == "-h" or re.search(rf"`{name.replace('-', '_')}`, `{letter}`", PAGE)
    for name in without_flag:
        assert f"--{name.replace('_', '-')} " not in usage
