"""What is kept of a failed test with workers: its history, the workers' logs, the broker's file, and the seeds."""

import re
import shutil
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Final

import pytest

FAILURES: Final = "build/failures"
_WORTH_IT: Final = ("history.jsonl", "worker-*.log")
"""A folder with any of these is kept."""
_LARGEST: Final = 100 * 2**20
"""Bytes of a file that is still kept."""
_TO: Final = pytest.StashKey[Path]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the folder of a failed test, and once more at its teardown, when its workers have ended."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if folder is not None and any(found for pattern in _WORTH_IT for found in folder.glob(pattern)):
        if report.failed:
            item.stash[_TO] = item.config.rootpath / FAILURES / folder_name(item.nodeid)
        if (to := item.stash.get(_TO, None)) is not None:
            keep(folder, to, seeds_in(report))
        if report.failed:
            report.sections.append(("kept", str(to)))
    return report


def folder_name(nodeid: str) -> str:
    """Return a test's name as that of a folder."""
    return re.sub(r"[^\w.-]+", "-", nodeid.removeprefix("tests/")).strip("-")


def seeds_in(report: pytest.TestReport) -> list[str]:
    """Return the lines that say which seeds were used."""
    return [line for _, text in report.sections for line in text.splitlines() if "seed" in line]


def keep(folder: Path, to: Path, seeds: Iterable[str]) -> None:
    """Copy a folder to where an earlier failure's was; files may come and go meanwhile."""
    shutil.rmtree(to, ignore_errors=True)
    try:
        shutil.copytree(folder, to, ignore=_not_kept, ignore_dangling_symlinks=True)
    except shutil.Error:
        to.mkdir(parents=True, exist_ok=True)
    (to / "seed").write_text("\n".join(seeds) + "\n")


def _not_kept(folder: str, names: list[str]) -> set[str]:
    paths = {name: Path(folder, name) for name in names}
    return {name for name, path in paths.items() if not (path.is_dir() or _is_kept(path))}


def _is_kept(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size <= _LARGEST
    except FileNotFoundError:
        return False
