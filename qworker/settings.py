"""Settings: command line, then ``QWORKER_*``, then ``[tool.qworker]`` in pyproject.toml, then these defaults."""

import difflib
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from qworker._queue_names import check_task_queue
from qworker.brokers.base import MAX_VISIBILITY
from qworker.errors import ConfigurationError, InvalidQueueName
from qworker.system.project import Table, anchored, here, root_of, settings_of
from qworker.wire.bodies import Encoding

DEFAULT_FILE: Final = "qworker.db"
"""The broker without any setting: a file in the project's directory."""
_PREFIX = "QWORKER_"
_LONGEST: Final = 100 * 365 * 86_400.0
"""Seconds that clocks, timers and dates of Python's all can count."""
_HEAVIEST: Final = 1_000_000
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]
LogConfig = Literal["auto", "none"]
Loop = Literal["auto", "asyncio", "uvloop"]
_NEAR: Final = 0.75
"""How much of two names has to be alike, of 1, for one to be the other misspelt."""
NOT_SETTINGS: Final = frozenset({"debug", "faultpoint", "report_fd", "supervised"})
"""Variables that qworker reads elsewhere."""


def parse_seconds(option: str, text: str | None) -> float | None:
    """Return what an option such as "90s" means in seconds. Raises ConfigurationError."""
    try:
        return None if text is None else _seconds(text)  # type: ignore[return-value] # a text gives a float
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None


def _seconds(value: object) -> object:
    """Take "90", "90s", "1.5m", "2h" as seconds."""
    if not isinstance(value, str):
        return value
    if not (found := _SPAN.fullmatch(value)):
        raise ValueError(f"{value!r} is not a time span such as 90, 90s, 5m or 1h")
    seconds = float(found[1]) * _UNITS[found[2] or "s"]
    return _countable(seconds)


def _countable(seconds: float) -> float:
    if seconds > _LONGEST:
        raise ValueError("a time span can be 100 years at most")
    return seconds


def _lower(value: object) -> object:
    """Take a word in capitals as what it is in small letters."""
    return value.strip().lower() if isinstance(value, str) else value


def _level(value: object) -> object:
    """Take what logging calls its levels: INFO, WARN."""
    word = _lower(value)
    return "warning" if word == "warn" else word


