import os
import subprocess
import sys
from pathlib import Path

import pytest

from qworker.system.import_path import admit

STANDARD = str(Path(os.__file__).parent)
FOLDER = "/srv/project"
STANDARD_PATH = ["/usr/lib/python.zip", STANDARD, f"{STANDARD}/lib-dynload"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["/bin", *STANDARD_PATH, "/site"], ["/bin", *STANDARD_PATH, FOLDER, "/site"]),
        (["/bin", *STANDARD_PATH, "/site", FOLDER], ["/bin", *STANDARD_PATH, FOLDER, "/site", FOLDER]),
        ([FOLDER, *STANDARD_PATH, "/site"], [FOLDER, *STANDARD_PATH, "/site"]),
        ([*STANDARD_PATH, f"{STANDARD}/site-packages"], [*STANDARD_PATH, FOLDER, f"{STANDARD}/site-packages"]),
        (["/app.zip"], ["/app.zip", FOLDER]),
    ],
)
def test_a_project_comes_after_the_standard_library_and_before_what_is_installed(
    before: list[str], after: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(before))
    for _ in range(2):
        admit(FOLDER)
        assert after == sys.path


MAIN = "import sys, qworker; print(sys.path.index({folder!r}) == 0)"


@pytest.mark.parametrize("options", [["-m", "program"], ["-mprogram"], ["-Bm", "program", "-m", "qworker"]])
def test_the_path_of_another_program_stays_as_it_is(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(MAIN.format(folder=str(tmp_path)))
    command = [sys.executable, *options]
    assert "True\n" == subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("options", [["-m", "qworker"], ["-mqworker"], ["-Bm", "qworker"], ["-P", "-m", "qworker"]])
def test_python_m_qworker_is_hindered_by_no_file_of_the_current_folder(options: list[str], tmp_path: Path) -> None:
    for name in ("email", "queue", "token", "platform", "json", "asyncio", "structlog", "typer", "pydantic"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(__name__)")
    command = [sys.executable, *options, "--version"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("qworker ")
