import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qworker.cli.enqueue.lines import MAX_LINE, Line, LineSource
from qworker.errors import ConfigurationError


def lines_of(path: Path) -> list[Line]:
    return [line for line in LineSource.open(str(path)) if line is not None]


def test_lines_have_numbers_and_no_ends(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfone\n\n\xff\nfour")
    assert [Line(1, b"one"), Line(2, b""), Line(3, b"\xff"), Line(4, b"four", whole=False)] == lines_of(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"one\n")
    assert [Line(1, b"one")] == lines_of(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"")
    assert [] == lines_of(tmp_path / "f")


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    longest = b"x" * MAX_LINE
    (tmp_path / "f").write_bytes(b"1\n" + longest * 3 + b"\n" + longest + b"\n4\n" + longest + b"x")
    assert [Line(1, b"1"), Line(2, None), Line(3, longest), Line(4, b"4"), Line(5, None, whole=False)] == lines_of(
        tmp_path / "f"
    )


def test_a_wait_is_said_beforehand() -> None:
    waits = 0

    @contextmanager
    def counted() -> Iterator[None]:
        nonlocal waits
        waits += 1
        yield

    end, other = os.pipe()
    os.write(other, b"one\ntw")
    source = LineSource(end, "a pipe", counted)
    found = iter(source)
    assert (Line(1, b"one"), None) == (next(found), next(found))
    assert (None, 1) == (source.size, waits)
    os.write(other, b"o\n")
    os.close(other)
    assert [Line(2, b"two")] == list(found)
    assert (8, 3) == (source.bytes_read, waits)
    os.close(end)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--from: .*/nothing: No such file or directory"):
        LineSource.open(str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match="Is a directory"):
        LineSource.open(str(tmp_path))