def _queues(value: object) -> object:
    """Take "mail:3,default" as a mapping of queues to weights."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return dict(_weighted(str(part)) for part in value)
    return value


def _weighted(part: str) -> tuple[str, int]:
    name, colon, weight = part.partition(":")
    if colon and not (weight.isdecimal() and len(weight) <= len(str(_HEAVIEST))):
        raise ValueError(f"{part!r} is not NAME or NAME:WEIGHT")
    return name.strip(), int(weight or 1)


def _checked_queues(queues: dict[str, int]) -> dict[str, int]:
    for name, weight in queues.items():
        try:
            check_task_queue(name)
        except InvalidQueueName as error:
            raise ValueError(str(error)) from None
        if not 1 <= weight <= _HEAVIEST:
            raise ValueError(f"the weight of queue {name!r} must be at least 1 and at most {_HEAVIEST:,}")
    return queues


Seconds = Annotated[float, BeforeValidator(_seconds), Field(allow_inf_nan=False)]
TimerSeconds = Annotated[Seconds, AfterValidator(_countable)]
WholeSeconds = Annotated[int, BeforeValidator(_seconds)]
Queues = Annotated[dict[str, int], NoDecode, BeforeValidator(_queues), AfterValidator(_checked_queues)]


_project: ContextVar[Table | None] = ContextVar("the project whose settings are being loaded", default=None)


class Settings(BaseSettings):
    """How qworker is to run here. Spans of time are seconds, or texts such as "90s", "5m", "1h"."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    app: str | None = None
    """What to run: a module with tasks, "tasks", or with the App in it, "pkg.mod:app"."""
    broker: str | None = Field(default=None, repr=False)
    """Where the queues are: sqlite:///FILE, azure://ACCOUNT, https://…, or a connection string."""
    encoding: Annotated[Encoding, BeforeValidator(_lower)] = "text"
    """How bodies are sent: "text", or "base64" as Azure Functions expects."""
    queues: Queues = {}
    """The queues to poll with their weights, "mail:3,default"; empty: those of the app's tasks."""
    concurrency: int = Field(default=16, ge=1, le=100_000)
    """Jobs that one process runs at once."""
    processes: int = Field(default=1, ge=1, le=1_000)
    """Worker processes."""
    tracing: bool = False
    """Make OpenTelemetry spans of enqueueing and running."""
    log_level: Annotated[LogLevel, BeforeValidator(_level)] = "info"
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = "auto"
    """"console" for people, "json" for machines, "auto": by whether a terminal reads it."""
    log_config: Annotated[LogConfig, BeforeValidator(_lower)] = "auto"
    """What sets up logging: "auto": qworker, but for what the app sets up itself; "none": the app alone."""
    loop: Annotated[Loop, BeforeValidator(_lower)] = "auto"
    """What runs handlers: asyncio's own event loop, uvloop's, or "auto": uvloop's where it is installed."""
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """The port for probes and metrics: /live, /ready, /metrics; 0: any that is free. None: nothing is served."""
    burst: bool = False
    """Exit once no job is visible and none runs."""
    reload: bool = False
    """Restart when a source file changes."""
    max_jobs: int | None = Field(default=None, ge=1)
    """Exit after so many jobs a process; with several processes, a new one takes its place."""
    lease: WholeSeconds = Field(default=60, ge=2, le=MAX_VISIBILITY)
    """Seconds that a message stays invisible to others after a worker died; renewed while it lives."""
    grace: TimerSeconds = Field(default=25, ge=0)
    """Seconds that running jobs may take to end when the worker is told to stop."""
    poll_min: TimerSeconds | None = Field(default=None, gt=0)
    """Seconds between polls of a queue that had messages a moment ago; by default a twentieth of poll_max."""
    poll_max: TimerSeconds | None = Field(default=None, gt=0)
    """Seconds between polls of an idle queue; by default the broker's: 2 on Azure, 0.5 on SQLite."""

    _start: Path | None = PrivateAttr(default_factory=here)
    """The directory that relative paths belong to, but for those in pyproject.toml."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 — pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 — the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say where settings come from, the strongest first."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, _values_of(_project.get()))

    @classmethod
    def load(cls, given: Mapping[str, Any] | None = None, *, start: Path | None = None) -> Self:
        """Read all sources; *given* (what is not None of it) wins. Raises ConfigurationError, one line.

        The project is looked for in *start*, by default the current directory, and above.
        """
        _refuse_misspelt_variables()
        wanted = {name: value for name, value in (given or {}).items() if value is not None}
        start = here() if start is None else start
        project = settings_of(start)
        loading = _project.set(project)
        try:
            settings = cls(**wanted)
        except ValidationError as error:
            raise ConfigurationError(_one_line(error, wanted, project)) from None
        except ValueError as error:  # an environment variable that is no JSON where it has to be
            raise ConfigurationError(" ".join(str(error).split())) from None
        finally:
            _project.reset(loading)
        settings._start = start
        return settings

    def broker_url(self) -> str:
        """Return the broker's URL: as set, else AZURE_STORAGE_CONNECTION_STRING, else a file of the project.

        The path of a file is a whole one. Raises ConfigurationError if it belongs to a directory that was deleted.
        """
        if (url := self.broker or os.environ.get("AZURE_STORAGE_CONNECTION_STRING")) is not None and url:
            return anchored(url, self._start)
        if self._start is None:
            raise ConfigurationError("which broker? The current directory was deleted, and QWORKER_BROKER names none")
        return anchored(f"sqlite:///{DEFAULT_FILE}", root_of(self._start))


def ignored_variables() -> list[str]:
    """Return the variables that look like settings and are none: somebody else's, such as what Kubernetes sets."""
    known = {*Settings.model_fields, *NOT_SETTINGS}
    return sorted(
        name
        for name in os.environ
        if name.upper().startswith(_PREFIX) and name.lower().removeprefix(_PREFIX.lower()) not in known
    )


def _refuse_misspelt_variables() -> None:
    """Raise ConfigurationError for a variable whose name is nearly that of a setting."""
    for variable in ignored_variables():
        name = variable.lower().removeprefix(_PREFIX.lower())
        if near := difflib.get_close_matches(name, Settings.model_fields, 1, _NEAR):
            raise ConfigurationError(f"{variable}: no such setting: is {_PREFIX}{near[0].upper()} meant?")


def _values_of(project: Table | None) -> dict[str, Any]:
    """Return the settings of a project; a relative path in them is one beside their file."""
    if project is None:
        return {}
    broker = project.values.get("broker")
    if not isinstance(broker, str):
        return project.values
    return project.values | {"broker": anchored(broker, project.file.parent)}


def _one_line(error: ValidationError, given: Mapping[str, Any], project: Table | None) -> str:
    return "; ".join(
        f"{_origin(str(found['loc'][0]), given, project)}: {_problem(found['type'], found['msg'])}"
        for found in error.errors()
    )


def _origin(name: str, given: Mapping[str, Any], project: Table | None) -> str:
    if name in given:
        return f"--{name.replace('_', '-')}"
    variable = _PREFIX + name.upper()
    if variable in os.environ or project is None:
        return variable
    file = project.file.name if project.file.parent == here() else str(project.file)
    return f"[tool.qworker] {name} in {file}"


def _problem(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return f"no such setting; there are {', '.join(sorted(Settings.model_fields))}"
    return message.removeprefix("Value error, ").replace("Input should be", "must be")
