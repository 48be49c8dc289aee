"""One file has one place, whatever it is called; what names none is refused."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qworker import App
from qworker.brokers.base import Broker
from qworker.brokers.choose import broker_from_url
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.errors import BrokerUnusable, InvalidBrokerURL

IN_MEMORY = "takes a plain path, as in sqlite:///jobs.db; sqlite:// is a broker in memory"


async def use(broker: SqliteBroker) -> int:
    """Put a message, and return how many there are then."""
    await broker.create_queue("mail")
    await broker.queue("mail").put("{}")
    return await broker.queue("mail").count()


def files_of(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def label_of(url: str) -> str:
    return broker_from_url(url).label


def made(url: str, folder: Path) -> tuple[Broker | None, str]:
    try:
        return broker_from_url(url, folder), ""
    except InvalidBrokerURL as refused:
        return None, str(refused)


def names_of(folder: Path) -> list[str]:
    """Return every way to name folder/data/jobs.db from the folder, made here."""
    (folder / "data").mkdir()
    (folder / "link.db").symlink_to("data/jobs.db")
    (folder / "link-to-link.db").symlink_to("link.db")
    (folder / "absolute.db").symlink_to(folder / "data" / "jobs.db")
    (folder / "linked").symlink_to("data")
    return [
        "data/jobs.db",
        "./data/../data//jobs.db",
        f"{folder}/data/jobs.db",
        "link.db",
        "link-to-link.db",
        "absolute.db",
        "linked/jobs.db",
        f"{folder}/linked/../data/jobs.db",
    ]


async def test_all_names_of_a_file_share_it_while_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The links dangle at first; SQLite's log is beside the file, wherever the links are."""
    monkeypatch.chdir(tmp_path)
    names = names_of(tmp_path)
    brokers = [SqliteBroker(name) for name in names]
    assert {f"sqlite:///{tmp_path}/data/jobs.db"} == {label_of(f"sqlite:///{name}") for name in names}
    try:
        assert [*range(1, len(names) + 1)] == [await use(broker) for broker in brokers]
        assert ["jobs.db", "jobs.db-shm", "jobs.db-wal"] == files_of(tmp_path / "data")
    finally:
        for broker in brokers:
            await broker.aclose()


async def test_a_broker_stays_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.db").symlink_to("first.db")
    monkeypatch.chdir(tmp_path)
    broker = SqliteBroker("link.db")
    monkeypatch.chdir("elsewhere")
    (tmp_path / "link.db").unlink()
    (tmp_path / "link.db").symlink_to("second.db")
    assert 1 == await use(broker)
    await broker.aclose()
    assert ["elsewhere", "first.db", "link.db"] == files_of(tmp_path)
    assert [] == files_of(tmp_path / "elsewhere")


