"""qworker poison: what to do with jobs that were given up."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from qworker.errors import ConfigurationError

if TYPE_CHECKING:
    from qworker.brokers.base import Broker

poison = typer.Typer(
    help="What to do with jobs that were given up.",
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@poison.callback()
def show_help_alone(ctx: typer.Context) -> None:
    """Show the help of a group of commands that is called without one."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@poison.command()
def replay(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue that the jobs came from, as in mail.")],
    *,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many.")] = None,
    app: Annotated[
        str | None, typer.Option("--app", "-a", metavar="APP", help="As for run; its broker is used.")
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the queues are. [default: the app's, or as set]")
    ] = None,
) -> None:
    """Put the jobs of a queue that were given up back into it.

    They are as new then, with all their attempts. It prints how many; those that are given up again meanwhile stay in
    the poison queue. Interrupted, it leaves one or two copies of each job, never none.
    """
    from qworker.cli.load import load_broker  # noqa: PLC0415 — `qworker --help` need not wait for it
    from qworker.settings import Settings  # noqa: PLC0415 — the same
    from qworker.task import POISON_SUFFIX  # noqa: PLC0415 — the same

    settings = Settings.load({"app": app})
    found = load_broker(broker, settings)
    if not found.shared:
        raise ConfigurationError(f"{found.label} is of one process only: there is nothing to replay")
    if queue.endswith(POISON_SUFFIX):
        raise ConfigurationError(f"name the queue that the jobs came from: {queue.removesuffix(POISON_SUFFIX)}")
    count = asyncio.run(_replay(found, queue, limit, settings.lease))
    typer.echo(f"{count} {'job' if count == 1 else 'jobs'} put back into {queue}")


async def _replay(broker: "Broker", queue: str, limit: int | None, lease: int) -> int:
    from qworker.replay import replay  # noqa: PLC0415 — the same

    try:
        return await replay(broker, queue, limit=limit, lease=lease)
    finally:
        await broker.aclose()
