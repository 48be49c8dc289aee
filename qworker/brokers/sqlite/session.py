"""What the SQLite broker does to its tables, one statement or two for each operation of the contract."""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from qworker.brokers.base import Message, PeekedMessage
from qworker.clock import Clock
from qworker.errors import LeaseLost, QueueNotFound

_PURGED_AT_ONCE: Final = 1000
_SEQ_DIGITS: Final = 18
"""Numbers of more digits may not fit into SQLite's integers, and no file holds as many messages."""

_DUE: Final = "queue = :queue AND visible_at <= :now AND (expires_at IS NULL OR expires_at > :now)"
_HELD: Final = "seq = :seq AND queue = :queue AND receipt = :receipt AND (expires_at IS NULL OR expires_at > :now)"
# A receipt begins with the moment the message became visible: RETURNING has no order, and no old values.
_FRESH: Final = "visible_at || '.' || lower(hex(randomblob(8)))"

PUT: Final = "INSERT INTO messages (queue, visible_at, expires_at, inserted_at, body) VALUES (?, ?, ?, ?, ?)"
PUT_BY_NAME: Final = """
    INSERT INTO messages (queue, visible_at, expires_at, inserted_at, body)
    SELECT id, ?, ?, ?, ? FROM queues WHERE name = ?"""
ANY_DUE: Final = f"SELECT 1 FROM messages WHERE {_DUE} LIMIT 1"  # noqa: S608 - constants, as in all of these
PEEK: Final = f"""
    SELECT seq, dequeue_count, body, inserted_at, expires_at FROM messages WHERE {_DUE}
    ORDER BY visible_at, seq LIMIT :limit"""  # noqa: S608
CLAIM: Final = f"""
    UPDATE messages SET visible_at = :until, dequeue_count = dequeue_count + 1, receipt = {_FRESH}
    WHERE seq IN (SELECT seq FROM messages WHERE {_DUE} ORDER BY visible_at, seq LIMIT :limit)
    RETURNING seq, receipt, dequeue_count, body, inserted_at, expires_at"""  # noqa: S608
UPDATE: Final = f"""
    UPDATE messages SET visible_at = :until, receipt = {_FRESH}, body = coalesce(:body, body) WHERE {_HELD}
    RETURNING receipt"""  # noqa: S608
DELETE: Final = """
    DELETE FROM messages WHERE seq = ? AND queue = ? AND receipt = ? AND (expires_at IS NULL OR expires_at > ?)"""
SHIFT: Final = """
    UPDATE messages
    SET visible_at = visible_at + :by, expires_at = expires_at + :by, inserted_at = inserted_at + :by"""
PURGE: Final = "DELETE FROM messages WHERE seq IN (SELECT seq FROM messages WHERE expires_at <= ? LIMIT ?)"
# The plus keeps the planner on the index of what expires: few have, and all messages are in the other one.
COUNT: Final = """
    SELECT (SELECT count(*) FROM messages WHERE queue = :queue)
         - (SELECT count(*) FROM messages WHERE expires_at <= :now AND +queue = :queue)"""


