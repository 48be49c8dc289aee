"""A user's mistakes: one clear line each, an exit code, no traceback, and nothing lost."""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import jobs
from azurite_server import Azurite, connection_string
from documents import Runner
from running import started
from stage import APPS, Stage

BAD_KEY = "d3Jvbmcga2V5"


@dataclass(frozen=True)
class Mistake:
    command: str
    says: str
    code: int = 2


# Other tests may have imported other modules, with more tasks for the same app.
OWN = sorted(name for name, task in jobs.app.tasks.items() if task.function.__module__ == "jobs")
NO_FILE = "sqlite:///{here}/jobs.db does not exist yet: is this the right directory, and is QWORKER_BROKER set?"
MISTAKES = [
    Mistake("run", "which app? 'qworker run tasks' runs the tasks in tasks.py"),
    Mistake("run nowhere", "no module 'nowhere' in {here} or on Python's path"),
    Mistake("run ./jobs.py", "'./jobs.py' is a file's name; use the module's: jobs"),
    Mistake("run jobs:worker", "module 'jobs' has no 'worker'"),
    Mistake("run jobs:quick", "jobs:quick is a Task, not an App"),
    Mistake("run empty", "module 'empty' has no App and no @task"),
    Mistake("run two", "module 'two' has 2 Apps; say which: two:one or two:other"),
    Mistake(
        "run unimportable",
        "module 'unimportable' can't be imported: ZeroDivisionError: division by zero ({here}/unimportable.py:1)",
    ),
    Mistake(
        "run impatient",
        "task mail.send: backoff must be a Backoff, as in Backoff(base=5, max=600), not 0.1 ({here}/impatient.py:2)",
    ),
    Mistake(
        "run undressed",
        "a task can't be named 'undressed.logged.wrapper', as all are that logged() returns: "
        "give that decorator functools.wraps, or the task a name= ({here}/undressed.py:6)",
    ),
    Mistake(
        "run method",
        "method.Mailer.send can't be a task: it is a method, and no job has an object to call it on: "
        "make it a @staticmethod, or a function outside of the class ({here}/method.py:3)",
    ),
    Mistake("run ending", "module 'ending' can't be imported: SystemExit: 3 ({here}/ending.py:1)"),
    Mistake("tasks ending", "module 'ending' can't be imported: SystemExit: 3 ({here}/ending.py:1)"),
    Mistake("run misspelt", "module 'misspelt' can't be imported: SyntaxError: invalid syntax ({here}/misspelt.py:1)"),
    Mistake("run jobs --fast", "No such option: --fast (Possible options: --burst, --lease); see 'qworker run --help'"),
    Mistake("start jobs", "No such command 'start'; see 'qworker --help'"),
    Mistake("run jobs -c many", "--concurrency: must be a valid integer, unable to parse string as an integer"),
    Mistake("run jobs -c 0", "--concurrency: must be greater than or equal to 1"),
    Mistake("run jobs --lease 1", "--lease: must be greater than or equal to 2"),
    Mistake("run jobs --lease soon", "--lease: 'soon' is not a time span such as 90, 90s, 5m or 1h"),
    Mistake("run jobs -l loud", "--log-level: must be 'debug', 'info', 'warning' or 'error'"),
    Mistake(
        "run jobs -q Mail_Box",
        "--queues: queue name 'Mail_Box' is not allowed: "
        "use lower-case letters, digits and single hyphens between them",
    ),
    Mistake("run jobs -q mail:x", "--queues: 'mail:x' is not NAME or NAME:WEIGHT"),
    Mistake(
        "run jobs --broker redis://localhost",
        "no broker is known for a URL of scheme 'redis': use sqlite:///FILE, sqlite://, azure://ACCOUNT, "
        "https://ACCOUNT.queue.core.windows.net, or a connection string of Azure Storage",
    ),
    Mistake("run jobs --broker sqlite://jobs.db", "sqlite://jobs.db: a file takes three slashes: sqlite:///jobs.db"),
    Mistake("run jobs -p 2 --broker sqlite://", "sqlite:// (in memory) works in one process only: use -p 1, or a file"),
    Mistake(
        "enqueue jobs.nothing",
        f"unknown task 'jobs.nothing'; registered: {', '.join(OWN)}",
    ),
    Mistake("poison replay mail", NO_FILE, 66),
    Mistake("poison list", NO_FILE, 66),
    Mistake("queues", NO_FILE, 66),
    Mistake("queues count mail", NO_FILE, 66),
    Mistake("queues mail", "No such command 'mail'; see 'qworker queues --help'"),
    Mistake("queues --json count mail", "put options after the command: qworker queues count --json"),
    Mistake(
        "queues create Mail",
        "queue name 'Mail' is not allowed: use lower-case letters, digits and single hyphens between them",
    ),
    Mistake(
        "queues peek mail -n 33",
        "Invalid value for '--limit' / '-n': Input should be less than or equal to 32; "
        "see 'qworker queues peek --help'",
    ),
    Mistake("poison replay mail-poison", "name the queue that the jobs came from: mail"),
    Mistake(
        "poison replay Mail",
        "queue name 'Mail' is not allowed: use lower-case letters, digits and single hyphens between them",
    ),
    Mistake(
        "poison replay mail -n 0",
        "Invalid value for '--limit' / '-n': Input should be greater than or equal to 1; "
        "see 'qworker poison replay --help'",
    ),
    Mistake(
        "poison replay mail --broker sqlite://",
        "sqlite:// (in memory): a broker in memory is gone when this command ends: use a file, as in sqlite:///jobs.db",
    ),
    Mistake("poison mend", "No such command 'mend'; see 'qworker poison --help'"),
    Mistake("poison show", "Missing argument 'JOB'; see 'qworker poison show --help'"),
    Mistake("poison purge mail --older soon", "--older: 'soon' is not a time span such as 90, 90s, 5m or 1h"),
    Mistake(
        "poison list --older 1h --newer 30m",
        "no job matches both: --older must be a shorter time than --newer",
    ),
    Mistake("enqueue quick", "in which module is task 'quick'? Name it with --app"),
    Mistake("enqueue jobs.quick", "jobs.quick: missing a required argument: 'n': it takes (n: int)", 1),
    Mistake("enqueue jobs.quick --args [1,2]", "jobs.quick: too many positional arguments: it takes (n: int)", 1),
    Mistake(
        'enqueue jobs.quick --args ["one"]',
        "jobs.quick: n: Input should be a valid integer, unable to parse string as an integer",
        1,
    ),
    Mistake("enqueue jobs.quick --kwargs [1]", "--kwargs: must be a JSON object, not a JSON array"),
    Mistake(
        "enqueue jobs.quick --args [1",
        "--args: not JSON: Expecting ',' delimiter: line 1 column 3 (char 2)",
    ),
    Mistake(
        "enqueue jobs.quick --args [1] --delay soon", "--delay: 'soon' is not a time span such as 90, 90s, 5m or 1h"
    ),
    Mistake(
        "enqueue jobs.quick --args [1] --delay 8d",
        "task jobs.quick: delay must be from 0 seconds to 7 days, not 691,200 s",
    ),
    Mistake(
        "enqueue jobs.quick --args [1] --ttl 0",
        "task jobs.quick: ttl must be more than 0 seconds and at most 2,147,483,647 s (68 years), not 0 s",
    ),
    Mistake(
        "enqueue jobs.quick --args [1] --ttl 25000d",
        "task jobs.quick: ttl must be more than 0 seconds and at most 2,147,483,647 s (68 years), not 2,160,000,000 s",
    ),
    Mistake(
        "enqueue jobs.quick --args [1] --delay 1h --ttl 1h",
        "task jobs.quick: a ttl of 3,600 s must be more than the delay of 3,600 s",
    ),
    Mistake("top", "standard output is not a terminal: --once prints one picture"),
    Mistake("tasks", "which app? 'qworker tasks mail' shows the tasks in mail.py"),
    Mistake("tasks nowhere", "no module 'nowhere' in {here} or on Python's path"),
    Mistake("tasks jobs --json --json-schema", "use either --json or --json-schema, not both"),
    Mistake("enqueue", "which task? 'qworker enqueue tasks.thumbnail' enqueues a call of it"),
    Mistake(
        "enqueue --from jobs.jsonl",
        "which app? Name it with --app, or name a task: qworker enqueue tasks.thumbnail --from …",
    ),
    Mistake("enqueue jobs.quick --from jobs.jsonl", "--from: jobs.jsonl: No such file or directory"),
    Mistake("enqueue jobs.quick --from .", "--from: .: Is a directory"),
    *(
        Mistake(
            f"enqueue jobs.quick --from {device}",
            f"--from: {device} is a device, whose lines may have no end: name a file or a pipe",
        )
        for device in ("/dev/full", "/dev/zero", "/dev/urandom")
    ),
    Mistake(
        "enqueue jobs.quick --from - --args [1] --kwargs {}",
        "--args, --kwargs: not with --from, whose lines have the arguments",
    ),
    Mistake("enqueue jobs.quick --args [1] --strict --start-line 2", "--strict, --start-line: only with --from"),
    Mistake(
        "enqueue jobs.quick --from - --skip-lines 9-3",
        "--skip-lines: '9-3' is neither a line's number nor a span such as 1209-1230",
    ),
    Mistake("enqueue jobs.quick --from - --ttl soon", "--ttl: 'soon' is not a time span such as 90, 90s, 5m or 1h"),
    Mistake("enqueue jobs.quick --from - -q A", "queue name 'A' has 1 characters: use 3 to 63"),
    Mistake(
        "enqueue jobs.nothing --from -",
        f"unknown task 'jobs.nothing'; registered: {', '.join(OWN)}",
    ),
    Mistake(
        "enqueue jobs.quick --from - --broker sqlite://",
        "sqlite:// (in memory): a broker in memory is gone when this command ends: use a file, as in sqlite:///jobs.db",
    ),
    Mistake("enqueue jobs.quick --args [1] -q A", "queue name 'A' has 1 characters: use 3 to 63"),
]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    running = Runner()
    yield running
    running.close()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text((APPS / "jobs.py").read_text())
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "two.py").write_text("from qworker import App\none, other = App(), App()\n")
    (tmp_path / "unimportable.py").write_text("1 / 0\n")
    (tmp_path / "impatient.py").write_text(
        "from qworker import task\n@task(name='mail.send', backoff=0.1)\ndef send(): ...\n"
    )
    (tmp_path / "undressed.py").write_text(
        "from qworker import task\ndef logged(f):\n    def wrapper(n): f(n)\n    return wrapper\n\n"
        "@task\n@logged\ndef send(n): ...\n"
    )
    (tmp_path / "method.py").write_text("from qworker import task\nclass Mailer:\n    @task\n    def send(self): ...\n")
    (tmp_path / "misspelt.py").write_text("def def\n")
    (tmp_path / "ending.py").write_text("raise SystemExit(3)\n")
    return tmp_path


