"""qworker poison: what to do with jobs that were given up."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from qworker.cli.asking import NotFound, ask, confirm, shared_broker
from qworker.cli.options import HELP, AppOption, ArgsOption, BrokerOption, JsonOption, YesOption
from qworker.cli.pipes import print_text, say
from qworker.cli.tables import counted, print_block, print_json
from qworker.errors import ConfigurationError

if TYPE_CHECKING:
    from qworker.brokers.base import Broker
    from qworker.cli.poison_runs import Run
    from qworker.given_up import Selection

poison = typer.Typer(
    help="What to do with jobs that were given up.",
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings=HELP,
)

_FROM = "The queue that the jobs came from, as in mail."
QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help=_FROM)]
AnyQueueArgument = Annotated[str | None, typer.Argument(metavar="[QUEUE]", help=f"{_FROM} [default: all]")]
QueueOption = Annotated[str | None, typer.Option("--queue", "-q", metavar="QUEUE", help=f"{_FROM} [default: any]")]
TaskOption = Annotated[
    str | None, typer.Option("--task", metavar="NAME", help="Only jobs of this task; mail.* for several.")
]
ErrorOption = Annotated[
    str | None, typer.Option("--error", metavar="TYPE", help="Only with this error, as in ValueError or *Timeout*.")
]
OlderOption = Annotated[
    str | None, typer.Option("--older", metavar="TIME", help="Only given up longer ago than this: 90s, 5m, 1h.")
]
NewerOption = Annotated[str | None, typer.Option("--newer", metavar="TIME", help="Only given up since this long ago.")]
IdOption = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="Only this job, or message; may be given repeatedly.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@poison.callback()
def show_help_alone(ctx: typer.Context) -> None:
    """Show the help of a group of commands that is called without one."""
    if ctx.invoked_subcommand is None:
        print_text(f"{ctx.get_help()}\n")


@poison.command("list")
def list_(  # noqa: PLR0913 — one parameter an option
    queue: AnyQueueArgument = None,
    *,
    task: TaskOption = None,
    error: ErrorOption = None,
    older: OlderOption = None,
    newer: NewerOption = None,
    ids: IdOption = None,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs that were given up.

    Of each queue it looks at 32, as many as can be seen at a time, and says so if there are more.
    """
    from qworker.cli import poison_views as views  # noqa: PLC0415 — `qworker --help` need not wait for it

    selection = _selection(task, error, older, newer, ids)
    name = None if queue is None else _checked(queue)
    found, _ = shared_broker(app, broker)
    looks = ask(found, lambda: views.look(found, name))
    meant = [(look.queue, each) for look in looks for each in look.seen if selection.takes(each)]
    if as_json:
        print_json([views.as_json(name, each) for name, each in meant])
    elif meant:
        views.print_list(meant, one_queue=queue is not None)
    else:
        where = f" in {queue}-poison" if queue else ""
        say(f"nothing{where}" if selection.takes_all else f"nothing that fits was seen{where}")
    for look in looks:
        if more := look.what_is_hidden():
            say(more)


