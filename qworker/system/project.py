"""Finds the project that a directory belongs to, and the file that a relative name means."""

import os
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qworker.errors import ConfigurationError
from qworker.system.platform import IS_WINDOWS
from qworker.system.windows_paths import mistake_in

SETTINGS_FILE: Final = "pyproject.toml"
_MARKS: Final = (SETTINGS_FILE, ".git")
"""A directory that holds one of these is a project's."""
_SQLITE: Final = "sqlite:///"
_NOT_PATHS: Final = ("", ":memory:", "file:", "~")
"""Beginnings of what stands for no file; to refuse them is the broker's business."""


@dataclass(frozen=True, slots=True)
class Table:
    """The settings of a project, as its pyproject.toml has them."""

    file: Path
    values: dict[str, Any] = field(repr=False)


def here() -> Path | None:
    """Return the current directory; None if it was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return None


def settings_of(start: Path | None) -> Table | None:
    """Return [tool.qworker] of the nearest pyproject.toml that has it, in *start* or above.

    Raises ConfigurationError for a file that can't be understood.
    """
    for folder in _own_folders(start):
        file = folder / SETTINGS_FILE
        if (content := _content_of(file, required=folder == start)) is not None:
            tools = _table(content, "tool", file)
            if "qworker" in tools:
                return Table(file, _table(tools, "qworker", file, parent="tool."))
    return None


def root_of(start: Path) -> Path:
    """Return the directory of the project that *start* belongs to, or *start* itself if it belongs to none.

    That is where the settings are; else the nearest directory with a pyproject.toml or a .git.
    """
    if (table := settings_of(start)) is not None:
        return table.file.parent
    return next((folder for folder in _own_folders(start) if _marks_in(folder)), start)


def anchored(url: str, folder: Path | None) -> str:
    """Return a broker's URL with the whole path of its SQLite file, links and all; *folder* is where it was named.

    Any other URL is returned as it is.
    """
    name = url.strip().removeprefix(_SQLITE)
    if folder is None or name == url.strip() or name in _NOT_PATHS or name.startswith(_NOT_PATHS[1:]):
        return url
    if "\0" in name or "?" in name or name.endswith(("/", os.sep)):
        return url
    if IS_WINDOWS and mistake_in(name):  # as above
        return url
    return f"{_SQLITE}{os.path.realpath(folder / name)}"


def _own_folders(start: Path | None) -> Iterator[Path]:
    """Go upwards, leaving out what somebody else owns: in /tmp, say, anybody may leave a pyproject.toml."""
    if start is None:
        return
    yield start
    with suppress(OSError):
        owners = {start.stat().st_uid, *_own_ids()}
        for folder in start.parents:
            if all(mark.lstat().st_uid in owners for mark in _marks_in(folder)):
                yield folder


def _marks_in(folder: Path) -> list[Path]:
    return [mark for name in _MARKS if os.path.lexists(mark := folder / name)]


def _own_ids() -> set[int]:
    return {0, os.geteuid()} if hasattr(os, "geteuid") else {0}


def _content_of(file: Path, *, required: bool) -> dict[str, Any] | None:
    """Return what a TOML file says; None if it is not there, or further up and closed to us."""
    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except FileNotFoundError:
        return None
    except OSError as error:
        if not required:
            return None
        raise ConfigurationError(f"{file}: can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or a thousand brackets
        raise ConfigurationError(f"{file}: is not sound TOML: {_text(error)}") from None


def _table(content: dict[str, Any], name: str, file: Path, *, parent: str = "") -> dict[str, Any]:
    found = content.get(name, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file}: {parent}{name} must be a table, [{parent}{name}], not a {_kind(found)}")
    return found


def _kind(value: object) -> str:
    return {"str": "text", "int": "number", "float": "number", "list": "list", "bool": "boolean"}.get(
        type(value).__name__, type(value).__name__
    )


def _text(error: Exception) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error) or type(error).__name__
