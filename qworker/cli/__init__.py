"""The command line: one file a group of commands."""

import importlib.metadata
import os
import re
import sys
from typing import Annotated, Any, Final, cast

import typer

from qworker.cli.asking import Interrupted, NotFound, Refused
from qworker.cli.enqueue import enqueue
from qworker.cli.poison import poison, show_help_alone
from qworker.cli.queues import queues
from qworker.cli.run import run
from qworker.engine.exits import FAILED, INTERRUPTED, NOT_FOUND, UNUSABLE, WRONG_USE
from qworker.engine.supervisor import SUPERVISED
from qworker.errors import BrokerUnusable, ConfigurationError, QueueNotFound, QworkerError

_SECRET: Final = re.compile(r"(?i)\b(AccountKey|SharedAccessSignature|sig)=[^;&\s'\"]+")
"""What a user may have put where something else was expected, which is then repeated."""

# Typer re-exports only this one of its usage errors; what they share is a base class further up.
_UsageError: Any = typer.BadParameter.__bases__[0]

cli = typer.Typer(
    name="qworker",
    help="Background jobs on Azure Storage Queue, and on an SQLite file with the same semantics.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001 — a flag's callback
    if wanted:
        typer.echo(f"qworker {importlib.metadata.version('qworker')}")
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


cli.command()(run)
cli.command()(enqueue)
cli.add_typer(queues, name="queues")
cli.add_typer(poison, name="poison")


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error, and never a traceback."""
    # Of several processes the first says for all what is wrong.
    silent = os.environ.get(SUPERVISED, "0") != "0"
    try:
        code = cli(prog_name="qworker", standalone_mode=False)
    except _UsageError as error:
        _complain(_usage_text(error), silent=silent)
        code = WRONG_USE
    except ConfigurationError as error:
        _complain(str(error), silent=silent)
        code = WRONG_USE
    except BrokerUnusable as error:
        _complain(str(error), silent=silent)
        code = UNUSABLE
    except (NotFound, QueueNotFound) as error:
        _complain(str(error), silent=silent)
        code = NOT_FOUND
    except (Refused, QworkerError) as error:
        _complain(str(error), silent=silent)
        code = FAILED
    except Interrupted as error:
        _complain(str(error), silent=silent)
        code = INTERRUPTED
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    sys.exit(cast("int | None", code) or 0)


def _usage_text(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "qworker"
    return f"{error.format_message().rstrip('.')}; see '{command} --help'"


def _complain(text: str, *, silent: bool) -> None:
    if silent:
        return
    line = _SECRET.sub(r"\1=…", " ".join(text.split()))
    print(f"qworker: {line}", file=sys.stderr)  # noqa: T201 — what a command line is for
