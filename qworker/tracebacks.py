"""Where a handler's exception came from, as text; of many that come from the same place, most are cheap."""

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
    """Return the line that raised it, as file:line in function; nothing if it was never raised."""
    frames = _handlers_own(error.__traceback__)
    if frames is None:
        return ""
    while frames.tb_next is not None:
        frames = frames.tb_next
    code = frames.tb_frame.f_code
    return f"{_name_of(code.co_filename)}:{frames.tb_lineno} in {code.co_name}"


@lru_cache
def _name_of(file: str) -> str:
    return PurePath(file).name


def _handlers_own(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the engine's frames, which stand before the handler's; what the engine itself raises has no others."""
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("qworker.engine."):
        frames = frames.tb_next
    return frames


def _has_more_to_show(error: BaseException) -> bool:
    hidden = error.__context__ is None or error.__suppress_context__
    return error.__cause__ is not None or not hidden or isinstance(error, BaseExceptionGroup)


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
    while frames is not None:
        yield frames.tb_frame.f_code, frames.tb_lasti
        frames = frames.tb_next
