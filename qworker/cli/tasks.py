"""qworker tasks: shows the tasks that an app has registered."""

from typing import Annotated, Any

import typer

from qworker.cli.shared.load import load_app
from qworker.cli.shared.tables import Column, print_json, print_table
from qworker.errors import ConfigurationError
from qworker.operate.schema import schema_of
from qworker.operate.words import NONE
from qworker.settings import Settings
from qworker.task import Task


def tasks(
    app: Annotated[
        str | None,
        typer.Argument(metavar="APP", help="As for run: tasks, pkg.mod, pkg.mod:app."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything about the tasks, as JSON.")] = False,
    json_schema: Annotated[
        bool,
        typer.Option("--json-schema", help="Print a JSON Schema of the messages that the tasks take."),
    ] = False,
) -> None:
    """Show the tasks of an app: their queues, where they run, their limits, and their signatures."""
    if as_json and json_schema:
        raise ConfigurationError("use either --json or --json-schema, not both")
    settings = Settings.load({"app": app})
    if settings.app is None:
        raise ConfigurationError("which app? 'qworker tasks mail' shows the tasks in mail.py")
    found = [task for _, task in sorted(load_app(settings.app).tasks.items())]
    if json_schema:
        print_json(schema_of(found))
    elif as_json:
        print_json([_described(task) for task in found])
    else:
        columns = (
            Column("TASK"),
            Column("QUEUE"),
            Column("RUNS IN"),
            Column("TIMEOUT", right=True),
            Column("ATTEMPTS", right=True),
            Column("BUNDLE", right=True),
            Column("SIGNATURE", gives_way=True),
        )
        print_table(columns, map(_row, found))


def _row(task: Task[..., Any]) -> tuple[str, ...]:
    timeout = task.options.timeout
    return (
        task.name,
        task.queue,
        task.options.executor or "loop",
        NONE if timeout is None else f"{timeout:g}s",
        str(task.options.policy.max_attempts),
        str(task.bundle),
        str(task.signature),
    )


def _described(task: Task[..., Any]) -> dict[str, Any]:
    policy = task.options.policy
    return {
        "name": task.name,
        "queue": task.queue,
        "signature": str(task.signature),
        "description": task.__doc__,
        "executor": task.options.executor or "loop",
        "timeout": task.options.timeout,
        "max_attempts": policy.max_attempts,
        "backoff": {
            "base": policy.backoff.base,
            "factor": policy.backoff.factor,
            "max": policy.backoff.max,
            "jitter": policy.backoff.jitter,
        },
        "bundle": task.bundle,
    }
