"""What the demo measures: each .py file of the running Python's standard library."""

import sysconfig
from pathlib import Path

STDLIB = Path(sysconfig.get_path("stdlib"))
NOT_STDLIB = {"site-packages", "dist-packages"}
BROKEN = {
    "broken_syntax.py": b"def function(:\n",
    "null_byte.py": b"text = '\0'\n",
    "bad_encoding.py": b"# coding: utf-8\ntext = '\xff'\n",
    "unknown_encoding.py": b"# coding: klingon\n",
}


def stdlib_files() -> list[Path]:
    """Return the library's files, those of its own tests among them."""
    files = (path for path in STDLIB.rglob("*.py") if path.is_file())
    return sorted(path for path in files if NOT_STDLIB.isdisjoint(path.relative_to(STDLIB).parts))


def has_broken_files() -> bool:
    """Say whether the library's tests, where its broken files are, are installed; some distributions drop them."""
    return (STDLIB / "test" / "tokenizedata").exists() or (STDLIB / "test" / "bad_coding.py").exists()


def write_broken_files(folder: Path) -> list[Path]:
    """Make a few files that are no Python, for a library without any."""
    folder.mkdir()
    for name, source in BROKEN.items():
        (folder / name).write_bytes(source)
    return sorted(folder.iterdir())


def short(path: Path) -> str:
    """Return a file's name as the library's readers know it."""
    return str(path.relative_to(STDLIB)) if path.is_relative_to(STDLIB) else path.name
