"""qworker doctor, on each broker: what is fine, and what each fault makes of it."""

import asyncio
import json
import re
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from azure.storage.queue import AccountSasPermissions, ResourceTypes, Services, generate_account_sas

from azurite_server import ACCOUNT, KEY, Azurite, connection_string
from qworker.brokers.base import Condition
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.cli import main
from qworker.errors import BrokerUnavailable, BrokerUnusable
from running import ROOT
from stage import APPS, Stage

Doctor = Callable[..., tuple[int, Any]]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Doctor:
    """Return a doctor of the broker at a URL, who says how the command ended, and each check's results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(APPS)
    monkeypatch.setattr(sys, "stdin", StringIO())

    def call(url: str, *arguments: str, as_json: bool = True) -> tuple[int, Any]:
        monkeypatch.setenv("QWORKER_BROKER", url)
        monkeypatch.setattr(sys, "argv", ["qworker", "doctor", *arguments, *(["--json"] if as_json else [])])
        with pytest.raises(SystemExit) as ended:
            main()
        read = capsys.readouterr()
        assert "Traceback" not in read.err
        for secret in (KEY, *re.findall("sig=([^&]+)", url)):
            assert secret not in read.out + read.err
        return int(ended.value.code or 0), json.loads(read.out)["checks"] if as_json else (read.out, read.err)

    return call


def results(checks: Any, queue: str | None = None) -> dict[str, str]:
    return {each["check"]: each["result"] for each in checks if each["queue"] == queue}


def found(checks: Any, check: str, result: str) -> list[str]:
    return [each["found"] for each in checks if (each["check"], each["result"]) == (check, result)]


def make(stage: Stage, *bodies: str, ttl: int | None = None) -> None:
    async def fill() -> None:
        for name in (stage.queue, f"{stage.queue}-poison"):
            await stage.app.broker.create_queue(name)
        for body in bodies:
            await stage.app.broker.queue(stage.queue).put(body, ttl=ttl)

    stage.app._portal.run(fill())


def test_all_is_well(stage: Stage, doctor: Doctor) -> None:
    make(stage, '{"task":"t"}')
    code, checks = doctor(stage.url, "--queue", stage.queue)
    place = results(checks)
    if stage.url.startswith("sqlite:"):
        assert {"broker", "journal", "disk", "round trips", "writes", "polling"} == place.keys()
    else:
        assert {"broker", "clock", "api version", "round trips", "polling"} == place.keys()
        assert ["put, get, update, delete"] * 2 == found(checks, "rights", "ok")
        (cost,) = [each["figures"] for each in checks if each["check"] == "polling"]
        assert {"requests_a_month": 1_728_000} == cost
    del place["round trips"]  # which are what they are
    assert (0, {"ok"}) == (code, {*place.values(), *results(checks, stage.queue).values()})
    assert {"queue", "encoding", "ttl"} <= results(checks, stage.queue).keys()
    assert {"queue", "ttl"} <= results(checks, f"{stage.queue}-poison").keys()
    assert 1 == stage.remaining()


def test_what_is_in_a_queue_is_looked_at(stage: Stage, doctor: Doctor) -> None:
    """One failing check hides no other, and a pipe gets plain lines."""
    make(stage, "no job", '{"task":"t"}', ttl=3600)
    code, checks = doctor(stage.url, "--queue", stage.queue, "--queue", "Bad_Name")
    assert 1 == code
    assert {"queue": "failed"} == results(checks, "Bad_Name")
    of_queue = results(checks, stage.queue)
    assert ("ok", "failed", "warning") == tuple(of_queue[name] for name in ("queue", "encoding", "ttl"))
    code, (table, said) = doctor(stage.url, "--queue", stage.queue, as_json=False)
    assert (1, ["CHECK", "QUEUE", "RESULT", "FOUND"]) == (code, table.splitlines()[0].split())
    assert len(checks) - 1 == len(table.splitlines()) - 1
    assert "\x1b" not in table + said
    assert "1 failed, " in said


def test_the_queues_are_the_apps(sqlite_stage: Stage, doctor: Doctor) -> None:
    make(sqlite_stage)
    code, checks = doctor(sqlite_stage.url, "--app", "jobs")
    assert 0 == code
    assert "default" in {each["queue"] for each in checks}
    assert {"queue": "warning"} == results(checks, "default")


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, doctor: Doctor) -> None:
    code, checks = doctor(f"sqlite:///{tmp_path}/none.db", "--queue", "Bad_Name")
    assert (1, {"broker": "failed", "polling": "ok"}) == (code, results(checks))
    assert {"queue": "failed"} == results(checks, "Bad_Name")
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_can_not_be_written(sqlite_stage: Stage, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    make(sqlite_stage)

    async def refuse(_: SqliteBroker) -> None:
        raise BrokerUnusable("attempt to write a readonly database")

    monkeypatch.setattr(SqliteBroker, "check_writable", refuse)
    code, checks = doctor(sqlite_stage.url, "--queue", sqlite_stage.queue)
    assert 1 == code
    assert ["attempt to write a readonly database"] == found(checks, "writes", "failed")
    assert {"queue": "ok", "encoding": "ok", "ttl": "ok"} == results(checks, sqlite_stage.queue)


def test_what_nobody_expects_is_a_line(sqlite_stage: Stage, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    make(sqlite_stage)
    answers: list[Condition | Exception] = [Condition(), Condition(), BrokerUnavailable("gone"), RuntimeError(KEY)]

    async def examine(_: SqliteBroker) -> Condition:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(SqliteBroker, "examine", examine)
    code, checks = doctor(sqlite_stage.url, "--queue", sqlite_stage.queue)
    assert (0, "warning") == (code, results(checks)["round trips"])
    code, checks = doctor(sqlite_stage.url, "--queue", sqlite_stage.queue)
    assert (1, ["unexpected: RuntimeError"]) == (code, found(checks, "broker", "failed"))


def test_the_write_that_is_tried_changes_nothing(tmp_path: Path) -> None:
    async def ask() -> Condition:
        broker = SqliteBroker(tmp_path / "jobs.db")
        await broker.check_writable()
        assert [] == await broker.list_queues()
        condition = await broker.examine()
        await broker.aclose()
        return condition

    condition = asyncio.run(ask())
    assert "wal" == condition.journal_mode
    assert condition.free_bytes


def url_with(azurite: Azurite, permissions: dict[str, bool]) -> str:
    now = datetime.now(UTC)
    sas = generate_account_sas(
        ACCOUNT,
        KEY,
        resource_types=ResourceTypes(container=True, object=True),
        permission=AccountSasPermissions(**permissions),
        start=now - timedelta(hours=1),
        expiry=now + timedelta(hours=1),
        services=Services(queue=True),
    )
    return f"{azurite.account_url}?{sas}"


@pytest.fixture
def azure_stage(azurite: Azurite, stage_on: Callable[[str], Stage]) -> Stage:
    return stage_on(azurite.connection_string)


def test_each_right_that_is_missing_is_named(azurite: Azurite, azure_stage: Stage, doctor: Doctor) -> None:
    make(azure_stage, '{"task":"t"}')
    name = azure_stage.queue
    url = url_with(azurite, {"process": True, "read": True})
    code, checks = doctor(url, "--queue", name)
    assert (1, "ok") == (code, results(checks)["clock"])
    failed = found(checks, "rights", "failed")
    assert ["no right to update", "no right to put"] == [text.partition(":")[0] for text in failed]
    assert "permission 'u' in a SAS or the role 'Storage Queue Data Contributor'" in failed[0]
    assert "ok" == results(checks, name)["encoding"]
    assert 1 == azure_stage.remaining()


def test_a_workers_rights_are_enough(azurite: Azurite, azure_stage: Stage, doctor: Doctor) -> None:
    """It may neither list, nor count, nor look."""
    make(azure_stage)
    url = url_with(azurite, {"process": True, "update": True, "add": True})
    code, checks = doctor(url, "--queue", azure_stage.queue)
    assert (0, "ok") == (code, results(checks, azure_stage.queue)["rights"])
    assert {"queue": "warning", "rights": "ok", "contents": "warning"} == results(checks, azure_stage.queue)


def test_a_wrong_key_hides_neither_clock_nor_version(azurite: Azurite, doctor: Doctor) -> None:
    code, checks = doctor(connection_string(azurite.port, "d3Jvbmcga2V5"), "--queue", "mail")
    place = results(checks)
    assert (1, "ok", "ok", "ok") == (code, place["broker"], place["clock"], place["api version"])
    assert 4 == sum("did not accept the credential" in text for text in found(checks, "rights", "failed")) / 2


def test_a_broker_that_is_not_there(doctor: Doctor) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        code, checks = doctor(connection_string(closed.getsockname()[1]), "--queue", "mail")
    assert (1, {"broker": "failed", "polling": "ok"}) == (code, results(checks))
    assert {"queue": "failed", "rights": "failed", "contents": "failed"} == results(checks, "mail")


def test_the_page_names_every_check(stage: Stage, doctor: Doctor) -> None:
    make(stage)
    page = (ROOT / "docs/operating.md").read_text().partition("## Is all as it should be?")[2].partition("\n## ")[0]
    session = page.partition("```console\n")[2].partition("```")[0]
    _, program, *arguments = session.replace("mail", "jobs").split()
    assert ("qworker", "doctor") == (program, arguments[0])
    _, checks = doctor(stage.url, *arguments[1:])
    named = {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall("`(.+?)`", row)}
    assert {each["check"] for each in checks} <= named
