"""qworker enqueue: one job from the command line, or many from lines."""

import json
from typing import Annotated, Any, Final

import typer

from qworker._exits import BAD_INPUT
from qworker.app import App
from qworker.cli.enqueue.bulk import Bulk
from qworker.cli.enqueue.job_lines import Options
from qworker.cli.enqueue.line_numbers import LineNumbers
from qworker.cli.enqueue.lines import LineSource
from qworker.cli.enqueue.view import view_of
from qworker.cli.shared.asking import check_lasting
from qworker.cli.shared.load import load_app, named_here
from qworker.cli.shared.pipes import tell
from qworker.cli.shared.stopping import Stopping
from qworker.errors import ConfigurationError
from qworker.settings import Settings, parse_seconds

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
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="The task's name, as in tasks.thumbnail.", show_default=False)
    ] = None,
    *,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="Positional arguments, as a JSON array. [default: []]")
    ] = None,
    kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="Keyword arguments, as a JSON object. [default: {}]")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", "-f", metavar="FILE", help="Enqueue many jobs, one JSON object per line; - is standard input."
        ),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option("--app", "-a", metavar="APP", help="As for run. [default: the module in the task's name]"),
    ] = None,
    broker: Annotated[str | None, typer.Option(metavar="URL", help="The broker's URL. [default: the app's]")] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="NAME", help="Use this queue instead of the task's own.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option(metavar="TIME", help="Don't start before this time has passed: 90s, 5m, 1h.")
    ] = None,
    ttl: Annotated[str | None, typer.Option(metavar="TIME", help="Don't start after this time has passed.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="With --from: stop at the first bad line.")] = False,
    start_line: Annotated[int | None, typer.Option(min=1, metavar="N", help="With --from: begin at this line.")] = None,
    skip_lines: Annotated[
        str | None, typer.Option(metavar="N,N-N", help="With --from: skip these lines too, as in 12,40-49.")
    ] = None,
) -> None:
    """Enqueue one job and print its id, or enqueue many and print their number.

    Each line of --from is a JSON object with the keys task, args, kwargs, queue, delay, ttl and headers. Only task is
    required, and only if the command names no task. The command line supplies the other values that a line leaves out.
    Bad lines are reported and the others are enqueued; the exit code is then 65.
    """
    _check_options(
        source,
        single={"--args": args, "--kwargs": kwargs},
        many={"--strict": strict or None, "--start-line": start_line, "--skip-lines": skip_lines},
    )
    if task is None and source is None:
        raise ConfigurationError("which task? 'qworker enqueue tasks.thumbnail' enqueues a call of it")
    settings = Settings.load({"app": app})
    broker = named_here(broker)
    found = load_app(settings.app or _module_of(task))
    if broker is not None:
        found.use_broker(broker)
    check_lasting(found.broker)
    seconds = parse_seconds("--delay", delay), parse_seconds("--ttl", ttl)
    try:
        if source is None:
            positional, named = _parse("--args", args or "[]", list), _parse("--kwargs", kwargs or "{}", dict)
            producer = found.get_task(task or "").using(queue=queue, delay=seconds[0], ttl=seconds[1])
            job = producer.make(positional, named)
            producer.send_made([job])
            tell(job.id)
        else:
            _enqueue_lines(found, source, Options(task, queue, *seconds), start_line or 1, skip_lines, strict=strict)
    finally:
        found.close()


def _enqueue_lines(  # noqa: PLR0913 — what the command was told
    app: App, path: str, defaults: Options, start: int, skip: str | None, *, strict: bool
) -> None:
    skipped = LineNumbers() if skip is None else LineNumbers.parse("--skip-lines", skip)
    if defaults.task is not None:
        app.get_task(defaults.task).using(queue=defaults.queue, delay=defaults.delay, ttl=defaults.ttl)
    stopping = Stopping()
    source = LineSource.open(path, stopping.wait)
    with stopping, view_of(source) as view:
        bulk = Bulk(app, view, stopping, defaults, start, skipped, strict)
        bulk.run(source)
    tell(bulk.counted())
    if bulk.bad_lines:
        raise typer.Exit(BAD_INPUT)


def _check_options(source: str | None, *, single: dict[str, Any], many: dict[str, Any]) -> None:
    given = [option for option, value in (many if source is None else single).items() if value is not None]
    if given and source is None:
        raise ConfigurationError(f"{', '.join(given)}: only with --from")
    if given:
        raise ConfigurationError(f"{', '.join(given)}: not with --from, whose lines have the arguments")


def _module_of(task: str | None) -> str:
    if task is None:
        raise ConfigurationError(
            "which app? Name it with --app, or name a task: qworker enqueue tasks.thumbnail --from …"
        )
    module, dot, _ = task.rpartition(".")
    if not dot:
        raise ConfigurationError(f"in which module is task {task!r}? Name it with --app")
    return module


def _parse(option: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{option}: not JSON: {error}") from None
    if not isinstance(value, kind):  # what it is instead may be a secret
        raise ConfigurationError(f"{option}: must be {_JSON_NAMES[kind]}, not {_JSON_NAMES[type(value)]}")
    return value
