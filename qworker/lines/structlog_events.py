"""Hands structlog's events on to ``logging``, as records that any formatter can show."""

import logging
import sys
import traceback
from types import FrameType
from typing import Any, Final, NoReturn, cast

import structlog
from structlog.contextvars import get_contextvars
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from qworker.lines.records import ids_last, with_bound, write

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "msg": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
_WRAPPER: Final = structlog.make_filtering_bound_logger(logging.NOTSET)
"""It drops nothing: the level is that of the logger in ``logging``, as it is at the moment."""


def configure_unless_configured() -> None:
    """Have structlog's loggers write to ``logging``, unless the program has configured structlog itself."""
    if not structlog.is_configured():
        structlog.configure(
            processors=_PROCESSORS,
            wrapper_class=_WRAPPER,
            logger_factory=_logger,
            cache_logger_on_first_use=True,
        )


def logger_for_handlers(task: str, /, **bound: Any) -> FilteringBoundLogger:
    """Return a logger with the task's name: as the program has configured structlog, else one that writes to `logging`.

    A program that has disabled all loggers there were, as dictConfig does unless it is told otherwise, didn't mean it.
    """
    if structlog.is_configured():
        return cast(FilteringBoundLogger, _configured(task).bind(**bound))
    logger = logging.getLogger(task)
    logger.disabled = False
    wrapped = structlog.wrap_logger(logger, processors=_PROCESSORS, wrapper_class=_WRAPPER)
    return cast(FilteringBoundLogger, wrapped.bind(**bound))


def _configured(name: str) -> Any:
    try:
        return structlog.get_logger(name).bind()
    except TypeError:  # its factory takes no name
        return structlog.get_logger()


def _logger(*name: str) -> logging.Logger:
    logger = logging.getLogger(name[0] if name else _caller().f_globals.get("__name__", "?"))
    logger.disabled = False
    return logger


def _drop_below_level(logger: Any, method: str, event: EventDict) -> EventDict:
    if not logger.isEnabledFor(_LEVELS.get(method, logging.INFO)):
        raise structlog.DropEvent
    return event


def _write(logger: Any, method: str, event: EventDict) -> NoReturn:
    """Write the record, of which nothing is left to do for structlog."""
    caller = _caller()
    error = _error_of(event.pop("exc_info", None))
    stack = "".join(traceback.format_stack(caller)).rstrip() if event.pop("stack_info", None) else None
    name, fields = event.pop("event", ""), ids_last(with_bound(event, get_contextvars()))
    level = _LEVELS.get(method, logging.INFO)
    write(logger, level, name, fields, code=caller.f_code, line_number=caller.f_lineno, error=error, stack=stack)
    raise structlog.DropEvent


def _caller() -> FrameType:
    """Return the frame of the line that logs."""
    frame = sys._getframe(1)  # noqa: SLF001 — as `logging` and structlog do
    while frame.f_back is not None and _is_between(str(frame.f_globals.get("__name__", ""))):
        frame = frame.f_back
    return frame


def _is_between(module: str) -> bool:
    return module == __name__ or module.startswith("structlog.")


def _error_of(given: Any) -> Any:
    """Return what a caller gave as exc_info, as ``sys.exc_info()`` has it; None if it is no exception."""
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    error = given if isinstance(given, tuple) else sys.exc_info() if given else None
    return error if error and error[0] is not None else None


_PROCESSORS: Final[list[Processor]] = [_drop_below_level, _write]
