"""What `make demo` runs, on a part of this Python's library, on one without broken files, and with dying workers."""

import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from running import run

STDLIB = Path(sysconfig.get_path("stdlib"))
PART = ("asyncio", "email", "importlib", "json", "unittest", "xml", "test/test_json", "test/tokenizedata")
DEMO = [sys.executable, "-m", "examples.demo"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Temporary files go to an empty folder; sitecustomize.py is run by every Python that is started."""
    (tmp_path / "temporary").mkdir()
    return os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(tmp_path)}


def measure(library: Path, folder: Path) -> None:
    (folder / "sitecustomize.py").write_text(f"import sysconfig; sysconfig.get_path = lambda _: {str(library)!r}")


def figures(output: str) -> dict[str, int]:
    found = re.findall(r"^ +([a-z]+) +([\d,]+) *$", output, re.MULTILINE)
    return {name: int(value.replace(",", "")) for name, value in found}


def test_it_measures_the_standard_library(tmp_path: Path, environment: dict[str, str]) -> None:
    """Some distributions drop its tests, the broken files among them."""
    for name in PART:
        if (STDLIB / name).exists():
            shutil.copytree(STDLIB / name, tmp_path / "library" / name)
    measure(tmp_path / "library", tmp_path)

    output = run(DEMO, environment=environment)

    totals = figures(output)
    assert totals["files"] > 100
    assert totals["files"] == totals["measured"] + totals["failed"]
    assert totals["failed"] == output.count(" after 3 attempts\n") > 0
    assert totals["lines"] > totals["functions"] > totals["classes"] > 100
    assert "\x1b" not in output
    assert "━" not in output
    assert [] == list((tmp_path / "temporary").iterdir())


def test_it_brings_broken_files_where_the_library_has_none(tmp_path: Path, environment: dict[str, str]) -> None:
    library = tmp_path / "library"
    (library / "site-packages").mkdir(parents=True)
    (library / "site-packages" / "other.py").touch()
    (library / "good.py").write_text("class A:\n    def f(self): ...\n    async def g(self): ...\n")
    measure(library, tmp_path)

    output = run(DEMO, environment=environment)

    assert {"lines": 3, "functions": 2, "classes": 1, "files": 5, "measured": 1, "failed": 4} == {
        name: value for name, value in figures(output).items() if name != "contents"
    }
    assert "a few broken files of our own" in output
    for name in ("broken_syntax.py", "null_byte.py", "bad_encoding.py", "unknown_encoding.py"):
        assert f"  {name} after 3 attempts\n" in output


def test_it_says_so_when_the_workers_die(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'run' in sys.argv: os.write(2, b'out of order'); os._exit(3)",
    )

    output = run(DEMO, environment=environment, exit_code=1)

    assert "The workers stopped after 0 of " in output
    assert output.endswith("out of order\n")
    assert [] == list((tmp_path / "temporary").iterdir())
