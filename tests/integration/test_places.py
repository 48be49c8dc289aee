"""Where a broker is, asked by real processes: links, changed directories, unset variables, subdirectories."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents import Runner
from running import run, started

HERE_APP = """
    import os
    from qworker import task

    @task
    def second() -> None: ...

    @task(executor="process")
    def in_process() -> None:
        os.chdir("elsewhere")
        second.enqueue()

    @task
    def in_thread() -> None:
        before = os.getcwd()
        os.chdir("elsewhere")
        second.enqueue()
        os.chdir(before)
"""


def qworker(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "qworker", *arguments]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    running = Runner()
    yield running
    running.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(textwrap.dedent(HERE_APP))
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    unset = ("QWORKER_BROKER", "AZURE_STORAGE_CONNECTION_STRING")
    return {name: value for name, value in os.environ.items() if name not in unset}


def test_a_link_to_a_file_that_is_open_is_that_file(folder: Path, environment: dict[str, str]) -> None:
    """The other program has all its jobs in the log: the file itself is one page until it lets go."""
    (folder / "link.db").symlink_to("elsewhere/q.db")
    keeper = """
        import app, sys
        for _ in range(50): app.second.enqueue()
        print("open", flush=True)
        sys.stdin.read()
    """
    by_link = environment | {"QWORKER_BROKER": "sqlite:///link.db"}
    by_name = environment | {"QWORKER_BROKER": "sqlite:///elsewhere/q.db"}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(keeper)],
        cwd=folder,
        env=by_link,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holding:
        assert holding.stdout is not None
        assert b"open\n" == holding.stdout.readline()
        run(qworker("enqueue", "app.second"), cwd=folder, environment=by_link)
        run(qworker("enqueue", "app.second"), cwd=folder, environment=by_name)
        assert "52" in run(qworker("queues"), cwd=folder, environment=by_link)
        run(qworker("run", "app", "--burst", "--broker", "sqlite:///link.db"), cwd=folder, environment=environment)
        holding.communicate()
    assert "0" == run(qworker("queues", "count", "default"), cwd=folder, environment=by_name).strip()


@pytest.mark.parametrize("task", ["in_process", "in_thread"])
def test_a_handler_that_changes_its_directory_enqueues_where_its_worker_looks(
    task: str, folder: Path, environment: dict[str, str]
) -> None:
    run(qworker("enqueue", f"app.{task}"), cwd=folder, environment=environment)
    worker = qworker("run", "app", "--log-format", "json", "--max-jobs", "2")
    with started(worker, cwd=folder, environment=environment) as running:
        running.wait_for('"task": "app.second"')
        assert 0 == running.end()
    assert [] == list((folder / "elsewhere").iterdir())


def test_an_app_that_changes_the_directory_when_imported_has_the_command_lines_broker(
    folder: Path, environment: dict[str, str]
) -> None:
    (folder / "moving.py").write_text("import os\nfrom app import second\nos.chdir('elsewhere')\n")
    for command in (["enqueue", "app.second", "--app", "moving"], ["run", "moving", "--burst"]):
        run(qworker(*command, "--broker", "sqlite:///named.db"), cwd=folder, environment=environment)
    assert (folder / "named.db").exists()
    assert [] == list((folder / "elsewhere").iterdir())


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:///:memory:"])
def test_no_command_takes_a_job_into_nothing(
    url: str, folder: Path, environment: dict[str, str], runner: Runner
) -> None:
    environment["QWORKER_BROKER"] = url
    for command in (["enqueue", "app.second"], ["run", "app", "--burst"], ["queues"], ["poison", "list", "default"]):
        code, said = runner.run(["qworker", *command], folder, environment)
        assert (2, True) == (code, said.startswith(f"qworker: {url}: ")), said
        assert 1 == len(said.splitlines())
    assert said == run(qworker(*command), cwd=folder, environment=environment, exit_code=2)
    assert ["app.py", "elsewhere"] == sorted(each.name for each in folder.iterdir() if each.name != "__pycache__")


def test_memory_takes_no_job_from_a_command(folder: Path, environment: dict[str, str], runner: Runner) -> None:
    environment["QWORKER_BROKER"] = "sqlite://"
    refused = "qworker: sqlite:// (in memory): a broker in memory is gone when this command ends"
    for command in (["enqueue", "app.second"], ["queues"], ["queues", "create", "x"], ["poison", "list", "default"]):
        code, said = runner.run(["qworker", *command], folder, environment)
        assert (2, True) == (code, said.startswith(refused)), said
    said = run(qworker("run", "app", "--burst"), cwd=folder, environment=environment)
    assert "sqlite:// (in memory): only this process can put jobs there" in said


def test_programs_anywhere_in_a_project_share_its_file(folder: Path, environment: dict[str, str]) -> None:
    (folder / "pyproject.toml").write_text("")
    environment["PYTHONPATH"] = str(folder)
    run([sys.executable, "-c", "import app; app.second.enqueue()"], cwd=folder / "elsewhere", environment=environment)
    said = run(qworker("run", "app", "--burst", "--log-format", "json"), cwd=folder, environment=environment)
    assert '"task": "app.second"' in said
    assert [] == list((folder / "elsewhere").iterdir())


def test_a_producer_says_at_debug_which_broker_it_uses(folder: Path, environment: dict[str, str]) -> None:
    program = "import logging; logging.basicConfig(level=10); import app; [app.second.enqueue() for _ in range(3)]"
    said = run([sys.executable, "-c", program], cwd=folder, environment=environment)
    assert [f"DEBUG:qworker:jobs go to sqlite:///{folder}/qworker.db"] == [
        line for line in said.splitlines() if "qworker.db" in line
    ]


def test_two_apps_of_one_directory_run_all_their_jobs(folder: Path, environment: dict[str, str]) -> None:
    """They share the file and the queue: each gives the other's jobs back until its worker has them."""
    program = """
        import os
        from qworker import task

        @task(max_attempts=1)
        def job(n: int) -> None:
            os.write(1, f"ran {n}\\n".encode())
    """
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(textwrap.dedent(program))
    producer = "import one, two\nfor n in range(20): one.job.enqueue(n); two.job.enqueue(n)"
    run([sys.executable, "-c", producer], cwd=folder, environment=environment)
    workers = [qworker("run", name, "-c", "2", "--log-format", "json") for name in ("one", "two")]
    with (
        started(workers[0], cwd=folder, environment=environment) as one,
        started(workers[1], cwd=folder, environment=environment) as two,
    ):
        for worker in (one, two):
            worker.wait_for(*(f"ran {n}\n" for n in range(20)))
            worker.end(signal.SIGTERM)
        for worker, foreign in ((one, "two.job"), (two, "one.job")):
            assert 20 == worker.output.count("\nran ") + worker.output.startswith("ran ")
            assert worker.output.count('"event": "task.unknown"') <= 1
            assert "job.poisoned" not in worker.output
            assert f"'qworker run {foreign[:3]}' may know it" in worker.output or foreign not in worker.output