def _run(arguments: list[str], stage: Stage, here: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "qworker", *arguments],
        cwd=here,
        env=stage.env() | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.command)
def test_one_line_says_what_was_wrong(mistake: Mistake, sqlite_stage: Stage, here: Path, runner: Runner) -> None:
    code, output, errors = runner.run_with(["qworker", *mistake.command.split()], here, sqlite_stage.env())
    assert (f"qworker: {mistake.says.format(here=here)}\n", mistake.code) == (errors, code)
    assert "" == output
    assert not [*here.glob("*.db")]


@pytest.mark.parametrize("command", ["run", "run nowhere", "run method", "run jobs -c 0", "poison list", "top"])
def test_a_process_of_its_own_says_the_same(command: str, sqlite_stage: Stage, here: Path) -> None:
    (mistake,) = [each for each in MISTAKES if each.command == command]
    ended = _run(command.split(), sqlite_stage, here)
    assert (f"qworker: {mistake.says.format(here=here)}\n", mistake.code) == (ended.stderr, ended.returncode)
    assert "" == ended.stdout


@pytest.mark.parametrize("command", ["run slow", "run slow -p 2", "tasks slow", "enqueue slow.quick"])
def test_ctrl_c_while_the_app_is_imported_ends_the_command(command: str, sqlite_stage: Stage, here: Path) -> None:
    (here / "slow.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(100)\n")
    with started([sys.executable, "-m", "qworker", *command.split()], cwd=here, environment=sqlite_stage.env()) as it:
        it.wait_for("importing")
        assert it.end(signal.SIGINT) in {0, 130}
    assert "Traceback" not in it.output


