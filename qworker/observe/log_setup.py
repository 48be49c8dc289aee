"""Sets up logging for a worker's program, and leaves alone what the program's app has set up itself.

The app says so while it is imported, so that there are two steps: one before that, and one after it.
"""

import logging
import sys
from collections.abc import Collection
from typing import Any, Final

from qworker.lines.structlog_events import configure_unless_configured
from qworker.observe.log_format import ConsoleFormatter, JsonFormatter
from qworker.settings import LogConfig, LogFormat, LogLevel

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: LogLevel, log_format: LogFormat, log_config: LogConfig = "auto") -> None:
    """Send this process's logs, structlog's and those of ``logging``, to standard error: there is no app in it."""
    prepare(level, log_format, log_config)
    complete(level, log_format, log_config)


def prepare(level: LogLevel, log_format: LogFormat, log_config: LogConfig = "auto") -> None:
    """Set up what an app may change while it is imported; until it does, lines are written in our format.

    There is no handler that would keep ``basicConfig`` from adding one.
    """
    if log_config == "none":
        return
    logging.lastResort = _OwnHandler(log_format)
    logging.getLogger().setLevel(_OwnLevel(_LEVELS[level]))
    # The SDK logs each request, with headers and query, at INFO and DEBUG: too much, and too near the secrets. What its
    # core says of an answer that it can't read, our own errors say in one line.
    logging.getLogger("azure").setLevel(logging.WARNING)
    logging.getLogger("azure.core").setLevel(logging.CRITICAL + 1)
    logging.captureWarnings(True)


def complete(
    level: LogLevel, log_format: LogFormat, log_config: LogConfig = "auto", *, given: Collection[str] = ()
) -> list[str]:
    """Set up what the app has left open; return why settings that were *given* have no effect, a line each."""
    if log_config == "none":
        return [
            f"{name}: {value} has no effect, as log_config is none: the app alone sets up logging"
            for name, value in (("log_format", log_format), ("log_level", level))
            if name in given
        ]
    root = logging.getLogger()
    if _has_only_what_logging_adds(root):
        root.handlers.clear()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, _OwnHandler)]
    is_ours = not _handlers_of(root)
    if is_ours:
        root.addHandler(_OwnHandler(log_format))
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.WARNING)  # as ever, for loggers that were cut off from all handlers
    configure_unless_configured()
    why_not = {
        "log_format": None if is_ours else "the app has set up logging itself",
        "log_level": _set_level(_LEVELS[level], explicitly="log_level" in given),
    }
    values = {"log_format": log_format, "log_level": level}
    return [f"{name}: {values[name]} has no effect: {why}" for name, why in why_not.items() if why and name in given]


def _set_level(level: int, *, explicitly: bool) -> str | None:
    """Set the level of our own lines where only the root's was set by the app; return why it isn't as wanted."""
    root, own = logging.getLogger(), logging.getLogger("qworker")
    own.disabled = False  # dictConfig disables all loggers that are there, unless it is told otherwise
    if own.level == logging.NOTSET and explicitly and not isinstance(root.level, _OwnLevel):
        own.setLevel(level)
    return None if own.level in {logging.NOTSET, level} else "the app has set the level of logger 'qworker' itself"


class _OwnLevel(int):
    """The root's level as long as the app doesn't set another, or the same."""


class _OwnHandler(logging.StreamHandler[Any]):
    """Writes to standard error what no handler of the app's takes."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__(sys.stderr)
        pretty = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
        self.setFormatter(ConsoleFormatter(colors=sys.stderr.isatty()) if pretty else JsonFormatter())

    def filter(self, record: logging.LogRecord) -> Any:
        """Let pass what no handler of its logger, or of one above it, has taken already."""
        logger = logging.Logger.manager.loggerDict.get(record.name)
        while isinstance(logger, logging.Logger) and logger is not logging.root:
            if any(_takes(handler, record) for handler in _handlers_of(logger)):
                return False
            logger = logger.parent
        return super().filter(record)


def _takes(handler: logging.Handler, record: logging.LogRecord) -> bool:
    return record.levelno >= handler.level and bool(handler.filter(record))


def _handlers_of(logger: logging.Logger) -> list[logging.Handler]:
    """Return the handlers that write something."""
    return [handler for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]


def _has_only_what_logging_adds(root: logging.Logger) -> bool:
    """Say whether there is only what ``logging.warning()`` adds by itself, as a bare ``basicConfig()`` does."""
    if len(root.handlers) != 1 or not isinstance(root.level, _OwnLevel):
        return False
    [handler] = root.handlers
    formatter = handler.formatter
    plain = type(handler) is logging.StreamHandler and handler.stream is sys.stderr and handler.level == logging.NOTSET
    return plain and not handler.filters and getattr(formatter, "_fmt", None) == logging.BASIC_FORMAT
