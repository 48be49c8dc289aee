"""qworker top, beside real workers, in a pipe and on a terminal."""

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

import jobs
from azurite_server import connection_string
from qworker.cli import main
from qworker.operate.top.model import Look
from qworker.operate.top.sources import Sources
from running import ROOT
from stage import APPS, Stage
from waiting import wait_until

Top = Callable[..., tuple[int, str, str]]
ON_ITS_TERMINAL = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from qworker.__main__ import main; main()"
)


@pytest.fixture
def top(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Top:
    """Return the command with --once, in a pipe: how it ends, and what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", StringIO())

    def call(url: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("QWORKER_BROKER", url)
        monkeypatch.setattr(sys, "argv", ["qworker", "top", "--once", "--interval", "0.3s", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        read = capsys.readouterr()
        return int(ended.value.code or 0), read.out, read.err

    return call


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


def test_one_picture_beside_a_worker(stage: Stage, top: Top) -> None:
    worker = stage.worker("--health-port", "0")
    port = worker.wait_for("health.served")["port"]
    jobs.quick.using(queue=stage.queue).enqueue_many([(n,) for n in range(5)])
    jobs.reject.using(queue=stage.queue).enqueue(1)
    wait_until(stage.poisoned, what="the poisoned job")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"127.0.0.1:{closed.getsockname()[1]}"
        sources = ["--from", f"http://127.0.0.1:{port}", "--from", f"http://{gone}"]
        code, out, err = top(stage.url, "--queue", stage.queue, *sources)
    assert (0, "") == (code, err)
    assert "\x1b" not in out
    found = rows(out)
    assert ["QUEUE", "MESSAGES", "IN/MIN", "OUT/MIN", "GIVEN", "UP"] in found
    assert [stage.queue, "0", "0", "0", "1"] in found
    (of_worker,) = [row for row in found if row[:1] == [f"127.0.0.1:{port}"]]
    assert ["1", "16", "0", "0"] == [of_worker[column] for column in (1, 4, 5, 6)]
    assert [gone, *"------"] in found
    assert f"{gone}: can't be reached: " in out
    (of_task,) = [row for row in found if row[0:1] == ["jobs.quick"]]
    assert ["0", "0", "0", "0"] == of_task[1:5]
    (failure,) = [row for row in found if row[1:2] == ["ago"]]
    assert ["1", stage.queue, "jobs.reject", "Reject:"] == failure[2:6]
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output


def test_rates_are_of_what_happens_meanwhile(sqlite_stage: Stage, top: Top, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.quick.using(queue=sqlite_stage.queue).enqueue(1)
    look = Sources.look

    async def meanwhile(sources: Sources) -> Look:
        await sqlite_stage.app.broker.queue(sqlite_stage.queue).put("{}")
        await sqlite_stage.app.broker.aclose()
        return await look(sources)

    monkeypatch.setattr(Sources, "look", meanwhile)
    code, out, _ = top(sqlite_stage.url)
    (row,) = [row for row in rows(out) if row[:1] == [sqlite_stage.queue]]
    assert (0, "3", "0", "-") == (code, row[1], row[3], row[4])
    assert float(row[2]) > 60
    assert "to see tasks and workers, name their ports: --from http://HOST:PORT" in out
    assert "since no broker separates them" in out


def test_a_broker_out_of_reach_is_shown(top: Top, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        code, out, _ = top(connection_string(closed.getsockname()[1]))
    assert 0 == code
    assert "can't be reached to list queues" in out
    code, out, _ = top(f"sqlite:///{tmp_path}/none.db", "--queue", "mail")
    assert 0 == code
    assert "none.db does not exist yet: is this the right directory" in out
    assert not (tmp_path / "none.db").exists()


def test_a_queue_that_can_not_be_shown_hides_no_other(sqlite_stage: Stage, top: Top) -> None:
    jobs.quick.using(queue=sqlite_stage.queue).enqueue(1)
    code, out, _ = top(
        sqlite_stage.url, *(part for name in (sqlite_stage.queue, "none", "Bad") for part in ("-q", name))
    )
    assert 0 == code
    assert [sqlite_stage.queue, "1", "0", "0", "-"] in rows(out)
    assert "none: queue 'none' does not exist" in out
    assert "Bad: queue name 'Bad' is not allowed" in out


def test_the_commands_of_the_page(sqlite_stage: Stage, top: Top, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(APPS)
    page = (ROOT / "docs/monitoring.md").read_text().partition("## qworker top")[2].partition("\n## ")[0]
    jobs.quick.using(queue=sqlite_stage.queue).enqueue(1)
    commands = page.partition("```console\n")[2].partition("```")[0].splitlines()
    assert 3 == len(commands)
    for command in commands:
        program, *arguments = re.sub(r"worker-\d:9000", "127.0.0.1:1", command).replace("mail", "jobs").split()[1:]
        assert ("qworker", "top") == (program, arguments.pop(0))
        code, out, _ = top(sqlite_stage.url, *arguments)
        assert 0 == code
        assert "QUEUE" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--interval", "soon"], "--interval: 'soon' is not a time span such as 90, 90s, 5m or 1h"),
        (["--interval", "0"], "--interval: must be more than 0"),
        (["--from", "worker-1"], "--from: must be the URL of a worker's health port, as in http://worker-1:9000"),
        (
            ["--broker", "sqlite://"],
            "sqlite:// (in memory): a broker in memory is gone when this command ends: use a file, as in sqlite:///jobs.db",
        ),
    ],
)
def test_a_mistake_is_one_line(top: Top, arguments: list[str], says: str) -> None:
    assert (2, "", f"qworker: {says}\n") == top("sqlite:///jobs.db", *arguments)


def test_the_extra_is_named(top: Top, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "qworker.operate.top.scrape", raising=False)
    code, _, err = top("sqlite:///jobs.db", "--from", "http://127.0.0.1:1")
    assert (2, "qworker: --from takes prometheus-client: pip install 'qworker-azure[metrics]'\n") == (code, err)


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_a_key_ends_it_and_leaves_the_terminal_as_it_was(sqlite_stage: Stage, key: bytes) -> None:
    jobs.quick.using(queue=sqlite_stage.queue).enqueue(1)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [sys.executable, "-c", ON_ITS_TERMINAL, "top", "--interval", "1h"],
        env=sqlite_stage.env() | {"TERM": "xterm"},
        cwd=sqlite_stage.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    with process:
        screen = read_until(ours, sqlite_stage.queue.encode())
        assert before != termios.tcgetattr(theirs), "what is typed would be shown"
        os.write(ours, key)
        screen += read_until(ours, b"\x1b[?1049l")
        assert 0 == process.wait(60)
    assert before == termios.tcgetattr(theirs)
    os.close(theirs)
    os.close(ours)
    assert b"Traceback" not in screen


def read_until(terminal: int, text: bytes) -> bytes:
    seen, give_up = b"", time.monotonic() + 60
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, give_up - time.monotonic()))
        assert ready, seen
        seen += os.read(terminal, 65_536)
    return seen
