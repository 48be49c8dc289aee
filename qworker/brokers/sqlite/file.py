"""The file of the SQLite broker: opened if it is ours and sound, refused untouched if not."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from qworker.errors import (
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerUnavailable,
    BrokerUnusable,
)
from qworker.system import descriptors
from qworker.system.platform import IS_WINDOWS
from qworker.system.windows_paths import share_of

APPLICATION_ID: Final = 0x716A6F62
"""Marks a file as ours in its header: the letters "qjob"."""
SCHEMA_VERSION: Final = 1
BUSY_SLICE: Final = 0.2
"""Seconds that one call waits for another process's lock."""

_FILES: Final = 4
"""Files that one connection has open at the most: the database, its log, the log's index, and their directory."""
_CHECKED_BYTES: Final = 8 * 1024 * 1024
"""Larger files are not read in full at each start."""
_SMALLEST_DATABASE: Final = 512
_WAL_BYTES: Final = 16 * 1024 * 1024
"""What the write-ahead log shrinks to once a long reader has let go of it."""
_MOUNTS = Path("/proc/self/mounts")
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "ocfs2", "smb3", "smbfs"}
    | {"fuse.blobfuse", "fuse.blobfuse2", "fuse.cephfs", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs"}
    | {"fuse.goofys", "fuse.juicefs", "fuse.mount-s3", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)

_SCHEMA: Final = (
    "CREATE TABLE queues (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE){strict}",
    # The body comes last: what changes at a renewal is then on the row's first page.
    """CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        queue INTEGER NOT NULL,
        visible_at INTEGER NOT NULL,
        expires_at INTEGER,
        inserted_at INTEGER NOT NULL,
        dequeue_count INTEGER NOT NULL DEFAULT 0,
        receipt TEXT NOT NULL DEFAULT '',
        body TEXT NOT NULL
    ){strict}""",
    "CREATE TABLE clock (machine TEXT PRIMARY KEY, ahead INTEGER NOT NULL){strict}",
    "CREATE INDEX messages_due ON messages (queue, visible_at, seq)",
    "CREATE INDEX messages_expiry ON messages (expires_at, queue) WHERE expires_at IS NOT NULL",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_OLDEST_SQLITE: Final = (3, 35, 0)
_STRICT_SQLITE: Final = (3, 37, 0)

_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
"""What SQLite says when a file can't grow; of the last two it doesn't know the reason."""
_MAY_PASS: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_ERRORS: Final[dict[int, type[BrokerError]]] = {
    sqlite3.SQLITE_BUSY: BrokerBusy,
    sqlite3.SQLITE_LOCKED: BrokerBusy,
    sqlite3.SQLITE_AUTH: BrokerUnusable,
    sqlite3.SQLITE_CANTOPEN: BrokerUnusable,
    sqlite3.SQLITE_CORRUPT: BrokerUnusable,
    sqlite3.SQLITE_NOTADB: BrokerUnusable,
    sqlite3.SQLITE_PERM: BrokerUnusable,
    sqlite3.SQLITE_READONLY: BrokerUnusable,
}


def translate(error: sqlite3.Error, label: str, *, committing: bool = False) -> BrokerError:
    """Return the BrokerError that says what *error* means for the caller; *label* names the file.

    An I/O error leaves it open whether anything was done only while *committing*, and not even then if it came before
    the last thing was written.
    """
    code = primary_code(error)
    if code == sqlite3.SQLITE_CANTOPEN and descriptors.are_out(_FILES):
        return BrokerUnavailable(f"{label}: can't be opened: too many open files")
    if is_full(error):
        hint = " (the disk may be full, or a quota used up)" if code == sqlite3.SQLITE_IOERR else ""
        return BrokerFull(f"{label}: {error}{hint}")
    if code == sqlite3.SQLITE_IOERR:
        text = f"{label}: {error} ({error.sqlite_errorname})"
        return AnswerLost(text) if committing else BrokerUnavailable(text)
    return _ERRORS.get(code, BrokerRefused)(f"{label}: {error}")


def is_full(error: sqlite3.Error) -> bool:
    """Return whether *error* says that there is no room on the disk; nothing was written then."""
    return _code(error) in _NO_ROOM


def is_corruption(error: sqlite3.Error) -> bool:
    """Return whether *error* says that the file itself is damaged, or no database any more."""
    return primary_code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_odd_text(error: sqlite3.Error) -> bool:
    """Return whether *error* says that a text is not UTF-8: Python's own, which has no code."""
    return isinstance(error, sqlite3.OperationalError) and not _code(error)


def escape_odd_texts(connection: sqlite3.Connection) -> None:
    r"""Have texts that are not UTF-8 read all the same, an odd byte as \xff: no JSON has that, and no Base64."""
    connection.text_factory = lambda text: text.decode("utf-8", "backslashreplace")


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, or 0 if the error didn't come from SQLite itself.

    The upper bits of a code only refine it: https://www.sqlite.org/rescode.html
    """
    return _code(error) & 0xFF


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0)


def open_memory() -> sqlite3.Connection:
    """Return a new database in memory."""
    connection = _connect(":memory:")
    _prepare(connection, "sqlite://")
    return connection


def open_file(path: Path) -> sqlite3.Connection:
    """Open *path*, creating it if it isn't there.

    Raises BrokerUnusable, with the file untouched, if it is corrupt, another program's, or where no database can be;
    sqlite3.Error for what may pass, such as a lock.
    """
    try:
        _check_place(path)
        logged = _size(_log_of(path))  # asked first: the log of a sound file is written after the file
        size = _size(path)
    except OSError as error:
        raise BrokerUnusable(f"{path}: {error.strerror}") from error
    if size == 0 and logged:  # SQLite would drop the log
        msg = f"{path}: is cut short: it is empty, and its log {path.name}-wal is not"
        raise BrokerUnusable(msg)
    if size:
        _check_content(path, size)
    connection = _connect(str(path))
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        connection.execute("PRAGMA fullfsync = ON")
        _prepare(connection, str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(database: str, *, uri: bool = False) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        msg = f"SQLite {sqlite3.sqlite_version} is too old: qworker needs {oldest} or newer"
        raise BrokerUnusable(msg)
    # Any thread may close it: the one that forks, and the one that exits.
    return sqlite3.connect(database, timeout=BUSY_SLICE, isolation_level=None, check_same_thread=False, uri=uri)


def _prepare(connection: sqlite3.Connection, label: str) -> None:
    if _owner(connection) == APPLICATION_ID:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been quicker.
        if _is_blank(connection, label):
            strict = " STRICT" if sqlite3.sqlite_version_info >= _STRICT_SQLITE else ""
            for statement in _SCHEMA:
                connection.execute(statement.format(strict=strict))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _check_place(path: Path) -> None:
    if path.is_symlink():  # it was resolved before: nothing but a circle is left
        msg = f"{path}: is a symbolic link that leads to no file"
        raise BrokerUnusable(msg)
    if path.is_dir():
        msg = f"{path}: is a directory, not a database file"
        raise BrokerUnusable(msg)
    if path.exists() and not path.is_file():
        msg = f"{path}: is a device, a pipe or a socket, not a database file"
        raise BrokerUnusable(msg)
    if not path.parent.is_dir():
        msg = f"{path}: the directory {path.parent} does not exist"
        raise BrokerUnusable(msg)
    if kind := network_file_system(path):
        msg = f"{path}: is on a network file system ({kind}), where SQLite's locks can't be trusted: use a local disk"
        raise BrokerUnusable(msg)
    if (names := _names_of(path)) > 1:  # https://www.sqlite.org/howtocorrupt.html, "multiple links to the same file"
        msg = f"{path}: has {names} names (hard links), each of which SQLite would give a log of its own: leave it one"
        raise BrokerUnusable(msg)


def _names_of(path: Path) -> int:
    return path.stat().st_nlink if path.exists() else 0


def network_file_system(path: Path) -> str | None:
    """Return the type of the network file system that holds *path*; None if it is local, or can't be told."""
    if IS_WINDOWS:
        return share_of(path)
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    home = path.resolve()
    kind, depth = "", -1
    for line in mounts.splitlines():
        _, where, what, *_ = line.split(" ")
        point = Path(_unescaped(where))
        # Of two mounts on one directory, the later hides the earlier.
        if home.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = what, len(point.parts)
    return kind if kind in _NETWORK_FILE_SYSTEMS else None


def _unescaped(field: str) -> str:
    """Undo the octal escapes of fstab(5)."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, character)
    return field


def _check_content(path: Path, size: int) -> None:
    if size < _SMALLEST_DATABASE:  # SQLite would take it for an empty one
        msg = f"{path}: is not a SQLite database"
        raise BrokerUnusable(msg)
    # Read-only: a recovery or a rollback that another program left to do is not ours to do. And through SQLite:
    # closing a file that was opened beside it would drop the locks of all of this process's connections to it.
    try:
        with closing(_connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")  # all is read at one moment: another process may be making the schema
            blank = _is_blank(connection, str(path))
            _check_size(connection, path)
            if not blank:
                _check_schema(connection, path)
            if size <= _CHECKED_BYTES:
                _check_pages(connection, path)
    except sqlite3.OperationalError as error:
        if primary_code(error) in _MAY_PASS or descriptors.are_out(_FILES):
            raise
        raise BrokerUnusable(f"{path}: can't be opened: {error}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter where SQLite quotes what it can't read
        raise BrokerUnusable(f"{path}: is not a sound SQLite database: {error}") from error


def _check_size(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that was cut short; SQLite itself notices only whole pages that are missing."""
    if _size(_log_of(path)):
        return
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    if (size := path.stat().st_size) < pages * page_size:
        msg = f"{path}: is cut short: {size} bytes of {pages * page_size}"
        raise BrokerUnusable(msg)


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file whose tables are not as they were made, which no check of SQLite's tells; there may be others."""
    found = {_plain(sql) for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")}
    if not any(_made(strict=strict) <= found for strict in (True, False)):
        msg = f"{path}: is corrupt: its tables are not as qworker made them"
        raise BrokerUnusable(msg)


def _made(*, strict: bool) -> set[str]:
    made = [statement.format(strict=" STRICT" if strict else "") for statement in _SCHEMA]
    return {_plain(sql) for sql in made if sql.startswith("CREATE")}


def _plain(sql: str) -> str:
    return " ".join(sql.split())


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        msg = f"{path}: is corrupt: {' '.join(verdict.split())}"
        raise BrokerUnusable(msg)


def _owner(connection: sqlite3.Connection) -> int:
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    return int(owner)


def _is_blank(connection: sqlite3.Connection, label: str) -> bool:
    """Return whether the schema has still to be made. Raises BrokerUnusable if the file is not ours to write to."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    owner = _owner(connection)
    if owner == APPLICATION_ID and version == SCHEMA_VERSION:
        return False
    if owner == APPLICATION_ID:
        msg = f"{label}: was written by another version of qworker (schema {version}, this one knows {SCHEMA_VERSION})"
        raise BrokerUnusable(msg)
    if owner or objects:
        msg = f"{label}: is the database of another program"
        raise BrokerUnusable(msg)
    return True