@pytest.mark.parametrize("command", ["doctor jobs", "top jobs --once"])
def test_an_app_is_named_as_for_run(command: str, sqlite_stage: Stage, here: Path) -> None:
    ended = _run(command.split(), sqlite_stage, here)
    assert "Traceback" not in ended.stderr
    assert str(here / "qworker.db") in ended.stdout or "sqlite" in ended.stdout


def test_a_wrong_setting_is_named_by_where_it_stands(sqlite_stage: Stage, here: Path) -> None:
    ended = _run(["run", "jobs"], sqlite_stage, here, QWORKER_GRACE="a bit")
    assert "qworker: QWORKER_GRACE: 'a bit' is not a time span such as 90, 90s, 5m or 1h\n" == ended.stderr
    (here / "pyproject.toml").write_text("[tool.qworker]\nconcurency = 4\n")
    ended = _run(["run", "jobs"], sqlite_stage, here)
    assert ended.stderr.startswith(
        "qworker: [tool.qworker] concurency in pyproject.toml: no such setting; there are app,"
    )
    assert 2 == ended.returncode


def test_an_argument_too_large_is_refused_before_the_network(sqlite_stage: Stage, here: Path) -> None:
    (here / "large.py").write_text("from qworker import task\n@task\ndef store(text: str) -> None: ...\n")
    arguments = ["enqueue", "large.store", "--broker", connection_string(1), "--args", json.dumps(["x" * 70_000])]
    ended = _run(arguments, sqlite_stage, here)
    assert 1 == ended.returncode
    assert ended.stderr.startswith("qworker: the job is 70")
    assert ended.stderr.endswith("bytes as sent, the limit is 65536: pass a reference instead of the data\n")


