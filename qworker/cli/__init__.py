"""The command line: one file a group of commands."""

import os
import sys
from typing import Annotated, Final

import typer
import typer.main

from qworker import _distribution
from qworker.cli.commands import Commands
from qworker.cli.shared.endings import explained, traceback_of
from qworker.cli.shared.options import show_help_alone
from qworker.cli.shared.pipes import print_text, tell
from qworker.processes.supervisor import SUPERVISED
from qworker.system.streams import flush_or_drop

cli = typer.Typer(
    name="qworker",
    cls=Commands,
    help="Background jobs on Azure Storage Queue, and on an SQLite file with the same semantics.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001 — a flag's callback
    if wanted:
        print_text(f"qworker {_distribution.version()}\n")
        raise typer.Exit


@cli.callback()
def _options(
    ctx: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 — its callback does the work
        bool,
        typer.Option("--version", "-V", help="Print the version and exit.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    show_help_alone(ctx)


command: Final = typer.main.get_command(cli)


def main() -> None:
    """Run the command line; whatever ends it is one line on standard error at most, and never a traceback."""
    code = _run(sys.argv[1:])
    flush_or_drop(sys.stdout)
    flush_or_drop(sys.stderr)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        # Not by cli(), which has its own way with pipes that are closed.
        with command.make_context("qworker", arguments) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 — the one place where a command's errors end
        line, code = explained(error)
        # Of several processes the first says for all what is wrong.
        if os.environ.get(SUPERVISED, "0") == "0":
            for text in filter(None, (traceback_of(error), line and f"qworker: {line}")):
                tell(text, sys.stderr, sys.stdout)
        return code
    return 0
