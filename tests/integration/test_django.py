"""The Django project of the examples, as docs/django.md has it."""

import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from documents import blocks_of, log_lines
from proc import family
from running import ROOT, run, started

PROJECT = ROOT / "examples" / "django_project"
PAGE = (ROOT / "docs" / "django.md").read_text()
MANAGE = [sys.executable, "manage.py"]
QWORKER = [sys.executable, "-m", "qworker"]
PLACE = """
import django
django.setup()
from django.test import Client
print(Client(SERVER_NAME="localhost").post("/orders/", {"email": "ada@example.org", "amount": 7}).status_code)
"""
ROLL_BACK = """
import django
django.setup()
from django.db import transaction
from django.test import Client
with transaction.atomic():
    answer = Client(SERVER_NAME="localhost").post("/orders/", {"email": "ada@example.org", "amount": 7})
    transaction.set_rollback(True)
print(answer.status_code)
"""
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("QWORKER_", "AZURE_", "DJANGO_"))
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, with an empty database."""
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3*", "*.db*"))
    run([*MANAGE, "migrate", "--run-syncdb"], cwd=folder, environment=ENVIRONMENT)
    return folder


def place_order(project: Path, how: str = PLACE) -> None:
    """Have a process that serves the web take an order."""
    environment = ENVIRONMENT | {"DJANGO_SETTINGS_MODULE": "mysite.settings"}
    assert "201\n" == run([sys.executable, "-c", how], cwd=project, environment=environment)


def rows(project: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(project / "db.sqlite3")) as database:
        return database.execute(query).fetchall()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_a_view_enqueues_is_done_in_threads_and_child_processes(project: Path, processes: str) -> None:
    place_order(project)
    command = [*QWORKER, "run", "mysite.worker", "--burst", "-p", processes, "--log-format", "json"]
    output = run(command, cwd=project, environment=ENVIRONMENT)
    assert {"orders.tasks.send_receipt", "orders.tasks.add_up"} == {
        line["task"] for line in log_lines(output, "job.succeeded")
    }
    assert [(1,)] == rows(project, "select receipt_sent from orders_order")
    assert [(7,)] == rows(project, "select amount from orders_total")


def test_what_a_view_would_enqueue_is_not_if_its_transaction_is_rolled_back(project: Path) -> None:
    place_order(project, ROLL_BACK)
    output = run(
        [*QWORKER, "run", "mysite.worker", "--burst", "--log-format", "json"], cwd=project, environment=ENVIRONMENT
    )
    [stopped] = log_lines(output, "worker.stopped")
    assert {"succeeded": 0, "failed_attempts": 0, "released": 0}.items() <= stopped.items()
    assert [] == rows(project, "select * from orders_order")
    assert [] == rows(project, "select * from orders_total")


@pytest.mark.parametrize("with_hook", [True, False])
def test_no_connection_stays_open_after_a_job(project: Path, with_hook: bool) -> None:  # noqa: FBT001 — a parameter
    if not with_hook:  # then each thread and each child keeps its own
        background = project / "mysite" / "background.py"
        text = background.read_text()
        assert "@app.around_thread\n" in text
        background.write_text(text.replace("@app.around_thread\n", ""))
    place_order(project)
    command = [*QWORKER, "run", "mysite.worker", "--log-format", "json", "--poll-max", "0.1s"]
    with started(command, cwd=project, environment=ENVIRONMENT) as worker:
        while worker.output.count('"event": "job.succeeded"') < 2:
            worker.read_line()
        opened = [open_files(pid, project / "db.sqlite3") for pid in sorted(family(worker.process.pid))]
        assert 0 == worker.end(signal.SIGTERM), worker.output
    assert 2 == len(opened)
    assert [not with_hook] * 2 == [count > 0 for count in opened]


def open_files(pid: int, file: Path) -> int:
    """Return how often a process has a file open."""
    return sum(found.resolve() == file for found in Path(f"/proc/{pid}/fd").iterdir())


def test_its_own_tests_pass(project: Path) -> None:
    assert "Ran 5 tests" in run([*MANAGE, "test"], cwd=project, environment=ENVIRONMENT)


def test_the_page_shows_the_project_as_it_is() -> None:
    blocks = blocks_of(PAGE)
    assert PAGE.count("```") == 2 * len(blocks)
    shown = [block.text.partition("\n") for block in blocks if block.language == "python"]
    assert {"settings", "background", "tasks", "views", "worker", "tests"} == {
        Path(head[2:]).stem for head, _, _ in shown
    }
    for head, _, code in shown:
        assert code.strip("\n") in (PROJECT / head[2:]).read_text(), head


def test_the_commands_of_the_page_work(project: Path) -> None:
    [session] = [block.text for block in blocks_of(PAGE) if block.language == "console"]
    programs = {"python": [sys.executable], "qworker": QWORKER}
    for line in session.splitlines():
        _, program, *arguments = line.split()
        until_done = ["--burst"] if arguments[0] == "run" else []
        output = run([*programs[program], *arguments, *until_done], cwd=project, environment=ENVIRONMENT)
        assert "Traceback" not in output
