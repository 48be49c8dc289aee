"""qworker queues: lists queues, shows their messages, and creates, clears and deletes queues."""

from typing import Annotated, Any, Final

import typer

from qworker._queue_names import POISON_SUFFIX
from qworker.brokers.base import Broker
from qworker.cli.shared.asking import ask, confirm, shared_broker
from qworker.cli.shared.options import HELP, AppOption, ArgsOption, BrokerOption, JsonOption, YesOption
from qworker.cli.shared.pipes import print_text, say, tell
from qworker.cli.shared.tables import Column, as_json_text, print_block, print_json, print_table
from qworker.errors import ConfigurationError
from qworker.operate.contents import Shown
from qworker.operate.lengths import Length, lengths
from qworker.operate.words import NONE, counted, iso, span

_SEEN: Final = 32
"""Messages that a peek shows at most, on every broker."""
_COLUMNS: Final = (
    Column("JOB", ids=True),
    Column("TASK", gives_way=True),
    Column("TRIED", right=True),
    Column("AGE", right=True),
    Column("STATE", gives_way=True),
)


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name, as in mail or mail-poison.")]

queues = typer.Typer(
    help="List queues, and look into one. Without a command, print a table.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings=HELP,
)


@queues.callback()
def table(
    ctx: typer.Context,
    *,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List queues, and look into one.

    Without a command, it prints a table. For each queue it shows the approximate number of messages, including
    invisible ones, the age of the oldest of 32 visible messages, and the number of jobs given up.
    """
    if ctx.invoked_subcommand is not None:
        if app or broker or as_json:
            raise ConfigurationError(f"put options after the command: qworker queues {ctx.invoked_subcommand} --json")
        return
    found, _ = shared_broker(app, broker)
    asked = ask(found, lambda: lengths(found))
    if as_json:
        print_json([_as_json(length) for length in asked])
    elif asked:
        columns = Column("QUEUE"), *(Column(title, right=True) for title in ("MESSAGES", "OLDEST", "GIVEN UP"))
        print_table(columns, (_row(length) for length in asked))
    else:
        say(f"there are no queues at {found.label}")


@queues.command()
def create(
    name: NameArgument, *, app: AppOption = None, broker: BrokerOption = None, as_json: JsonOption = False
) -> None:
    """Create a queue, unless it exists."""
    found, _ = shared_broker(app, broker, create=True)
    created = ask(found, lambda: found.create_queue(name))
    _tell_done(
        {"queue": name, "created": created}, f"{name} {'created' if created else 'exists already'}", as_json=as_json
    )


@queues.command()
def delete(
    name: NameArgument,
    *,
    yes: YesOption = False,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a queue with all its messages, but not its poison queue. Asks first."""
    found, _ = shared_broker(app, broker)
    messages = ask(found, lambda: found.queue(name).count())
    confirm(f"Delete the queue {name} with about {counted(messages, 'message')}", yes=yes)
    ask(found, lambda: found.delete_queue(name))
    _tell_done({"queue": name, "deleted": True}, f"{name} deleted", as_json=as_json)


@queues.command()
def clear(
    name: NameArgument,
    *,
    yes: YesOption = False,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete all messages of a queue, including invisible ones. Asks first."""
    found, _ = shared_broker(app, broker)
    messages = ask(found, lambda: found.queue(name).count())
    confirm(f"Delete all messages of {name}, about {messages}", yes=yes)
    ask(found, lambda: found.queue(name).clear())
    _tell_done({"queue": name, "cleared": True}, f"{name} cleared", as_json=as_json)


@queues.command()
def count(
    name: NameArgument, *, app: AppOption = None, broker: BrokerOption = None, as_json: JsonOption = False
) -> None:
    """Print the approximate number of messages in a queue, including invisible ones."""
    found, _ = shared_broker(app, broker)
    messages = ask(found, lambda: found.queue(name).count())
    if as_json:
        print_json({"queue": name, "messages": messages})
    else:
        print_text(f"{messages}\n")


@queues.command()
def peek(  # noqa: PLR0913 — one parameter an option
    name: NameArgument,
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=_SEEN, metavar="N", help="Show at most N messages, up to 32.")
    ] = 10,
    args: ArgsOption = False,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at the visible messages of a queue.

    The messages stay where they are. Arguments are shown only with --args.
    """
    found, _ = shared_broker(app, broker)
    messages, there = ask(found, lambda: _peek(found, name, limit))
    shown = [Shown.of(message, poison=name.endswith(POISON_SUFFIX)) for message in messages]
    if as_json:
        print_json([each.json(private=args) for each in shown])
        return
    if args:
        for number, each in enumerate(shown):
            if number:
                print_text("\n")
            print_block(each.block(private=True))
    elif shown:
        print_table(_COLUMNS, (each.row() for each in shown))
    if not shown:
        say(f"no visible message in {name}" + (f", about {there} invisible" if there else ""))
    elif there > len(shown):
        more = "" if limit == _SEEN else f" (-n {_SEEN} shows more)" if len(shown) == limit else ", the rest invisible"
        say(f"{len(shown)} of about {there}{more}")


async def _peek(broker: Broker, name: str, limit: int) -> tuple[list[Any], int]:
    queue = broker.queue(name)
    return await queue.peek(limit), await queue.count()


def _row(length: Length) -> tuple[str, ...]:
    poison = NONE if length.poison is None else str(length.poison)
    oldest = NONE if length.oldest_age is None else span(length.oldest_age.total_seconds())
    return length.name, str(length.messages), oldest, poison


def _as_json(length: Length) -> dict[str, Any]:
    return {
        "queue": length.name,
        "messages": length.messages,
        "oldest_at": iso(length.oldest),
        "oldest_seconds": None if length.oldest_age is None else max(0.0, length.oldest_age.total_seconds()),
        "given_up": length.poison,
    }


def _tell_done(told: dict[str, Any], text: str, *, as_json: bool) -> None:
    tell(as_json_text(told) if as_json else text)
