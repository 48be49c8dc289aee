"""A project's settings and its default file are found from wherever in it a program runs."""

import os
from pathlib import Path

import pytest

from qworker import App
from qworker.errors import ConfigurationError
from qworker.settings import Settings
from qworker.system import project
from qworker.system.project import anchored, root_of, settings_of

TABLE = "[tool.qworker]\nconcurrency = 3\n"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "QWORKER_BROKER", "QWORKER_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    folder = tmp_path / "shop" / "src" / "pkg"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("files", "root"),
    [
        ({}, "shop/src/pkg"),
        ({"shop/pyproject.toml": ""}, "shop"),
        ({"shop/.git/HEAD": ""}, "shop"),
        ({"shop/.git": "gitdir: elsewhere"}, "shop"),
        ({"pyproject.toml": "", "shop/.git/HEAD": ""}, "shop"),
        ({"shop/.git/HEAD": "", "shop/src/pyproject.toml": ""}, "shop/src"),
        ({"shop/pyproject.toml": TABLE, "shop/src/pyproject.toml": ""}, "shop"),
        ({"shop/pyproject.toml": TABLE, "shop/src/pyproject.toml": TABLE}, "shop/src"),
        ({"shop/src/pkg/pyproject.toml": "", "shop/pyproject.toml": ""}, "shop/src/pkg"),
    ],
)
def test_where_a_project_begins(files: dict[str, str], root: str, deep: Path, tmp_path: Path) -> None:
    """The settings say; else the nearest mark; else the directory itself."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert tmp_path / root == root_of(deep)


def test_producers_and_workers_anywhere_in_a_project_share_a_file(
    deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop" / "pyproject.toml").write_text(TABLE)
    labels = set()
    for folder in (deep, deep.parent, deep.parent.parent):
        monkeypatch.chdir(folder)
        labels.add(App().broker.label)
        labels.add(Settings.load().broker_url())
        assert 3 == Settings.load().concurrency
    assert {f"sqlite:///{tmp_path}/shop/qworker.db"} == labels


def test_a_relative_path_belongs_to_the_file_that_has_it(
    deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop" / "pyproject.toml").write_text('[tool.qworker]\nbroker = "sqlite:///data/q.db"\n')
    monkeypatch.chdir(deep)
    assert f"sqlite:///{tmp_path}/shop/data/q.db" == Settings.load().broker_url()
    monkeypatch.setenv("QWORKER_BROKER", "sqlite:///data/q.db")
    assert f"sqlite:///{deep}/data/q.db" == Settings.load().broker_url()
    assert f"sqlite:///{deep}/other.db" == Settings.load({"broker": "sqlite:///other.db"}).broker_url()


def test_an_app_stays_where_it_was_made(deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(deep)
    default, own, of_environment = App(), App(broker="sqlite:///own.db"), App()
    monkeypatch.chdir(tmp_path)
    assert f"sqlite:///{deep}/qworker.db" == default.broker.label
    assert f"sqlite:///{deep}/own.db" == own.broker.label
    monkeypatch.setenv("QWORKER_BROKER", "sqlite:///set-later.db")
    assert f"sqlite:///{deep}/set-later.db" == of_environment.broker.label
    own.use_broker("sqlite:///other.db")
    assert f"sqlite:///{tmp_path}/other.db" == own.broker.label


def test_an_app_can_be_made_where_no_directory_is(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(deep)
    deep.rmdir()
    assert "sqlite:// (in memory)" == App(broker="sqlite://").broker.label
    with pytest.raises(ConfigurationError, match=r"^which broker\? The current directory was deleted"):
        _ = App().broker
    monkeypatch.setenv("QWORKER_BROKER", "sqlite:////tmp/x.db")
    assert "sqlite:////tmp/x.db" == App().broker.label


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"concurrency =", "is not sound TOML: Invalid value"),
        (b"[tool]\nqworker = 5\n", "tool.qworker must be a table, [tool.qworker], not a number"),
        (b"[tool]\nqworker = 'x'\n", "tool.qworker must be a table, [tool.qworker], not a text"),
        (b"[[tool.qworker]]\nx = 1\n", "tool.qworker must be a table, [tool.qworker], not a list"),
        (b"tool = 5\n", "tool must be a table, [tool], not a number"),
        (b"x = '\xff'\n", "is not sound TOML: it is not UTF-8"),
        (b"x = " + b"[" * 5000, "is not sound TOML: "),
    ],
)
@pytest.mark.parametrize("where", [".", "..", "../.."])
def test_a_file_that_makes_no_sense_is_one_line(
    content: bytes, says: str, where: str, deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(deep)
    file = (deep / where).resolve() / "pyproject.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as refused:
        Settings.load()
    assert str(refused.value).startswith(f"{file}: {says}")
    assert "\n" not in str(refused.value)


def test_a_directory_of_the_files_name_is_said(deep: Path) -> None:
    (deep / "pyproject.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml: can't be read: Is a directory$"):
        settings_of(deep)
    assert settings_of(deep / "further-down") is None, "further up it can't be a project's settings"


def test_a_mistake_further_up_names_its_file(deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop" / "pyproject.toml").write_text("[tool.qworker]\nlease = 1\n")
    monkeypatch.chdir(deep)
    with pytest.raises(ConfigurationError) as refused:
        Settings.load()
    assert f"[tool.qworker] lease in {tmp_path}/shop/pyproject.toml: must be greater than or equal to 2" == str(
        refused.value
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_what_somebody_else_left_further_up_means_nothing(deep: Path, tmp_path: Path) -> None:
    """Anybody may write into /tmp; a project of another owner is taken for what it is if we are inside of it."""
    file = tmp_path / "shop" / "pyproject.toml"
    file.write_text(TABLE)
    os.chown(file, 4711, 4711)
    assert settings_of(deep) is None
    assert deep == root_of(deep)
    os.chown(deep, 4711, 4711)
    assert tmp_path / "shop" == root_of(deep)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:x",
        "sqlite:///~/x",
        "azure://shop",
        "nonsense",
    ],
)
def test_what_is_no_path_is_not_made_one(url: str, tmp_path: Path) -> None:
    assert url == anchored(url, tmp_path)


def test_the_marks_are_those_of_a_project() -> None:
    assert ("pyproject.toml", ".git") == project._MARKS
