"""qworker enqueue: one job from the command line."""

import json
from typing import Annotated, Any, Final

import typer

from qworker.errors import ConfigurationError

_JSON_NAMES: Final[dict[type, str]] = {
    list: "a JSON array",
    dict: "a JSON object",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def enqueue(  # noqa: PLR0913 — one parameter an option
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's name, as in tasks.thumbnail.")],
    *,
    args: Annotated[str, typer.Option(metavar="JSON", help="Positional arguments, as a JSON array.")] = "[]",
    kwargs: Annotated[str, typer.Option(metavar="JSON", help="Keyword arguments, as a JSON object.")] = "{}",
    app: Annotated[
        str | None,
        typer.Option("--app", "-a", metavar="APP", help="As for run. [default: the module in the task's name]"),
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the queues are. [default: the app's]")
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="NAME", help="Instead of the task's own.")
    ] = None,
    delay: Annotated[str | None, typer.Option(metavar="TIME", help="Not before this has passed: 90s, 5m, 1h.")] = None,
    ttl: Annotated[str | None, typer.Option(metavar="TIME", help="Not worth starting later than this.")] = None,
) -> None:
    """Enqueue one job, and print its id."""
    from qworker.cli.load import load_app  # noqa: PLC0415 — `qworker --help` need not wait for it
    from qworker.settings import Settings, parse_seconds  # noqa: PLC0415 — the same

    settings = Settings.load({"app": app})
    found = load_app(settings.app or _module_of(task))
    if broker is not None:
        found.use_broker(broker)
    producer = found.get_task(task).using(
        queue=queue,
        delay=parse_seconds("--delay", delay),
        ttl=parse_seconds("--ttl", ttl),
    )
    positional, named = _parse("--args", args, list), _parse("--kwargs", kwargs, dict)
    try:
        job = producer.enqueue(*positional, **named)
    finally:
        found.close()
    typer.echo(job.id)


def _module_of(task: str) -> str:
    module, dot, _ = task.rpartition(".")
    if not dot:
        raise ConfigurationError(f"in which module is task {task!r}? Say so with --app")
    return module


def _parse(option: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{option}: not JSON: {error}") from None
    if not isinstance(value, kind):  # what it is instead may be a secret
        raise ConfigurationError(f"{option}: must be {_JSON_NAMES[kind]}, not {_JSON_NAMES[type(value)]}")
    return value
