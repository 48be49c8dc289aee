"""What works on Windows: commands and producers run without all that is not there, as far as a POSIX system can show.

No Windows machine runs these tests. The names that are missing there are those that its types have not.
"""

import importlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from running import run, started
from without_posix import AFTER_EACH

BOOTSTRAP = Path(__file__).parents[1] / "support/without_posix.py"
MODULES = ("os", "signal", "socket", "time")
TASKS = """
from qworker import Reject, task


@task
async def greet(name: str) -> None:
    print(f"hello {name}", flush=True)


@task
def shout(name: str) -> None:
    print(f"HELLO {name}", flush=True)


@task
def refuse() -> None:
    raise Reject("never")


if __name__ == "__main__":
    greet.enqueue("Ada")
    shout.enqueue_many([("Grace",), ("Barbara",)])
    refuse.enqueue()
"""

Command = Callable[..., list[str]]


@pytest.fixture(scope="session")
def missing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the names of this system's modules that are not there on Windows."""
    folder = tmp_path_factory.mktemp("missing")
    lines: dict[int, tuple[str, str]] = {}
    for module in MODULES:
        for name, value in vars(importlib.import_module(module)).items():
            if not name.startswith("_") and not isinstance(value, ModuleType):
                lines[len(lines) + 2] = module, name
    program = folder / "names.py"
    program.write_text(
        "\n".join([f"import {', '.join(MODULES)}", *(f"{module}.{name}" for module, name in lines.values())])
    )
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--platform",
            "win32",
            "--config-file=",
            "--cache-dir",
            folder / "cache",
            program,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    ).stdout
    found: dict[str, list[str]] = {module: [] for module in MODULES}
    for line in re.findall(r"names\.py:(\d+): error: Module has no attribute", told):
        module, name = lines[int(line)]
        found[module].append(name)
    assert {"fork", "getuid", "register_at_fork", "set_blocking"} <= {*found["os"]}
    assert {"SIGKILL", "SIGHUP", "pthread_sigmask"} <= {*found["signal"]}
    assert {"clock_gettime"} <= {*found["time"]}
    file = folder / "missing.json"
    file.write_text(json.dumps(found))
    return file


@pytest.fixture
def windows(missing: Path) -> Command:
    """Return what makes a command line that is run as if on Windows."""
    return lambda *command: [sys.executable, str(BOOTSTRAP), str(missing), *command]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "pyproject.toml").write_text("[tool.qworker]\n")
    return tmp_path


def test_producer_and_worker(windows: Command, project: Path) -> None:
    run(windows(str(project / "tasks.py")), cwd=project)
    enqueue = ("qworker", "enqueue", "tasks.greet", "--args", '["Margaret"]')
    said = run(windows(*enqueue, "and", "qworker", "run", "tasks", "-p", "1", "--burst"), cwd=project)
    for greeting in ("hello Ada", "HELLO Grace", "HELLO Barbara", "hello Margaret"):
        assert greeting in said
    assert (4, 1) == (said.count('"job.succeeded"'), said.count('"job.poisoned"'))


def test_the_operators_commands(windows: Command, project: Path) -> None:
    run(windows(str(project / "tasks.py"), "and", "qworker", "run", "tasks", "--burst"), cwd=project)
    commands = (
        "qworker queues",
        "qworker poison list",
        "qworker poison replay default",
        "qworker queues peek default",
        "qworker tasks tasks",
        "qworker doctor tasks",
        "qworker top tasks --once -n 10ms",
    )
    said = run(windows(*" and ".join(commands).split()), cwd=project)
    queues, poison, _, peeked, tasks, doctor, top, _ = said.split(f"{AFTER_EACH}\n")
    assert re.search(r"default +0 +- +1\n", queues)
    assert "never" in poison
    assert "tasks.refuse" in peeked
    assert "tasks.greet" in tasks
    assert "Traceback" not in doctor
    assert "default" in top


def test_lines_of_files_and_of_pipes(windows: Command, project: Path) -> None:
    (project / "names.jsonl").write_text('{"args": ["Ada"]}\n{"args": ["Grace"]}\n')
    run(windows("qworker", "enqueue", "tasks.greet", "--from", "names.jsonl"), cwd=project)
    piped = subprocess.run(
        windows("qworker", "enqueue", "tasks.greet", "--from", "-"),
        cwd=project,
        input=b'{"args": ["Barbara"]}\r\n',
        capture_output=True,
        check=False,
    )
    assert (0, b"") == (piped.returncode, piped.stderr)
    assert "3" == run(windows("qworker", "queues", "count", "default"), cwd=project).strip()


@pytest.mark.parametrize("name", ["C:jobs.db", "/C:/data/jobs.db", "jobs.db:other"])
def test_a_name_that_means_no_one_file_is_refused(windows: Command, project: Path, name: str) -> None:
    said = run(windows("qworker", "queues", "--broker", f"sqlite:///{name}"), cwd=project, exit_code=2)
    assert said.startswith(f"qworker: sqlite:///{name}: ")
    assert 1 == said.count("\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGTTIN], ids=["c", "term", "break"])
def test_a_worker_stops_in_order(windows: Command, project: Path, number: signal.Signals) -> None:
    with started(windows("qworker", "run", "tasks", "--health-port", "0"), cwd=project) as worker:
        worker.wait_for("worker.started", "health.served")
        assert 0 == worker.end(number)
    assert "worker.stopped" in worker.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-p", "2"], "-p 2 doesn't work on Windows: start 'qworker run -p 1' once for each process"),
        (["--reload"], "--reload doesn't work on Windows: stop the worker and start it again"),
    ],
)
def test_what_takes_a_supervisor_is_refused(windows: Command, project: Path, options: list[str], told: str) -> None:
    assert f"qworker: {told}\n" == run(windows("qworker", "run", "tasks", *options), cwd=project, exit_code=2)


def test_a_worker_with_tasks_of_child_processes_is_refused_and_their_producer_is_not(
    windows: Command, project: Path
) -> None:
    (project / "pictures.py").write_text(
        "from qworker import task\n\n\n@task(executor='process')\ndef scale() -> None: ...\n\n\nscale.enqueue()\n"
    )
    run(windows(str(project / "pictures.py")), cwd=project)
    said = run(windows("qworker", "run", "pictures"), cwd=project, exit_code=2)
    assert (
        "qworker: task pictures.scale: executor='process' doesn't work on Windows: let it be 'thread' there\n" == said
    )
