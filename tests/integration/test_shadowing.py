"""A project whose files are named as modules of the standard library, or of qworker's own dependencies."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qworker.system.import_path import LATE, _InstalledFirst
from running import started

BIN = Path(sys.executable).parent
QWORKER = [str(BIN / "qworker")]
BY_NAME = [sys.executable, "-m", "qworker"]
JOBS = """
import json, sys
at_first = {name.partition(".")[0] for name in sys.modules}
from qworker import App
app = App()

def look(file):
    names = {name.partition(".")[0] for name in sys.modules} & sys.stdlib_module_names
    with open(file, "w") as found:
        json.dump(sorted(names | at_first), found)

@app.task(max_attempts=1)
def plain(file: str) -> None:
    look(file)

@app.task(max_attempts=1)
async def on_loop(file: str) -> None:
    look(file)

@app.task(executor="process", max_attempts=1)
def child(file: str) -> None:
    look(file)
"""
TASKS = ("plain", "on_loop", "child")


ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("QWORKER_", "PYTHONPATH"))}


def qworker(command: list[str], *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    return done.stderr


def enqueue(folder: Path) -> None:
    for task in TASKS:
        arguments = ["--args", json.dumps([f"{task}.json"])]
        qworker(QWORKER, "enqueue", f"jobs.{task}", *arguments, folder=folder)


def seen(folder: Path) -> set[str]:
    """Return the modules that the tasks found loaded, and let go of their files."""
    files = [folder / f"{task}.json" for task in TASKS]
    names = {name for file in files for name in json.loads(file.read_text())}
    for file in files:
        file.unlink()
    return names - {"jobs", "__main__", "__mp_main__"}


def own_modules(folder: Path) -> set[str]:
    """Return the names of all modules that workers and their children load, asked in a project that shadows none."""
    folder.mkdir()
    (folder / "jobs.py").write_text(JOBS)
    enqueue(folder)
    qworker(QWORKER, "run", "jobs", "--burst", "--health-port", "0", folder=folder)
    names = seen(folder)
    assert {"email", "queue", "token", "platform", "asyncio", "multiprocessing", "pydantic", "structlog"} <= names
    return names


def loaded_by_python(folder: Path) -> set[str]:
    """Return the modules that Python itself imports to find the program of ``-m``: before that can do anything."""
    (folder / "probe").mkdir()
    (folder / "probe" / "__init__.py").write_text("import sys; print(*sys.modules)")
    (folder / "probe" / "__main__.py").touch()
    command = [sys.executable, "-m", "probe"]
    found = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in found.split()}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names under which a project's file could be imported by mistake."""
    folder = tmp_path_factory.mktemp("names")
    return own_modules(folder / "plain") - loaded_by_python(folder) - {"qworker"}


@pytest.fixture
def project(tmp_path: Path, names: set[str]) -> Path:
    """A folder with a file for each name, none of which anybody may import."""
    for name in names:
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')")
    (tmp_path / "jobs.py").write_text(JOBS)
    return tmp_path


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("command", [QWORKER, BY_NAME], ids=["qworker", "python -m qworker"])
def test_jobs_run_in_a_project_that_shadows_everything(project: Path, command: list[str], processes: str) -> None:
    enqueue(project)
    options = ["--burst", "-p", processes, "--health-port", "0", "--log-format", "json"]
    log = qworker(command, "run", "jobs", *options, folder=project)
    assert "was imported" not in log
    assert {"email", "queue"} < seen(project)


def test_and_reloads_there(project: Path) -> None:
    command = [*QWORKER, "run", "jobs", "--reload", "--log-format", "json", "--poll-max", "0.1s"]
    with started(command, cwd=project, environment=ENVIRONMENT) as worker:
        worker.wait_for("worker.started")
        worker.output = ""
        (project / "jobs.py").write_text(JOBS + "# changed")
        worker.wait_for("reloading", "worker.started")
        enqueue(project)
        while worker.output.count("job.succeeded") < len(TASKS):
            worker.read_line()
            assert "was imported" not in worker.output
        assert 0 == worker.end(signal.SIGTERM)
    assert "process.died" not in worker.output
    assert {"email", "queue"} < seen(project)


@pytest.mark.parametrize(
    "command",
    [
        ["enqueue", "--app", "jobs", "--from", "lines"],
        ["queues", "--app", "jobs"],
        ["tasks", "jobs"],
        ["doctor", "--app", "jobs"],
        ["top", "--once", "--app", "jobs"],
        ["poison", "list", "--app", "jobs"],
    ],
    ids=" ".join,
)
def test_no_command_takes_a_projects_file_for_a_library_that_it_imports_late(command: list[str], project: Path) -> None:
    for library in LATE:
        (project / f"{library}.py").write_text("raise SystemExit(f'{__file__} was imported')")
    (project / "lines").write_text('{"task":"jobs.plain","args":["plain.json"]}')
    enqueue(project)
    told = qworker(QWORKER, *command, folder=project)
    assert "was imported" not in told


@pytest.mark.parametrize("library", sorted(LATE))
def test_each_library_is_found_where_it_is_installed(library: str, tmp_path: Path) -> None:
    (tmp_path / f"{library}.py").write_text("raise SystemExit('the project')")
    code = f"from qworker.system.import_path import admit; admit({str(tmp_path)!r}); import {library}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_no_installed_library_is_the_projects_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "watchfiles", raising=False)
    (tmp_path / "watchfiles.py").write_text("own = True")
    assert str(tmp_path / "watchfiles.py") == _InstalledFirst().find_spec("watchfiles").origin  # type: ignore[union-attr]