Held = tuple[str, str]
"""A leased message: its id, and the receipt."""
_ODD: Final = (ValueError, OverflowError)
"""What a text that is no receipt can raise, before SQLite has begun."""
_STEP: Final = 500
"""Milliseconds by which the wall clock may be off the monotonic one without having been set."""
_BEHIND: Final = 600_000
"""Milliseconds by which no two machines that share a file would differ: a wall clock so far behind is not set yet."""
_STEADY: Final = 0.05
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MOMENT: Final = 253_402_300_799_000
"""The end of the year 9999, in milliseconds."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/time")


class Moment(NamedTuple):
    """A moment, in milliseconds."""

    now: int
    ahead: int
    """By how much the wall clock is ahead of the monotonic one: it changes only when the clock is set."""


def read_clock(clock: Clock) -> Moment:
    """Read both clocks at one moment, as far as the machine lets us."""
    while True:
        before, now, after = clock.monotonic(), clock.time(), clock.monotonic()
        if after - before < _STEADY:
            return Moment(round(now * 1000), round((now - after) * 1000))


def machine() -> str:
    """Return what processes have in common whose monotonic clocks agree; nothing where no boot has a name."""
    parts = []
    try:
        parts.append(_BOOT.read_text(encoding="ascii").strip())
    except OSError:  # the next start's clock would be taken for this one's, set by days
        return ""
    with suppress(OSError):
        parts.append(str(_NAMESPACE.readlink()))
    return " ".join(parts)


_MACHINE: Final = machine()


class Session:
    """One connection at one moment: the operations of a group run on the same one."""

    def __init__(self, connection: sqlite3.Connection, moment: Moment) -> None:
        self.connection = connection
        self.now, self._ahead = moment
        self._ids: dict[str, int] = {}

    def journal_mode(self) -> str:
        """Return how transactions are kept: "wal", unless the file is in memory or SQLite could not have it so."""
        (mode,) = self.connection.execute("PRAGMA journal_mode").fetchone()
        return str(mode)

    def rewrite_version(self) -> None:
        """Write the first page as it is."""
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        self.connection.execute(f"PRAGMA user_version = {version}")

    def create_queue(self, name: str) -> bool:
        """Create a queue; return False if it was there already."""
        query = "INSERT INTO queues (name) VALUES (?) ON CONFLICT DO NOTHING"
        return self.connection.execute(query, (name,)).rowcount == 1

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all its messages."""
        queue = self._queue(name)
        del self._ids[name]
        self.connection.execute("DELETE FROM messages WHERE queue = ?", (queue,))
        self.connection.execute("DELETE FROM queues WHERE id = ?", (queue,))

    def list_queues(self, prefix: str) -> list[str]:
        """Return the names that begin with *prefix*, sorted."""
        query = "SELECT name FROM queues WHERE substr(name, 1, length(:prefix)) = :prefix ORDER BY name"
        return [name for (name,) in self.connection.execute(query, {"prefix": prefix})]

    def put(self, name: str, body: str, delay: int, ttl: int | None) -> str:
        """Add a message and return its id."""
        now = self.now
        expires_at = None if ttl is None else now + ttl * 1000
        inserted = self.connection.execute(PUT_BY_NAME, (now + delay * 1000, expires_at, now, body, name))
        if not inserted.rowcount:
            raise QueueNotFound(name)
        return str(inserted.lastrowid)

    def put_many(self, name: str, bodies: Sequence[str], delay: int, ttl: int | None) -> None:
        """Add messages."""
        queue, now = self._queue(name), self.now
        visible_at, expires_at = now + delay * 1000, None if ttl is None else now + ttl * 1000
        self.connection.executemany(PUT, ((queue, visible_at, expires_at, now, body) for body in bodies))

    def any_due(self, name: str) -> bool:
        """Return whether a get would find anything."""
        due = {"queue": self._queue(name), "now": self.now}
        return self.connection.execute(ANY_DUE, due).fetchone() is not None

    def get(self, name: str, limit: int, visibility: int) -> list[Message]:
        """Lease up to *limit* visible messages, those first that have been visible longest."""
        now = self.now
        claim = {"queue": self._queue(name), "now": now, "until": now + visibility * 1000, "limit": limit}
        rows = self.connection.execute(CLAIM, claim).fetchall()
        rows.sort(key=_visible_since)
        received_at = _moment(now)
        return [
            Message(str(seq), receipt, dequeue_count, body, _moment(inserted_at), _end(expires_at), received_at)
            for seq, receipt, dequeue_count, body, inserted_at, expires_at in rows
        ]

    def peek(self, name: str, limit: int) -> list[PeekedMessage]:
        """Return up to *limit* visible messages, in the order of a get."""
        due = {"queue": self._queue(name), "now": self.now, "limit": limit}
        seen_at = _moment(self.now)
        return [
            PeekedMessage(str(seq), dequeue_count, body, _moment(inserted_at), _end(expires_at), seen_at)
            for seq, dequeue_count, body, inserted_at, expires_at in self.connection.execute(PEEK, due)
        ]

    def update(self, name: str, message_id: str, receipt: str, visibility: int, body: str | None) -> str:
        """Let a leased message reappear; return its new receipt."""
        change = self._held(name, message_id, receipt) | {"until": self.now + visibility * 1000, "body": body}
        rows = self.connection.execute(UPDATE, change).fetchall()
        if not rows:
            raise LeaseLost(message_id)
        return str(rows[0][0])

    def delete(self, name: str, message_id: str, receipt: str) -> None:
        """Delete a leased message."""
        held = _seq(message_id), self._queue(name), receipt, self.now
        if not self.connection.execute(DELETE, held).rowcount:
            raise LeaseLost(message_id)

    def delete_many(self, name: str, messages: Sequence[Held | None]) -> list[Exception | None]:
        """Delete leased messages, except for None; return for each why it could not be, or None."""
        queue, now = self._queue(name), self.now
        wanted = [(_seq(message_id), queue, receipt, now) for message_id, receipt in filter(None, messages)]
        self.connection.execute("SAVEPOINT deletes")
        try:
            all_held = self.connection.executemany(DELETE, wanted).rowcount == len(wanted)
        except _ODD:
            all_held = False
        if not all_held:
            self.connection.execute("ROLLBACK TO deletes")
        self.connection.execute("RELEASE deletes")
        return [None] * len(messages) if all_held else [self._delete(name, message) for message in messages]

    def _delete(self, name: str, message: Held | None) -> Exception | None:
        try:
            if message is not None:
                self.delete(name, *message)
        except (LeaseLost, *_ODD) as error:
            return error
        return None

    def clear(self, name: str) -> None:
        """Delete all messages of a queue."""
        self.connection.execute("DELETE FROM messages WHERE queue = ?", (self._queue(name),))

    def count(self, name: str) -> int:
        """Return how many messages a queue has, the invisible ones too."""
        (count,) = self.connection.execute(COUNT, {"queue": self._queue(name), "now": self.now}).fetchone()
        return int(count)

    def is_clock_set(self) -> bool:
        """Return whether the wall clock was set since it was last followed: leases would seem shorter, or longer."""
        set_forward_by = self._set_forward_by()
        return set_forward_by is not None and abs(set_forward_by) > _STEP

    def follow_clock(self) -> None:
        """Move all moments along with a wall clock that was set, once for all processes."""
        set_forward_by = self._set_forward_by()
        if set_forward_by is None:
            self.connection.execute("DELETE FROM clock")
            self.connection.execute("INSERT INTO clock (machine, ahead) VALUES (?, ?)", (_MACHINE, self._ahead))
            self._meet_clock()
        elif abs(set_forward_by) > _STEP:
            self.connection.execute("UPDATE clock SET ahead = ? WHERE machine = ?", (self._ahead, _MACHINE))
            self.connection.execute(SHIFT, {"by": set_forward_by})

    def _meet_clock(self) -> None:
        """Move all moments to a wall clock that is behind them after a start of the machine, which will set it later.

        Else that would move them by years into the future, where they were right before.
        """
        newest = self.connection.execute("SELECT inserted_at FROM messages ORDER BY seq DESC LIMIT 1").fetchone()
        if newest is not None and self.now + _BEHIND < newest[0] <= _LAST_MOMENT:
            self.connection.execute(SHIFT, {"by": self.now - newest[0]})

    def _set_forward_by(self) -> int | None:
        if not _MACHINE:
            return 0
        row = self.connection.execute("SELECT ahead FROM clock WHERE machine = ?", (_MACHINE,)).fetchone()
        return None if row is None else self._ahead - int(row[0])

    def purge(self) -> bool:
        """Delete what has expired, in any queue; return whether that was all: a long backlog takes several turns."""
        return self.connection.execute(PURGE, (self.now, _PURGED_AT_ONCE)).rowcount < _PURGED_AT_ONCE

    def _queue(self, name: str) -> int:
        if (known := self._ids.get(name)) is not None:
            return known
        row = self.connection.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise QueueNotFound(name)
        found = self._ids[name] = int(row[0])
        return found

    def _held(self, name: str, message_id: str, receipt: str) -> dict[str, str | int | None]:
        return {"seq": _seq(message_id), "queue": self._queue(name), "receipt": receipt, "now": self.now}


def _seq(message_id: str) -> int:
    if len(message_id) <= _SEQ_DIGITS and message_id.isascii() and message_id.isdigit():
        return int(message_id)
    return 0


def _visible_since(row: tuple[int, str, int, str, int, int | None]) -> tuple[int, int]:
    seq, receipt, *_ = row
    return int(receipt.partition(".")[0]), seq


def _moment(milliseconds: int) -> datetime:
    # Whatever is in the file; and Windows' own calendar ends with the year 3000.
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), _LAST_MOMENT))


def _end(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _moment(milliseconds)