def test_a_bad_connection_string_is_not_repeated(sqlite_stage: Stage, here: Path) -> None:
    ended = _run(["run", "jobs", "--broker", "AccountName=me;AccountKey=s3cr3t-canary"], sqlite_stage, here)
    assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines()))
    assert "canary" not in ended.stderr
    assert "connection string" in ended.stderr


def test_no_right_to_the_queue_is_said_with_the_right_that_is_missing(
    azurite: Azurite,
    sqlite_stage: Stage,
    here: Path,
) -> None:
    denied = connection_string(azurite.port, BAD_KEY)
    ended = _run(["enqueue", "jobs.quick", "--args", "[1]", "--broker", denied], sqlite_stage, here)
    assert (1, 1) == (ended.returncode, len(ended.stderr.splitlines()))
    assert "put" in ended.stderr
    assert BAD_KEY not in ended.stderr


def test_a_broker_that_is_not_there_is_said(sqlite_stage: Stage, here: Path) -> None:
    ended = _run(["enqueue", "jobs.quick", "--args", "[1]", "--broker", connection_string(1)], sqlite_stage, here)
    assert (1, 1) == (ended.returncode, len(ended.stderr.splitlines()))
    assert "127.0.0.1" in ended.stderr


def test_a_file_that_is_no_database_is_left_alone(sqlite_stage: Stage, here: Path) -> None:
    (here / "notes.db").write_text("not a database, but somebody's notes\n" * 100)
    before = (here / "notes.db").read_bytes()
    for command in (["run", "jobs"], ["enqueue", "jobs.quick", "--args", "[1]"]):
        ended = _run([*command, "--broker", "sqlite:///notes.db"], sqlite_stage, here)
        assert (78, 1) == (ended.returncode, len(ended.stderr.splitlines()))
        assert "notes.db" in ended.stderr
    assert before == (here / "notes.db").read_bytes()


def test_what_works_says_little(sqlite_stage: Stage, here: Path, runner: Runner) -> None:
    ended = _run(["enqueue", "jobs.quick", "--args", "[1]", "-q", sqlite_stage.queue], sqlite_stage, here)
    assert (0, "", 36) == (ended.returncode, ended.stderr, len(ended.stdout.strip()))
    assert 1 == sqlite_stage.remaining()
    for group in ([], ["poison"]):
        alone = _run(group, sqlite_stage, here)
        assert (0, "", True) == (alone.returncode, alone.stderr, alone.stdout.startswith("Usage: "))
    assert "qworker 0.1.0\n" == _run(["--version"], sqlite_stage, here).stdout
    for command in ([], ["run"], ["enqueue"], ["queues"], ["poison"], ["poison", "replay"]):
        assert "Usage: " in runner.run_with(["qworker", *command, "--help"], here, sqlite_stage.env())[1]


def test_sqlite_needs_nothing_of_azure(sqlite_stage: Stage, here: Path) -> None:
    script = """
        import sys
        sys.argv = ["qworker", "run", "jobs", "--burst"]
        from qworker.__main__ import main
        try:
            main()
        finally:
            assert "qworker.brokers.sqlite.broker" in sys.modules
            print([name for name in sys.modules if name.partition(".")[0] in {"azure", "aiohttp", "msal"}])
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=here,
        env=sqlite_stage.env(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("[]\n", 0) == (ended.stdout, ended.returncode), ended.stderr
