"""Names of files as Windows has them, told by their text: no Windows is needed."""

import ntpath
from pathlib import Path, PureWindowsPath
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.brokers.sqlite import file as sqlite_file
from qworker.brokers.sqlite import place as sqlite_place
from qworker.errors import InvalidBrokerURL
from qworker.system import project
from qworker.system.windows_paths import mistake_in, share_of

FOLDER = cast(Path, PureWindowsPath("D:/project"))
names = st.text(st.characters(codec="utf-8", exclude_characters='/\\:?~"<>|*\0', exclude_categories=["C"]), min_size=1)
drives = st.sampled_from("CDEZcdz")
slashes = st.sampled_from(["/", "\\"])
servers = names.filter(lambda name: name != ".")  # which begins the name of a device


@pytest.fixture(autouse=True)
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (project, sqlite_place, sqlite_file):
        monkeypatch.setattr(module, "IS_WINDOWS", True)


@pytest.fixture
def realpath(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.realpath", ntpath.realpath)  # for one test: Hypothesis asks for paths of this machine


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///C:/data/jobs.db", r"C:\data\jobs.db"),
        (r"sqlite:///C:\data\jobs.db", r"C:\data\jobs.db"),
        (r"sqlite:///c:\data/jobs.db", r"c:\data\jobs.db"),
        ("sqlite:///jobs.db", r"D:\project\jobs.db"),
        (r"sqlite:///data\..\jobs.db", r"D:\project\jobs.db"),
        ("sqlite:////data/jobs.db", r"D:\data\jobs.db"),
    ],
)
@pytest.mark.usefixtures("realpath")
def test_a_path_means_the_file_that_it_means_to_windows(url: str, file: str) -> None:
    assert f"sqlite:///{file}" == project.anchored(url, FOLDER)
    place: Any = sqlite_place.place_of_url(url.removeprefix("sqlite://"), FOLDER)
    assert file == str(place)


def test_what_stands_beside_a_file_has_its_name() -> None:
    path: Any = PureWindowsPath(r"C:\data\jobs.db")
    assert r"C:\data\jobs.db-wal" == str(sqlite_file._log_of(path))
    assert "file:///C:/data/jobs.db" == path.as_uri()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("C:jobs.db", "is relative to a directory of its own that drive C: has: write the whole path"),
        ("c:", "is relative to a directory of its own that drive c: has: write the whole path"),
        ("/C:/data/jobs.db", "has a slash too many before C:"),
        (r"\C:\data\jobs.db", "has a slash too many before C:"),
        ("jobs.db:other", "has a colon in it, which only the letter of a drive takes"),
        ("C:/data/jobs.db:other", "has a colon in it, which only the letter of a drive takes"),
        ("12:30.db", "has a colon in it, which only the letter of a drive takes"),
    ],
)
def test_a_name_that_means_no_one_file_is_refused_in_one_line(name: str, why: str) -> None:
    assert f"sqlite:///{name}" == project.anchored(f"sqlite:///{name}", FOLDER)
    with pytest.raises(InvalidBrokerURL) as refused:
        sqlite_place.place_of_url(f"/{name}", FOLDER)
    assert f"sqlite:///{name}: {why}" == str(refused.value)


@given(drives, slashes, st.lists(names, min_size=1))
def test_whole_paths_are_no_mistake_and_drive_relative_ones_are(drive: str, slash: str, parts: list[str]) -> None:
    assert mistake_in(f"{drive}:{slash}{slash.join(parts)}") is None
    assert mistake_in(f"{drive}:{slash.join(parts)}") is not None
    assert mistake_in(slash.join(parts)) is None


@given(servers, names, names)
def test_a_share_is_told_from_a_disk(server: str, share: str, name: str) -> None:
    assert rf"\\{server}\{share}" == share_of(PureWindowsPath(rf"\\{server}\{share}\{name}"))
    assert rf"\\{server}\{share}" == share_of(PureWindowsPath(f"//{server}/{share}/{name}"))
    assert share_of(PureWindowsPath(rf"C:\{server}\{share}\{name}")) is None


def test_the_long_forms_of_paths_are_understood() -> None:
    assert share_of(PureWindowsPath(r"\\?\C:\data\jobs.db")) is None
    assert r"\\server\share" == share_of(PureWindowsPath(r"\\?\UNC\server\share\jobs.db"))


def test_a_share_is_a_network_file_system() -> None:
    path: Any = PureWindowsPath(r"\\server\share\jobs.db")
    assert r"\\server\share" == sqlite_file.network_file_system(path)
