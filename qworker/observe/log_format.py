"""Writes log records for people on a terminal, or as JSON: one line each."""

import json
import logging
import textwrap
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from qworker.lines.records import Line, extras_of, ids_last, pairs_of, tidied, tidied_fields, with_bound

_RESET, _BOLD, _DIM, _CYAN, _MAGENTA = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[35m"
_COLORS: Final = {"debug": "\x1b[32m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_WIDEST_LEVEL: Final = len("critical")


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = _fields_of(record)
        if (exception := _exception_of(self, record)) is not None:
            fields["exception"] = exception
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        fields |= {"event": _event_of(record), "level": record.levelname.lower(), "timestamp": when}
        return json.dumps(fields, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """Writes a record for people; a traceback stands below its line, indented."""

    def __init__(self, *, colors: bool) -> None:
        super().__init__()
        self._colors = colors

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and those of a traceback."""
        fields, level = _fields_of(record), record.levelname.lower()
        when = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")[11:23]
        logger = fields.pop("logger", None)
        parts = [
            self._colored(when, _DIM),
            f"[{self._colored(f'{level:<{_WIDEST_LEVEL + 1}}', _COLORS.get(level, _BOLD))}]",
            self._colored(f"{_event_of(record):<17}" if fields or logger else _event_of(record), _BOLD),
            *([f"[{self._colored(logger, _BOLD)}]"] if logger else []),
            *(f"{self._colored(key, _CYAN)}={self._colored(value, _MAGENTA)}" for key, value in pairs_of(fields)),
        ]
        below = self._below(record, fields)
        return " ".join(parts) + (f"\n{textwrap.indent(below, '    ')}" if below else "")

    def _below(self, record: logging.LogRecord, fields: dict[str, Any]) -> str:
        """Return what stands below the line: a traceback of an event of ours only at level debug."""
        exception = _exception_of(self, record)
        if exception is None and isinstance(record.msg, Line):
            exception = record.exc_text
        return "\n".join(filter(None, (fields.get("exception"), exception))).rstrip()

    def _colored(self, text: str, color: str) -> str:
        return f"{color}{text}{_RESET}" if self._colors else text


def _event_of(record: logging.LogRecord) -> str:
    if isinstance(record.msg, Line):
        return record.msg.event
    try:
        return tidied(record.getMessage())
    except Exception:  # noqa: BLE001 — its arguments don't fit its text
        return tidied(f"{record.msg} (its arguments don't fit)")


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a line says beside the event; what was bound to the context is said of a library's lines too."""
    extras, bound = extras_of(record), tidied_fields(structlog.contextvars.get_contextvars())
    if isinstance(record.msg, Line):
        return with_bound({**record.msg.fields, **extras}, bound)
    return ids_last(with_bound({**extras, "logger": tidied(record.name)}, bound))


def _exception_of(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """Return what is known of an exception, and of the stack if that was asked for."""
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return tidied("\n".join(parts), several_lines=True) if parts else None