async def test_a_file_of_two_names_is_refused(tmp_path: Path) -> None:
    """Each name would have a log of its own."""
    first = SqliteBroker(tmp_path / "a.db")
    await use(first)
    await first.aclose()
    os.link(tmp_path / "a.db", tmp_path / "b.db")
    before = (tmp_path / "b.db").read_bytes()
    with pytest.raises(
        BrokerUnusable, match=r"b\.db: has 2 names \(hard links\), each of which SQLite would give a log"
    ):
        await use(SqliteBroker(tmp_path / "b.db"))
    assert before == (tmp_path / "b.db").read_bytes()
    (tmp_path / "a.db").unlink()
    second = SqliteBroker(tmp_path / "b.db")
    assert 2 == await use(second)
    await second.aclose()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("circle.db", "circle.db: is a symbolic link that leads to no file"),
        (".", "is a directory, not a database file"),
        ("nowhere/jobs.db", "the directory {here}/nowhere does not exist"),
        ("q" * 300, "File name too long"),
        ("/".join(["q" * 200] * 30), "File name too long"),
        ("q" * 255, "File name too long"),
    ],
    ids=["circle", "directory", "no directory", "long", "long path", "no room for a log's name"],
)
async def test_where_no_file_can_be_is_one_line(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle.db").symlink_to("other.db")
    (tmp_path / "other.db").symlink_to("circle.db")
    broker = SqliteBroker(name)
    assert isinstance(broker.exists(), bool)
    with pytest.raises(BrokerUnusable) as refused:
        await use(broker)
    assert says.format(here=tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)
    await broker.aclose()
    assert ["circle.db", "other.db"] == files_of(tmp_path)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///", "sqlite:///: names no file: is a variable in it not set? sqlite:// is a broker in memory"),
        ("sqlite:///  ", "sqlite:///: names no file: is a variable in it not set? sqlite:// is a broker in memory"),
        ("sqlite:///:memory:", f"sqlite:///:memory:: {IN_MEMORY}"),
        ("sqlite://:memory:", f"sqlite://:memory:: {IN_MEMORY}"),
        ("sqlite:///file::memory:?cache=shared", f"sqlite:///file::memory:?cache=shared: {IN_MEMORY}"),
        ("sqlite:///file:jobs.db", f"sqlite:///file:jobs.db: {IN_MEMORY}"),
        ("sqlite:///?", "sqlite:///FILE takes no options: leave out what begins with '?'"),
        ("sqlite:///jobs.db?mode=ro", "sqlite:///FILE takes no options: leave out what begins with '?'"),
        ("sqlite:///data/", "sqlite:///data/: names a directory, not a file"),
        ("sqlite:////", "sqlite:////: names a directory, not a file"),
        ("sqlite:///~/jobs.db", "sqlite:///~/jobs.db: '~' means nothing here: write the whole path"),
        ("sqlite:///a\0b.db", "sqlite:///a\\0b.db: no path has a NUL in it"),
        ("sqlite://jobs.db", "sqlite://jobs.db: a file takes three slashes: sqlite:///jobs.db"),
    ],
)
def test_what_names_no_file_is_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidBrokerURL) as refused:
        broker_from_url(url)
    assert says == str(refused.value)
    with pytest.raises(InvalidBrokerURL) as refused:
        _ = App(broker=url).broker
    assert says == str(refused.value)


@pytest.mark.parametrize("name", ["a%20b.db", "a b.db", "a#b.db", "ä.db", "a:b.db", "x.db;y", "-x.db", "a\\b.db"])
async def test_a_name_is_taken_as_it_is_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broker = broker_from_url(f"sqlite:///{name}")
    assert isinstance(broker, SqliteBroker)
    assert 1 == await use(broker)
    await broker.aclose()
    assert [name] == files_of(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rest=st.text(alphabet=st.sampled_from("/.~?:%\0 aé-\udcff\n")), slashes=st.integers(0, 4))
def test_whatever_is_written_is_one_file_under_the_folder_or_one_line(rest: str, slashes: int, tmp_path: Path) -> None:
    """No name comes to memory but the one that says so, and none to a traceback."""
    broker, refusal = made(f"sqlite://{'/' * slashes}{rest}", tmp_path)
    if broker is None:
        assert "\0" not in refusal
        refusal.encode()
        return
    if not broker.shared:
        assert "" == ("/" * slashes + rest).strip()
        return
    assert slashes or rest.startswith("/")
    assert isinstance(broker, SqliteBroker)
    assert Path(broker.label.removeprefix("sqlite:///")).is_absolute()
    assert broker.label == label_of(f"sqlite:///{broker.label.removeprefix('sqlite:///')}")


async def test_a_name_that_is_no_utf_8_is_a_file_like_any_other(tmp_path: Path) -> None:
    broker = SqliteBroker(os.fsdecode(bytes(tmp_path) + b"/\xff.db"))
    assert 1 == await use(broker)
    await broker.aclose()
    with closing(sqlite3.connect(os.fsencode(tmp_path) + b"/\xff.db")) as connection:
        assert [(1,)] == connection.execute("SELECT count(*) FROM messages").fetchall()


def test_a_directory_that_is_gone_has_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InvalidBrokerURL, match=r"^sqlite:///jobs\.db: is relative to a directory that was deleted$"):
        _ = App(broker="sqlite:///jobs.db").broker
