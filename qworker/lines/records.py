"""Makes log records that any formatter can show: a readable line of text, with its fields as attributes.

Whoever wrote the texts in them, a record is one line of bounded length, free of what a terminal would obey.
"""

import bisect
import json
import logging
import math
import re
from collections.abc import Mapping
from types import CodeType
from typing import Any, Final

from qworker.lines.escaping import HIDDEN, printable

_MAX_FIELD: Final = 2_048
"""Bytes of a field as it is written; its middle gives way."""
_GAP: Final = " … "
_LONGEST_ESCAPE: Final = 7
"""Bytes that one character may become: U+2028 is written as \\\\u2028."""
_SURELY_FITS: Final = _MAX_FIELD // _LONGEST_ESCAPE
OF_SEVERAL_LINES: Final = frozenset({"exception", "traceback"})
"""Fields that keep their line ends, and are no part of a line's text."""
_OF_RECORDS: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""Attributes that a record has of itself."""
_OF_LINES: Final = frozenset({"event", "level", "logger", "timestamp"})
"""Fields that a formatter of ours adds."""
_IDS: Final = ("task", "attempt", "queue", "job")
_BARE: Final = re.compile(r"[^\s=\"']+")
"""A text that stands in a line as it is; any other is quoted."""


class Line(str):  # noqa: SLOT000 — no str can have them
    """The text of a record, as any formatter shows it; a formatter of ours looks at event and fields instead."""

    event: str
    fields: Mapping[str, Any]
    attributes: Mapping[str, Any]
    """The same for a record, where some names are taken."""

    @classmethod
    def of(cls, event: object, fields: Mapping[Any, object]) -> "Line":
        """Return the line of an event and its fields, tidied."""
        name, tidy = tidied(event), tidied_fields(fields)
        line = cls(name + "".join(f" {key}={value}" for key, value in pairs_of(tidy)))
        line.event, line.fields, line.attributes = name, tidy, _attributes_of(name, tidy)
        return line


def write(  # noqa: PLR0913 — what a record holds
    logger: logging.Logger,
    level: int,
    event: object,
    fields: Mapping[Any, object],
    *,
    code: CodeType,
    line_number: int = 0,
    error: Any = None,
    stack: str | None = None,
) -> None:
    """Give a logger a record, whose call stands in *code*; *error* is an exception as ``sys.exc_info()`` has it.

    Unlike ``extra`` of ``logging``, a field may have any name.
    """
    line = Line.of(event, fields)
    record = logger.makeRecord(
        logger.name, level, code.co_filename, line_number, line, (), error, code.co_name, None, stack
    )
    vars(record).update(line.attributes)
    if (traceback := line.fields.get("traceback")) and logger.isEnabledFor(logging.DEBUG):
        record.exc_text = traceback.rstrip()  # what formatters of logging write below the line
    logger.handle(record)


def extras_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was added to a record beside its line, tidied: by ``extra``, a filter, or a factory of records."""
    added = vars(record).keys() - _OF_RECORDS
    if isinstance(record.msg, Line):
        added -= record.msg.attributes.keys()
    return tidied_fields({key: value for key, value in vars(record).items() if key in added}) if added else {}


def with_bound(fields: Mapping[str, Any], bound: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with those that are bound to the context and not among them: a context has them in no order."""
    return {**fields, **{key: bound[key] for key in sorted(bound) if key not in fields}}


def ids_last(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with those at the end that say whose they are: what happened is read first."""
    ids = {key: fields[key] for key in _IDS if key in fields}
    return {key: value for key, value in fields.items() if key not in ids} | ids


def pairs_of(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return tidied fields as texts for one line, quoted where a value or a name might be taken for more than one."""
    return [(_shown(key), _shown(value)) for key, value in fields.items() if key not in OF_SEVERAL_LINES]


def tidied_fields(fields: Mapping[Any, object]) -> dict[str, Any]:
    """Return fields that logs can bear; a name that a formatter of ours uses itself gets an underscore."""
    tidy: dict[str, Any] = {}
    for key, value in fields.items():
        tidy[_free(tidied(key), _OF_LINES, tidy)] = _bearable(value, several_lines=key in OF_SEVERAL_LINES)
    return tidy


def tidied(text: object, *, several_lines: bool = False) -> str:
    """Return a text of bounded length, with hidden characters as escapes; what is no text becomes one."""
    whole = str.__str__(text) if isinstance(text, str) else _text_of(text)
    if len(whole) <= _SURELY_FITS and whole.isprintable():
        return whole
    if len(whole) <= _MAX_FIELD:
        escaped = _escaped(whole, several_lines=several_lines)
        if len(whole) <= _SURELY_FITS or _written(escaped) <= _MAX_FIELD:
            return escaped
    half = (_MAX_FIELD - _written(_GAP)) // 2
    first = _escaped(whole[:half], several_lines=several_lines)
    last = _escaped(whole[-half:], several_lines=several_lines)
    return first[: _fitting(first, half)] + _GAP + last[len(last) - _fitting(last[::-1], half) :]


def _attributes_of(event: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {"event": event}
    for key, value in fields.items():
        attributes[_free(key, _OF_RECORDS, attributes)] = value
    return attributes


def _free(name: str, taken: frozenset[str], others: Mapping[str, object]) -> str:
    while name in taken or name in others:
        name += "_"
    return name


def _bearable(value: object, *, several_lines: bool) -> object:
    """Return a value that JSON has, as it is, or as a text if it is too large for a line; anything else as a text."""
    if isinstance(value, str):
        return tidied(value, several_lines=several_lines)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if not isinstance(value, list | tuple | dict):
        return tidied(value)
    try:
        text = json.dumps(value, default=_text_of, ensure_ascii=False)
    except Exception:  # noqa: BLE001 — keys that are no texts, a circle
        return tidied(value)
    fits = len(text) <= _MAX_FIELD and _written(text) <= _MAX_FIELD and not HIDDEN.search(text)
    return json.loads(text, parse_constant=str) if fits else tidied(text)


def _number(value: float) -> object:
    """Return a number that JSON has, or a text."""
    try:
        plain = int(value) if isinstance(value, int) else float(value)
        text = str(plain)
    except Exception:  # noqa: BLE001 — more digits than Python writes, or a class of somebody's own
        return f"<{type(value).__name__}>"
    return plain if len(text) <= _SURELY_FITS and math.isfinite(plain) else tidied(text)


def _text_of(value: object) -> str:
    try:
        return str.__str__(repr(value))
    except Exception:  # noqa: BLE001 — its class is somebody's own
        return f"<{type(value).__name__}>"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    if not isinstance(value, str) or _BARE.fullmatch(text):
        return text
    quote = '"' if "'" in text and '"' not in text else "'"
    return quote + text.replace(quote, "\\" + quote) + quote


def _escaped(text: str, *, several_lines: bool) -> str:
    return "\n".join(map(printable, text.split("\n"))) if several_lines else printable(text)


def _fitting(text: str, size: int) -> int:
    """Return how many characters of the text's beginning fit into *size* bytes."""
    return bisect.bisect_right(range(len(text)), size, key=lambda count: _written(text[:count])) - 1


def _written(text: str) -> int:
    """Return the bytes that a text takes in a line, where some characters have to be escaped."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace"))
