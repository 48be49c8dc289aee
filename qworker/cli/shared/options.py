"""Options that several commands have."""

from typing import Annotated, Final

import typer

from qworker.cli.shared.pipes import print_text
from qworker.errors import ConfigurationError

AppOption = Annotated[
    str | None, typer.Option("--app", "-a", metavar="APP", help="An app, as for run. The command uses its broker.")
]
AppArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[APP]", help="An app, as for run. The command uses its broker and its queues.", show_default=False
    ),
]
BrokerOption = Annotated[
    str | None, typer.Option("--broker", metavar="URL", help="The broker's URL. [default: the app's, or as set]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
ArgsOption = Annotated[
    bool, typer.Option("--args", help="Show arguments, state and headers too. They may be confidential.")
]
HELP: Final = {"help_option_names": ["-h", "--help"]}


def one_app(argument: str | None, option: str | None) -> str | None:
    """Return the app that a command names in one of the two ways. Raises ConfigurationError if it names two."""
    if argument is not None and option is not None and argument != option:
        raise ConfigurationError(f"which app? Both {argument!r} and --app {option!r} are named")
    return option if argument is None else argument


def show_help_alone(ctx: typer.Context) -> None:
    """Show the help of a group of commands that is called without one."""
    if ctx.invoked_subcommand is None:
        print_text(f"{ctx.get_help()}\n")
