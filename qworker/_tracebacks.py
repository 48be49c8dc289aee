"""Where a handler's exception came from, as text; of many that come from the same place, most are cheap."""

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePath
from types import CodeType, TracebackType
from typing import Final

_KEPT: Final = 256
"""Stacks of which the text is kept: to make it costs as much as all else that a failed job does."""
_DEEP: Final = 100
"""Frames of a stack that is still kept."""
_OURS: Final = __name__.partition(".")[0]
_LIBRARIES: Final = tuple(
    os.path.join(folder, "")  # noqa: PTH118 — texts are compared
    for folder in {*map(sysconfig.get_path, ("stdlib", "platstdlib")), os.path.dirname(__file__)}  # noqa: PTH120
)
"""Folders of Python's own modules, and of ours, which need not be installed."""
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_stacks: Final[dict[tuple[tuple[CodeType, int], ...], str]] = {}


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback without the engine's frames, as Python would print it."""
    frames = _handlers_own(error.__traceback__)
    try:
        if frames is None or _has_more_to_show(error):
            return "".join(traceback.format_exception(type(error), error, frames))
        return "".join(
            ["Traceback (most recent call last):\n", _stack(frames), *traceback.format_exception_only(error)]
        )
    except Exception:  # noqa: BLE001 — an exception may hold what Python itself can't format
        return "".join(traceback.format_tb(frames))


def place_of(error: BaseException) -> str:
    """Return the line that raised it, as file:line in function; nothing if it was never raised.

    It is the innermost of the program's own lines: where the program called the library that raised it. Where no line
    is outside of libraries, the program is installed as one, and the innermost of the handler's package is meant.
    """
    found = list(_walk_frames(_handlers_own(error.__traceback__)))
    if not found:
        return ""
    first = _package_of(found[0])
    own = [each for each in found if not _is_library(each.tb_frame.f_code.co_filename)]
    place = (own or [each for each in found if first and _package_of(each) == first] or found)[-1]
    code = place.tb_frame.f_code
    return f"{_name_of(code.co_filename)}:{place.tb_lineno} in {code.co_name}"


@lru_cache
def _name_of(file: str) -> str:
    return PurePath(file).name


@lru_cache(1_024)
def _is_library(file: str) -> bool:
    """Say whether a file is of the standard library, of an installed package, or ours."""
    return file.startswith(("<frozen ", *_LIBRARIES)) or not _INSTALLED.isdisjoint(PurePath(file).parts)


def _package_of(frame: TracebackType) -> str:
    """Return the topmost package of a frame's module; nothing for Python's own and ours, which no handler is in."""
    name = str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    return "" if name in sys.stdlib_module_names or name == _OURS else name


def _handlers_own(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the engine's frames, which stand before the handler's; what the engine itself raises has no others."""
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("qworker.engine."):
        frames = frames.tb_next
    return frames


def _has_more_to_show(error: BaseException) -> bool:
    hidden = error.__context__ is None or error.__suppress_context__
    return error.__cause__ is not None or not hidden or isinstance(error, BaseExceptionGroup)


def _walk_frames(frames: TracebackType | None) -> Iterator[TracebackType]:
    while frames is not None:
        yield frames
        frames = frames.tb_next


def _stack(frames: TracebackType) -> str:
    key = tuple(_walk(frames))
    if (known := _stacks.get(key)) is not None:
        return known
    text = "".join(traceback.format_tb(frames))
    if len(_stacks) >= _KEPT:
        _stacks.clear()
    if len(key) <= _DEEP:
        _stacks[key] = text
    return text


def _walk(frames: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    return ((each.tb_frame.f_code, each.tb_lasti) for each in _walk_frames(frames))
