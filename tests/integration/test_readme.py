"""Each snippet of README.md is executed, and each table of options compared with the code."""

import inspect
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import pytest

from azurite_server import Azurite
from documents import blocks_of, check_install, log_lines, write_module
from qworker import Task
from qworker.settings import Settings
from running import ROOT, run, started

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
    return {name: value for name, value in os.environ.items() if not name.startswith(("QWORKER_", "AZURE_"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader has saved the first task."""
    write_module(tmp_path, block("A first task", "python"))
    return tmp_path


def test_every_block_has_its_test() -> None:
    assert [
        ("qworker", ["console"]),
        ("A first task", ["python", "console"]),
        ("The same on Azure", ["console", "console", "console"]),
        ("Options", ["python", "toml"]),
        ("Jobs that were given up", ["console"]),
        ("Jobs from a file or a pipe", ["jsonl", "console"]),
        ("Producers in other languages", ["console"]),
        ("Testing your tasks", ["python"]),
    ] == [(title, [found.language for found in group]) for title, group in groupby(BLOCKS, lambda found: found.section)]
    assert README.count("```") == 2 * len(BLOCKS)


def test_the_two_commands() -> None:
    for line in block("qworker", "console").splitlines():
        assert run([*line.removeprefix("$ ").split(), "--dry-run"])


def test_the_first_task(folder: Path, environment: dict[str, str]) -> None:
    output = play(block("A first task", "console"), folder, environment)

    assert {("Ada", 1), ("Grace", 1)} == {(line["name"], line["attempt"]) for line in log_lines(output, "hello")}
    assert (folder / "qworker.db").exists()
    assert len(block("A first task", "python").splitlines()) <= 12


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

    assert ["Ada"] == [line["name"] for line in log_lines(output, "hello")]
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


def test_the_options_of_a_task(folder: Path, environment: dict[str, str]) -> None:
    write_module(folder, block("Options", "python"))
    run([sys.executable, "mail.py"], cwd=folder, environment=environment)

    with started([*PROGRAMS["qworker"], "run", "mail"], cwd=folder, environment=environment) as worker:
        worker.wait_for('"event": "job.poisoned"')
        while len(log_lines(worker.output, "job.succeeded")) < 2:
            worker.read_line()
        assert worker.end(signal.SIGTERM) == 0

    (rejected,) = log_lines(worker.output, "job.poisoned")
    assert rejected["error"] == "Reject: 'nobody' is no address"
    retried = log_lines(worker.output, "job.retried")
    assert [("mail.send", "1/8", "1s")] * 2 == [(line["task"], line["attempt"], line["retry_in"]) for line in retried]


def test_the_settings_in_pyproject(folder: Path, environment: dict[str, str]) -> None:
    write_module(folder, block("Options", "python"))
    (folder / "pyproject.toml").write_text(block("Options", "toml"))

    output = run([*PROGRAMS["qworker"], "run", "--burst"], cwd=folder, environment=environment)

    (ready,) = log_lines(output, "worker.started")
    assert ("mail,default", "90s", 1) == (ready["queues"], ready["lease"], ready["tasks"])


def test_jobs_that_were_given_up_are_put_back(folder: Path, environment: dict[str, str]) -> None:
    write_module(folder, block("Options", "python").replace("send.enqueue_many([", 'send.enqueue_many([("no",), '))
    run([sys.executable, "mail.py"], cwd=folder, environment=environment)
    worked = run([*PROGRAMS["qworker"], "run", "mail", "--burst"], cwd=folder, environment=environment)
    assert 2 == len(log_lines(worked, "job.poisoned"))

    output = play(block("Jobs that were given up", "console"), folder, environment)

    lines = [line.split() for line in output.splitlines()]
    assert ["QUEUE", "MESSAGES", "OLDEST", "GIVEN", "UP"] == lines[0]
    assert ["2"] == [line[3] for line in lines if line[0] == "mail"]
    assert 2 == sum(len(line[0]) == 36 and line[1] == "mail.send" for line in lines)
    assert ["2", "mail.send", "Reject"] in lines
    assert output.endswith("2 jobs would be put back into mail\n" + 2 * "1 job put back into mail\n")
    worked = run([*PROGRAMS["qworker"], "run", "mail", "--burst"], cwd=folder, environment=environment)
    assert [1, 1] == [line["attempt"] for line in log_lines(worked, "job.poisoned")]


def test_jobs_from_a_file(folder: Path, environment: dict[str, str]) -> None:
    (folder / "names.jsonl").write_text(block("Jobs from a file or a pipe", "jsonl"))

    output = play(block("Jobs from a file or a pipe", "console"), folder, environment)

    assert ["3 jobs enqueued", "1 job enqueued"] == re.findall(r"^(\d jobs? enqueued) in \d", output, re.MULTILINE)
    worked = run(
        [*PROGRAMS["qworker"], "run", "tasks", "-q", "default,slow", "--burst"], cwd=folder, environment=environment
    )
    assert ["Ada", "Barbara", "Barbara"] == sorted(line["name"] for line in log_lines(worked, "hello"))


def test_what_other_languages_may_send(folder: Path, environment: dict[str, str]) -> None:
    write_module(folder, block("Options", "python"))

    table, *documents = re.split(
        r"^(?=[{[]$)", play(block("Producers in other languages", "console"), folder, environment), flags=re.MULTILINE
    )

    assert "mail.send" in table
    described, schema = (json.loads(document) for document in documents)
    assert "mail.send" == described[0]["name"]
    assert "task:mail.send" in schema["$defs"]


def test_the_tests_of_a_task(folder: Path, environment: dict[str, str]) -> None:
    write_module(folder, block("Testing your tasks", "python"))

    output = run([sys.executable, "-m", "pytest", "-W", "error"], cwd=folder, environment=environment)

    assert "2 passed" in output


def names_in_table(head: str) -> list[str]:
    """Return the names in the first column of the table with this heading, with no letters of flags."""
    rows = README.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_the_tables_name_every_option() -> None:
    assert set(names_in_table("option of `@task`")) == set(inspect.signature(Task).parameters) - {
        "function",
        "sender",
        "surroundings",
    }
    assert set(names_in_table("option of `using(…)`")) == set(inspect.signature(Task.using).parameters) - {"self"}
    assert set(names_in_table("setting")) == set(Settings.model_fields)


def test_the_table_of_settings_has_the_flags() -> None:
    usage = run([*PROGRAMS["qworker"], "run", "--help"])
    without_flag = {"app", "poll_min", "encoding", "tracing"}

    for name in set(names_in_table("setting")) - without_flag:
        assert f"--{name.replace('_', '-')} " in usage
    for letter, name in re.findall(r"(-\w), --([\w-]+)", usage):
        assert letter == "-h" or re.search(rf"`{name.replace('-', '_')}`, `{letter}`", README)
    for name in without_flag:
        assert f"--{name.replace('_', '-')} " not in usage


DOCUMENTS = ["README.md", "examples/README.md", *(f"docs/{found.name}" for found in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / document).parent.joinpath(target).exists(), target
