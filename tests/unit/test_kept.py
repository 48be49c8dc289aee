from pathlib import Path
from types import SimpleNamespace

import pytest

import kept


class Told:
    """A test that pytest reports on."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.item = SimpleNamespace(
            nodeid="tests/faults/test_kills.py::test_kill[azure-1/2]",
            funcargs={"tmp_path": folder},
            stash=pytest.Stash(),
            config=SimpleNamespace(rootpath=root),
        )
        self.kept = root / "build/failures/faults-test_kills.py-test_kill-azure-1-2"

    def report(self, *, failed: bool) -> list[tuple[str, str]]:
        sections = [("Captured stdout setup", "seed 7: again with --seed 5\nmore\n")]
        report = SimpleNamespace(failed=failed, sections=sections)
        hook = kept.pytest_runtest_makereport(self.item)  # type: ignore[arg-type]
        next(hook)
        with pytest.raises(StopIteration) as ended:
            hook.send(report)  # type: ignore[arg-type]
        assert ended.value.value is report
        return sections[1:]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    folder = tmp_path / "folder"
    folder.mkdir()
    return Told(tmp_path, folder)


def test_a_failed_test_with_a_history_is_kept_and_its_report_says_where(told: Told) -> None:
    history = told.item.funcargs["tmp_path"] / "history.jsonl"
    history.write_text("1\n")
    assert [("kept", str(told.kept))] == told.report(failed=True)
    assert ("1\n", "seed 7: again with --seed 5\n") == (
        (told.kept / "history.jsonl").read_text(),
        (told.kept / "seed").read_text(),
    )
    history.write_text("1\n2\n")  # the workers end at the teardown, which succeeds
    assert [] == told.report(failed=False)
    assert "1\n2\n" == (told.kept / "history.jsonl").read_text()


def test_neither_a_test_that_passes_nor_one_without_workers_is_kept(told: Told) -> None:
    (told.item.funcargs["tmp_path"] / "history.jsonl").touch()
    told.report(failed=False)
    assert not told.kept.exists()
    (told.item.funcargs["tmp_path"] / "history.jsonl").unlink()
    assert [] == told.report(failed=True)
    assert not told.kept.exists()


def test_what_an_earlier_run_left_gives_way_and_large_files_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_LARGEST", 10)
    folder, to = tmp_path / "folder", tmp_path / "build" / "kept"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "small").write_text("1")
    (folder / "large").write_text("1" * 11)
    (folder / "dangling").symlink_to("nowhere")
    to.mkdir(parents=True)
    (to / "old").touch()
    kept.keep(folder, to, [])
    assert {"below", "below/small", "seed"} == {str(path.relative_to(to)) for path in to.rglob("*")}
