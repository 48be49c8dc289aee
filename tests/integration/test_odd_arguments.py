"""Every command with odd values for each of its options and arguments: one line, a known exit code, and no secret."""

import asyncio
import base64
import json
import random
import signal
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest

from qworker.brokers.choose import broker_from_url
from qworker.cli import command, main

CODES: Final = {0, 1, 2, 65, 66, 78}
KEY: Final = base64.b64encode(random.Random(14).randbytes(64)).decode()
ODD: Final = (
    "",
    " ",
    ".",
    "..",
    "/",
    "/dev/null",
    "-1",
    "0",
    "9" * 400,
    "9" * 5_000,
    "1e999",
    "nan",
    "-inf",
    "9" * 30 + "d",
    "\x00",
    "a\x00b",
    "\udcff\ud800",
    "é\u202e\u2028",
    "\x1b[31m",
    "a\nb",
    "x" * 70_000,
    "[" * 100_000,
    '{"a": ' * 3_000,
    "{}",
    "[1]",
    "null",
    "%s%n{0}",
    "a:b:c",
    "mail:0,mail:-1",
    "mail," * 2_000 + "mail",
    "http://[",
    "http://user:" + KEY + "@127.0.0.1:1/",
    "sqlite:///",
    "sqlite:////dev/null/x",
    "sqlite:////" + "n" * 300,
    "AccountKey=" + KEY,
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=" + KEY,
    "https://a.queue.core.windows.net/?sv=1&sig=" + KEY[:43] + "%3D",
    KEY,
)
NEEDED: Final = {
    ("run",): ["nowhere"],
    ("enqueue",): ["odd.quick"],
    ("tasks",): ["odd"],
    ("top",): ["--once", "-n", "0.01"],
    ("queues", "create"): ["mail"],
    ("queues", "delete"): ["mail", "--yes"],
    ("queues", "clear"): ["mail", "--yes"],
    ("queues", "count"): ["mail"],
    ("queues", "peek"): ["mail"],
    ("poison", "show"): ["j1"],
    ("poison", "replay"): ["mail"],
    ("poison", "purge"): ["mail", "--yes"],
}
"""What a command takes beside the odd value."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in group.list_commands(None):
        each = group.get_command(None, name)
        if hasattr(each, "commands"):
            yield (*path, name), each
            yield from commands(each, (*path, name))
        else:
            yield (*path, name), each


def cases() -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each command with each of its options that takes a value, and with "" for its argument."""
    for path, each in commands(command):
        yield path, ""
        for parameter in each.params:
            if parameter.param_type_name == "option" and not parameter.is_flag:
                yield path, max(parameter.opts, key=len)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    (tmp_path / "odd.py").write_text("from qworker import task\n@task(name='odd.quick')\ndef quick() -> None: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWORKER_BROKER", "sqlite:///q.db")
    monkeypatch.setattr(sys, "stdin", StringIO())
    sys.modules.pop("odd", None)

    async def fill() -> None:
        broker = broker_from_url(f"sqlite:///{tmp_path}/q.db")
        for name in ("mail", "mail-poison"):
            await broker.create_queue(name)
        await broker.aclose()

    asyncio.run(fill())
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("path", "option"), [*cases()], ids=lambda given: " ".join(given) if isinstance(given, tuple) else given
)
def test_an_odd_value_is_one_line(
    path: tuple[str, ...],
    option: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for value in ODD:
        if value == "0" and option == "--health-port":
            continue
        needed = [] if not option and path != ("enqueue",) else NEEDED.get(path, [])
        arguments = [*path, *needed, *([f"{option}={value}"] if option.startswith("--") else [value])]
        monkeypatch.setattr(sys, "argv", ["qworker", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        case = f"{arguments[:4]!r:.200}: {ended.value.code}\n{told.err:.900}"
        assert ended.value.code in CODES, case
        assert "Traceback" not in told.out + told.err, case
        assert len(told.err.splitlines()) <= 2, case
        assert all(len(line) < 2_100 for line in told.err.splitlines()), case
        assert not any(KEY[at : at + 16] in told.out + told.err for at in range(0, 72, 8)), case
        assert "\x1b" not in told.out + told.err, case


@pytest.mark.parametrize("path", [path for path, each in commands(command)], ids=" ".join)
def test_an_odd_setting_is_one_line(
    path: tuple[str, ...], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("QWORKER_BROKER")
    monkeypatch.setattr(sys, "argv", ["qworker", *path, *NEEDED.get(path, [])])
    for value in ODD:
        written = json.dumps(value.encode("utf-8", "replace").decode())
        (here / "pyproject.toml").write_text(f"[tool.qworker]\nbroker = {written}\n")
        sys.modules.pop("odd", None)
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        case = f"{path} {value:.40}: {ended.value.code}\n{told.err:.900}"
        assert ended.value.code in CODES, case
        assert "Traceback" not in told.out + told.err, case
        assert len(told.err.splitlines()) <= 2, case
        assert not any(KEY[at : at + 16] in told.out + told.err for at in range(0, 72, 8)), case
