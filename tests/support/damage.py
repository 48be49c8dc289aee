"""Files that are no sound database of qworker's: how they come about, and what they look like before and after."""

import hashlib
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

PAGE: Final = 4096
_HEADER: Final = 100


def log_of(file: Path) -> Path:
    return file.with_name(file.name + "-wal")


@dataclass(frozen=True)
class State:
    """What a file is; a log beside it belongs to it, but an empty one says nothing."""

    content: str
    modified: int
    log: str


def state_of(file: Path) -> State:
    log = log_of(file)
    return State(_hash(file.read_bytes()), file.stat().st_mtime_ns, _hash(log.read_bytes() if log.exists() else b""))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


Damage = Callable[[Path], None]
"""Damages a sound file, or puts something else in its place."""


def _cut_to(size: Callable[[int], int]) -> Damage:
    return lambda file: _write(file, file.read_bytes()[: size(file.stat().st_size)])


def _with(content: Callable[[bytes], bytes]) -> Damage:
    return lambda file: _write(file, content(file.read_bytes()))


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def _replaced(content: bytes, begin: int, new: bytes) -> bytes:
    return content[:begin] + new + content[begin + len(new) :]


def _rubbish_in_page(page: int) -> Damage:
    begin = page * PAGE + (_HEADER if page == 0 else 0)
    return _with(lambda content: _replaced(content, begin, b"\xaa" * ((page + 1) * PAGE - begin)))


def _other_program(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def _other_program_with_a_log(file: Path) -> None:
    file.unlink()
    _killed_after(file, "CREATE TABLE theirs (x)")


def _empty_beside_its_log(file: Path) -> None:
    _killed_after(file, "UPDATE clock SET ahead = ahead + 1")
    _write(file, b"")


def _killed_after(file: Path, sql: str) -> None:
    """Leave file and log as a program does that is killed: who closes a file merges its log."""
    with TemporaryDirectory() as folder:
        elsewhere = Path(folder) / file.name
        if file.exists():
            shutil.copy(file, elsewhere)
        with closing(sqlite3.connect(elsewhere, isolation_level=None)) as connection:
            connection.executescript(f"PRAGMA journal_mode = WAL; {sql}")
            shutil.copy(elsewhere, file)
            shutil.copy(log_of(elsewhere), log_of(file))


KINDS: Final[dict[str, Damage]] = {
    "a text": _with(lambda _: b"somebody's notes\n" * 400),
    "a short text": _with(lambda _: b"notes"),
    "zeros": _with(lambda content: bytes(len(content))),
    "a header and no more": _cut_to(lambda _: _HEADER),
    "cut by a byte": _cut_to(lambda size: size - 1),
    "cut by a page": _cut_to(lambda size: size - PAGE),
    "cut in the middle": _cut_to(lambda size: size // 2),
    "empty, its log is not": _empty_beside_its_log,
    "another program's": _other_program,
    "another program's, with a log": _other_program_with_a_log,
    "a later version's": _with(lambda content: _replaced(content, 60, (99).to_bytes(4, "big"))),
} | {f"rubbish in page {page}": _rubbish_in_page(page) for page in range(8)}


def flip(file: Path, random: Random, *, within: tuple[int, int] | None = None) -> str:
    """Change a byte or some in a row, in the header as often as anywhere else unless told where; say which."""
    content = file.read_bytes()
    begin = random.randrange(*(within or random.choice([(0, _HEADER), (_HEADER, len(content) - 16)])))
    old = content[begin : begin + random.choice([1, 1, 4, 16])]
    _write(file, _replaced(content, begin, bytes(byte ^ random.randrange(1, 256) for byte in old)))
    return f"{len(old)} bytes at {begin}"


def damage_in_use(file: Path, table: str) -> float:
    """Overwrite the first page of a table or index and have all who use the file read it anew; return when."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        [[page]] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            pass  # somebody reads: what is in the log would be read from there
        with file.open("r+b", buffering=0) as database:
            database.seek((page - 1) * PAGE)
            database.write(b"\xaa" * PAGE)
        connection.execute("UPDATE clock SET ahead = ahead + 1")
    return time.monotonic()
