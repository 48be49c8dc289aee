"""A job as one line of JSON: ``{"task":"mail.send","args":["a@b.c"],"kwargs":{"text":"hello"},"delay":"5m"}``."""

import re
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from qworker.app import App
from qworker.cli.enqueue.lines import MAX_LINE, Line
from qworker.errors import InvalidEnvelope, QworkerError
from qworker.job import Job
from qworker.produce.producer import Producer
from qworker.settings import Seconds
from qworker.wire.bodies import as_fields

_PLACE: Final = re.compile(r": line 1 column (\d+) \(char \d+\)$")


class BadLine(Exception):
    """A line that is no job; its text says why."""


class Options(NamedTuple):
    """The options of a line beside a job's arguments; the command line supplies those that it leaves out."""

    task: str | None = None
    queue: str | None = None
    delay: float | None = None
    """Seconds."""
    ttl: float | None = None
    """Seconds."""


@dataclass(slots=True, eq=False)
class Group:
    """Jobs that are enqueued in the same way, and the lines that they come from."""

    producer: Producer[...]
    jobs: list[Job] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


class Batch:
    """Jobs of neighbouring lines, by the way they are enqueued."""

    def __init__(self) -> None:
        self.bytes = 0
        self.groups: dict[Options, Group] = {}

    def __len__(self) -> int:
        return sum(len(group.jobs) for group in self.groups.values())

    def add(self, line: Line, app: App, defaults: Options) -> None:
        """Add a line's job. Raises BadLine."""
        content = _read(line)
        options = Options(*(_first(getattr(content, name), default) for name, default in defaults._asdict().items()))
        try:
            group = self.groups.get(options) or Group(_producer(app, options))
            producer = group.producer.using(headers=content.headers) if content.headers else group.producer
            group.jobs.append(producer.make(content.args, content.kwargs))
        except BadLine:
            raise
        except QworkerError as error:
            raise BadLine(str(error)) from None
        except Exception as error:  # noqa: BLE001 — a validator of the user's own may raise anything, with the value
            raise BadLine(f"a validator or serializer of {options.task} raised {type(error).__name__}") from None
        group.lines.append(line.number)
        self.groups[options] = group
        self.bytes += len(line.data or b"")


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    task: str | None = None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    queue: str | None = None
    delay: Seconds | None = None
    ttl: Seconds | None = None
    headers: dict[str, str] = {}


def _read(line: Line) -> _Content:
    if line.data is None:
        raise BadLine(f"it is longer than {MAX_LINE:,} bytes")
    try:
        return _Content.model_validate(_fields(line.data))
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text"
    except InvalidEnvelope as error:
        problem = _PLACE.sub(r" at character \1", str(error))
        if not line.whole:
            problem += " (the input ends within this line)"
    except ValidationError as error:
        problem = "; ".join(_problem(found["type"], found["loc"], found["msg"]) for found in error.errors())
    raise BadLine(problem)


def _fields(data: bytes) -> dict[str, Any]:
    text = data.decode()
    if not text.lstrip().startswith("{"):
        raise InvalidEnvelope("it is not a JSON object")
    return as_fields(text)


def _problem(kind: str, place: tuple[int | str, ...], message: str) -> str:
    key = ": ".join(map(ascii, place))
    if kind == "extra_forbidden":
        return f"no such key: {key}; there are {', '.join(_Content.model_fields)}"
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{key} {_AS_JSON.get(message, message)}" if message.startswith("must be") else f"{key}: {message}"


_AS_JSON: Final = {"must be a valid list": "must be an array", "must be a valid dictionary": "must be an object"}


def _producer(app: App, options: Options) -> "Producer[...]":
    if options.task is None:
        raise BadLine("which task? The line has no 'task', and the command names none")
    return app.get_task(options.task).using(queue=options.queue, delay=options.delay, ttl=options.ttl)


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value
