"""The command line: one file a group of commands."""

import os
import re
import sys
from typing import Annotated, Any, Final, cast

import typer

from qworker import _distribution
from qworker.cli.asking import Interrupted, NotFound, Refused
from qworker.cli.doctor import doctor
from qworker.cli.enqueue import enqueue
from qworker.cli.pipes import tell
from qworker.cli.poison import poison, show_help_alone
from qworker.cli.queues import queues
from qworker.cli.run import run
from qworker.cli.stopping import Stopped
from qworker.cli.tasks import tasks
from qworker.cli.top import top
from qworker.engine.exits import FAILED, INTERRUPTED, NOT_FOUND, UNUSABLE, WRONG_USE
from qworker.engine.supervisor import SUPERVISED
from qworker.errors import BrokerUnusable, ConfigurationError, QueueNotFound, QworkerError

_SECRET: Final = re.compile(r"(?i)\b(AccountKey|SharedAccessSignature|sig)=[^;&\s'\"]+")
"""What a user may have put where something else was expected, which is then repeated."""

_CODES: Final[dict[type[Exception], int]] = {
    ConfigurationError: WRONG_USE,
    BrokerUnusable: UNUSABLE,
    NotFound: NOT_FOUND,
    QueueNotFound: NOT_FOUND,
    Refused: FAILED,
    Interrupted: INTERRUPTED,
    QworkerError: FAILED,
}
"""What a command may end with that is said in one line, and its exit code; the first that fits."""

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
        typer.echo(f"qworker {_distribution.version()}")
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
cli.command()(tasks)
cli.command()(doctor)
cli.command()(top)
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
    except tuple(_CODES) as error:
        _complain(str(error), silent=silent)
        code = error.exit_code if isinstance(error, Stopped) else _code_of(error)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    sys.exit(cast("int | None", code) or 0)


def _code_of(error: Exception) -> int:
    return next(code for kind, code in _CODES.items() if isinstance(error, kind))


def _usage_text(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "qworker"
    return f"{error.format_message().rstrip('.')}; see '{command} --help'"


def _complain(text: str, *, silent: bool) -> None:
    if silent:
        return
    line = _SECRET.sub(r"\1=…", " ".join(text.split()))
    tell(f"qworker: {line}", sys.stderr, sys.stdout)
