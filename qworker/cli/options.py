"""Options that several commands have."""

from typing import Annotated, Final

import typer

AppOption = Annotated[str | None, typer.Option("--app", "-a", metavar="APP", help="As for run; its broker is used.")]
BrokerOption = Annotated[
    str | None, typer.Option("--broker", metavar="URL", help="Where the queues are. [default: the app's, or as set]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
ArgsOption = Annotated[bool, typer.Option("--args", help="Show arguments, state and headers too: may be confidential.")]
HELP: Final = {"help_option_names": ["-h", "--help"]}
