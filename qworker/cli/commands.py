"""Names the commands, and imports the one that is called: none waits for what another needs."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import typer
import typer.core
import typer.main


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a command is, and the line that the list of all commands has of it."""

    module: str
    name: str
    summary: str


COMMANDS: Final = {
    "run": _Place("qworker.cli.run.command", "run", "Run the jobs of an app's queues until told to stop."),
    "enqueue": _Place("qworker.cli.enqueue.command", "enqueue", "Enqueue a job, or many from lines of JSON."),
    "tasks": _Place("qworker.cli.tasks", "tasks", "List an app's tasks."),
    "doctor": _Place(
        "qworker.cli.doctor", "doctor", "Check what a worker needs, and say what to do about what is wrong."
    ),
    "top": _Place("qworker.cli.top.command", "top", "Watch queues, workers, tasks and failures."),
    "queues": _Place("qworker.cli.queues", "queues", "List, create, look into, clear and delete queues."),
    "poison": _Place("qworker.cli.poison.command", "poison", "List jobs that were given up; replay or purge them."),
}


class Commands(typer.core.TyperGroup):
    """The group of all commands."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 — all are there in any context
        """Return their names, in the order in which a newcomer meets them."""
        return [*COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 — the same
        """Import a command; None if there is none of that name."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        found = getattr(import_module(place.module), place.name)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_command(found)
        else:
            alone = typer.Typer(
                add_completion=False,
                pretty_exceptions_enable=False,
                rich_markup_mode=None,
                context_settings={"help_option_names": ["-h", "--help"]},
            )
            alone.command(cmd_name)(found)
            command = typer.main.get_command(alone)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 — the same
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])