@poison.command()
def show(  # noqa: PLR0913 — one parameter an option
    sought: Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its message's.")],
    *,
    queue: QueueOption = None,
    args: ArgsOption = False,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all that is known of a job that was given up.

    If it is not among the first 32 of a queue, all are looked at, and are invisible to others meanwhile.
    """
    from qworker.cli import poison_views as views  # noqa: PLC0415 — `qworker --help` need not wait for it

    name = None if queue is None else _checked(queue)
    found, settings = shared_broker(app, broker)
    copies = ask(found, lambda: views.find(found, name, sought, settings.lease))
    if not copies:
        raise NotFound(f"no job or message {sought!r} was given up" + (f" of {queue}" if queue else ""))
    if as_json:
        print_json([views.as_json(name, each, whole=True, private=args) for name, each in copies])
        return
    for number, (name, each) in enumerate(copies):
        if number:
            print_text("\n")
        print_block(views.block(name, each, private=args))


@poison.command()
def replay(  # noqa: PLR0913 — one parameter an option
    queue: QueueArgument,
    *,
    task: TaskOption = None,
    error: ErrorOption = None,
    older: OlderOption = None,
    newer: NewerOption = None,
    ids: IdOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the jobs of a queue that were given up back into it.

    They are as new then, with all their attempts. It prints how many; those that are given up again meanwhile stay in
    the poison queue. Interrupted, it ends what it has begun; killed, it leaves one or two copies of each job, never
    none. Those that are not meant are invisible to other commands until it ends.
    """
    from qworker.cli.poison_runs import Run  # noqa: PLC0415 — `qworker --help` need not wait for it
    from qworker.replay import replay  # noqa: PLC0415 — the same

    name, selection = _checked(queue), _selection(task, error, older, newer, ids)
    found, settings = shared_broker(app, broker)
    run = Run(name, f"put back into {name}", limit, selection.takes_all)
    lease = settings.lease
    if dry_run:
        _look_only(run, found, selection, limit, lease, as_json=as_json, replayable=True)
        return
    with run.shown() as told:
        ask(found, lambda: replay(found, name, selection=selection, limit=limit, lease=lease, told=told))
    run.print_end(as_json=as_json)
    if run.progress.left:
        raise typer.Exit(1)


@poison.command()
def purge(  # noqa: PLR0913 — one parameter an option
    queue: QueueArgument,
    *,
    task: TaskOption = None,
    error: ErrorOption = None,
    older: OlderOption = None,
    newer: NewerOption = None,
    ids: IdOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete jobs of a queue that were given up, for ever. Asks before.

    Those that are not meant are invisible to other commands until it ends.
    """
    from qworker.cli.poison_runs import Run  # noqa: PLC0415 — `qworker --help` need not wait for it
    from qworker.purge import purge  # noqa: PLC0415 — the same

    name, selection = _checked(queue), _selection(task, error, older, newer, ids)
    found, settings = shared_broker(app, broker)
    run = Run(name, "deleted", limit, selection.takes_all)
    lease = settings.lease
    if dry_run:
        _look_only(run, found, selection, limit, lease, as_json=as_json)
        return
    there = ask(found, lambda: found.queue(f"{name}-poison").count())
    whole = selection.takes_all and limit is None
    confirm(f"Delete {'all' if whole else 'what fits'} of about {counted(there, 'job')} in {name}-poison", yes=yes)
    with run.shown() as told:
        ask(found, lambda: purge(found, name, selection=selection, limit=limit, lease=lease, told=told))
    run.print_end(as_json=as_json)


def _look_only(  # noqa: PLR0913 — what the commands were given
    run: "Run",
    broker: "Broker",
    selection: "Selection",
    limit: int | None,
    lease: int,
    *,
    as_json: bool,
    replayable: bool = False,
) -> None:
    from qworker.cli.poison_runs import Found  # noqa: PLC0415 — `qworker --help` need not wait for it
    from qworker.purge import look_through  # noqa: PLC0415 — the same

    found = Found()
    with run.shown() as told:
        ask(
            broker,
            lambda: look_through(
                broker,
                run.queue,
                found.add,
                selection=selection,
                limit=limit,
                lease=lease,
                told=told,
                replayable=replayable,
            ),
        )
    run.print_dry(found, as_json=as_json)


def _checked(queue: str) -> str:
    """Return the name of the queue that jobs came from. Raises ConfigurationError."""
    from qworker.task import POISON_SUFFIX, check_task_queue  # noqa: PLC0415 — `qworker --help` need not wait for it

    if queue.endswith(POISON_SUFFIX):
        raise ConfigurationError(f"name the queue that the jobs came from: {queue.removesuffix(POISON_SUFFIX)}")
    return check_task_queue(queue)


def _selection(
    task: str | None, error: str | None, older: str | None, newer: str | None, ids: list[str] | None
) -> "Selection":
    from qworker.given_up import Selection  # noqa: PLC0415 — `qworker --help` need not wait for it
    from qworker.settings import parse_seconds  # noqa: PLC0415 — the same

    def ago(option: str, text: str | None) -> timedelta | None:
        seconds = parse_seconds(option, text)
        return None if seconds is None else timedelta(seconds=seconds)

    least, most = ago("--older", older), ago("--newer", newer)
    if least is not None and most is not None and most <= least:
        raise ConfigurationError("nothing is both --older and --newer than that: the first must be the shorter time")
    return Selection(task, error, tuple(ids or ()), least, most)
