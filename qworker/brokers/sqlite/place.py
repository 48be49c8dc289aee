"""Finds the one file that a name means to the SQLite broker, and refuses what can't name one."""

import os
from pathlib import Path
from typing import Final

from qworker.errors import InvalidBrokerURL
from qworker.system.platform import IS_WINDOWS
from qworker.system.windows_paths import mistake_in

_IN_MEMORY: Final = "sqlite:// is a broker in memory"


def place_of_url(rest: str, base: Path | None = None) -> Path | None:
    """Return the file that sqlite://*rest* means, relative to *base*; None for memory. Raises InvalidBrokerURL."""
    if not rest:
        return None
    name = rest[1:]
    if ":memory:" in rest or name.startswith("file:"):
        raise InvalidBrokerURL(f"sqlite://{_shown(rest)}: takes a plain path, as in sqlite:///jobs.db; {_IN_MEMORY}")
    if not rest.startswith("/"):
        raise InvalidBrokerURL(f"sqlite://{_shown(rest)}: a file takes three slashes: sqlite:///{_shown(rest)}")
    if not name.strip():
        raise InvalidBrokerURL(f"sqlite:///: names no file: is a variable in it not set? {_IN_MEMORY}")
    if "?" in name:
        raise InvalidBrokerURL("sqlite:///FILE takes no options: leave out what begins with '?'")
    if name.startswith("~"):
        raise InvalidBrokerURL(f"sqlite:///{_shown(name)}: '~' means nothing here: write the whole path")
    return place_of(name if base is None else base / name, name)


def place_of(path: str | Path, name: str | None = None) -> Path:
    """Return where a file really is, whatever links lead to it. Raises InvalidBrokerURL.

    SQLite keeps its log beside the file itself. Two names of one file must not come to two logs.
    """
    text = os.fspath(path)
    shown = _shown(name or text)
    if "\0" in text:
        raise InvalidBrokerURL(f"sqlite:///{shown}: no path has a NUL in it")
    if (name or text).endswith(("/", os.sep)):
        raise InvalidBrokerURL(f"sqlite:///{shown}: names a directory, not a file")
    if IS_WINDOWS and (mistake := mistake_in(name or text)):
        raise InvalidBrokerURL(f"sqlite:///{shown}: {mistake}")
    try:
        return Path(os.path.realpath(text))
    except FileNotFoundError:
        raise InvalidBrokerURL(f"sqlite:///{shown}: is relative to a directory that was deleted") from None


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
