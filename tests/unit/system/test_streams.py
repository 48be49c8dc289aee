import io
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from qworker.system.streams import flush_or_drop, forgiving

CLOSED = [numbers for count in range(4) for numbers in combinations(range(3), count)]
CHILD = """
import os, sys
from qworker.system.streams import open_standard_streams
open_standard_streams()
print("printed", file=sys.stdout, flush=True)
print("logged", file=sys.stderr, flush=True)
first = os.open("first", os.O_CREAT | os.O_RDWR)
with open("report", "w") as report:
    print(first, sys.stdin.read(), [os.get_inheritable(number) for number in range(3)], file=report)
"""


def without(*numbers: int) -> str:
    return "".join(f" {number}{'<' if number == 0 else '>'}&-" for number in numbers)


@pytest.mark.parametrize("closed", CLOSED)
def test_nothing_gets_the_number_of_a_stream_that_was_closed(closed: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    ended = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" child.py {without(*closed)}', sys.executable],
        cwd=tmp_path,
        input="asked",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = ("" if 1 in closed else "printed\n", "" if 2 in closed else "logged\n", 0)
    assert expected == (ended.stdout, ended.stderr, ended.returncode)
    first, *rest = (tmp_path / "report").read_text().split(maxsplit=1)
    assert int(first) > 2
    assert [("" if 0 in closed else "asked ") + "[True, True, True]"] == [rest[0].strip()]


@pytest.fixture(params=["full", "broken pipe", "would block"])
def unwritable(request: pytest.FixtureRequest) -> Iterator[io.TextIOWrapper]:
    reader = -1
    if request.param == "full":
        file = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, file = os.pipe()
        if request.param == "broken pipe":
            os.close(reader)
        else:
            os.set_blocking(file, False)
            while file_takes(file):
                pass
    yield os.fdopen(file, "w", encoding="latin-1", closefd=False)
    os.close(file)
    if request.param == "would block":
        os.close(reader)


def file_takes(file: int) -> bool:
    try:
        return os.write(file, b"x" * 4096) > 0
    except BlockingIOError:
        return False


@pytest.mark.parametrize("size", [1, 100_000])
def test_what_can_not_be_written_is_lost_without_an_error(unwritable: io.TextIOWrapper, size: int) -> None:
    stream = forgiving(unwritable)
    assert stream is not unwritable
    for _ in range(3):
        stream.write("ü€" * size)
        stream.flush()
    assert unwritable.fileno() == stream.fileno()
    stream.close()
    os.fstat(unwritable.fileno())  # it is still somebody's


def test_a_stream_that_can_be_written_gets_all_in_its_encoding(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="latin-1") as file:
        file.write("before ")
        stream = forgiving(file)
        print("ü€", file=stream, flush=True)
    assert b"before \xfc\\u20ac\n" == (tmp_path / "log").read_bytes()


def test_what_an_unbuffered_stream_is_given_is_written_at_once(tmp_path: Path) -> None:
    """As PYTHONUNBUFFERED asks for, so that what a handler prints is seen while it runs."""
    raw: Any = (tmp_path / "file").open("wb", buffering=0)
    with io.TextIOWrapper(raw, write_through=True) as unbuffered:
        forgiving(unbuffered).write("seen")
        assert "seen" == (tmp_path / "file").read_text()


def test_another_kind_of_stream_is_left_as_it_is() -> None:
    stream = io.StringIO()
    assert stream is forgiving(stream)


def test_what_a_full_stream_holds_is_dropped_once(unwritable: io.TextIOWrapper) -> None:
    unwritable.write("held")
    assert not flush_or_drop(unwritable)
    unwritable.write("more")
    assert flush_or_drop(unwritable)
