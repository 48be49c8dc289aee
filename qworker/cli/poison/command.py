"""qworker poison: lists, shows, replays and purges jobs that were given up."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated

import typer

from qworker._queue_names import POISON_SUFFIX, check_task_queue
from qworker.brokers.base import Broker
from qworker.cli.poison.runs import Found, Run
from qworker.cli.shared.asking import ask, confirm, shared_broker
from qworker.cli.shared.options import HELP, AppOption, ArgsOption, BrokerOption, JsonOption, YesOption, show_help_alone
from qworker.cli.shared.pipes import print_text, say
from qworker.cli.shared.tables import Column, print_block, print_json, print_table
from qworker.errors import ConfigurationError
from qworker.operate import given_up as views
from qworker.operate.words import NONE, age, counted
from qworker.poison.purge import look_through, purge
from qworker.poison.replay import replay
from qworker.poison.selection import Selection
from qworker.poison.sweep import Pass
from qworker.settings import parse_seconds

poison = typer.Typer(
    help="List, show, replay or purge jobs that were given up.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings=HELP,
)

_FROM = "The queue that the jobs came from, as in mail."
QueueArgument = Annotated[str | None, typer.Argument(metavar="[QUEUE]", help=f"{_FROM} [default: all]")]
QueueOption = Annotated[str | None, typer.Option("--queue", "-q", metavar="QUEUE", help=f"{_FROM} [default: any]")]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", metavar="NAME", help="Only jobs of this task; a pattern such as mail.* takes several."),
]
ErrorOption = Annotated[
    str | None,
    typer.Option("--error", metavar="TYPE", help="Only jobs with this error, as in ValueError or *Timeout*."),
]
OlderOption = Annotated[
    str | None, typer.Option("--older", metavar="TIME", help="Only jobs given up before that time: 90s, 5m or 1h ago.")
]
NewerOption = Annotated[
    str | None, typer.Option("--newer", metavar="TIME", help="Only jobs given up since that time, such as 1h ago.")
]
JobOption = Annotated[
    list[str] | None,
    typer.Option("--job", metavar="JOB", help="Only the job or message whose id begins like this. May be repeated."),
]
LimitOption = Annotated[int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="Stop after N jobs.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Count the jobs, and change nothing.")]


poison.callback()(show_help_alone)


@poison.command("list")
def list_(  # noqa: PLR0913 — one parameter an option
    queue: QueueArgument = None,
    *,
    task: TaskOption = None,
    error: ErrorOption = None,
    older: OlderOption = None,
    newer: NewerOption = None,
    job: JobOption = None,
    limit: LimitOption = None,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs that were given up.

    It can look at 32 jobs of each queue at a time, and says so if there are more.
    """
    selection, names = _selection(task, error, older, newer), tuple(job or ())
    name = None if queue is None else _checked(queue)
    found, _ = shared_broker(app, broker)
    looks = ask(found, lambda: views.look(found, name))
    fitting = [(look.queue, each) for look in looks for each in look.seen if selection.takes(each)]
    named = [(where, each) for where, each in fitting if not names or any(views.goes_by(n, each) for n in names)]
    meant = named[:limit]
    if as_json:
        print_json([views.as_json(name, each) for name, each in meant])
    elif meant:
        _print_list(meant, one_queue=queue is not None)
    else:
        where = f" in {queue}-poison" if queue else ""
        say(f"nothing{where}" if selection.takes_all and not names else f"no matching job was seen{where}")
    for look in looks:
        if more := look.hidden():
            say(more)


@poison.command()
def show(  # noqa: PLR0913 — one parameter an option
    sought: Annotated[
        str,
        typer.Argument(metavar="JOB", help="The id of the job or its message, or at least its first four characters."),
    ],
    *,
    queue: QueueOption = None,
    args: ArgsOption = False,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything about a job that was given up.

    If the job is not among the first 32 of a queue, the command leases all messages for a while, and other commands
    don't see them.
    """
    name = None if queue is None else _checked(queue)
    found, settings = shared_broker(app, broker)
    copies = ask(found, lambda: views.find(found, name, sought, settings.lease))
    if as_json:
        print_json([views.as_json(name, each, whole=True, private=args) for name, each in copies])
        return
    for number, (name, each) in enumerate(copies):
        if number:
            print_text("\n")
        print_block(views.block(name, each, private=args))


@poison.command("replay")
def replay_(  # noqa: PLR0913 — one parameter an option
    queue: QueueArgument = None,
    *,
    task: TaskOption = None,
    error: ErrorOption = None,
    older: OlderOption = None,
    newer: NewerOption = None,
    job: JobOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put jobs that were given up back into their queues.

    The jobs are like new then, with all their attempts. Jobs that are given up again meanwhile stay in the poison
    queue. The first Ctrl-C lets the current batch end. A kill leaves one or two copies of each job, never none. Other
    commands don't see the jobs that were not selected until this one ends.
    """
    queue = None if queue is None else _checked(queue)
    selection = _selection(task, error, older, newer)
    found, settings = shared_broker(app, broker)
    lease = settings.lease
    names, selection = _meant(found, queue, selection, job, lease)
    stuck = 0
    for name in names:
        run = Run(name, f"put back into {name}", limit, selection.takes_all)
        if dry_run:
            _look_only(run, found, selection, lease, as_json=as_json, replayable=True)
        else:
            with run.shown() as told:
                pass_over = partial(replay, found, name, Pass(selection=selection, limit=limit, lease=lease, told=told))
                ask(found, pass_over)
            run.print_end(as_json=as_json)
        stuck += 0 if dry_run else run.progress.left
        limit = run.rest()
        if limit == 0:
            break
    if stuck:
        raise typer.Exit(1)


@poison.command("purge")
def purge_(  # noqa: PLR0913 — one parameter an option
    queue: QueueArgument = None,
    *,
    task: TaskOption = None,
    error: ErrorOption = None,
    older: OlderOption = None,
    newer: NewerOption = None,
    job: JobOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    app: AppOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete jobs that were given up, for ever. Asks first.

    Other commands don't see the jobs that were not selected until this one ends.
    """
    queue = None if queue is None else _checked(queue)
    selection = _selection(task, error, older, newer)
    found, settings = shared_broker(app, broker)
    lease = settings.lease
    names, selection = _meant(found, queue, selection, job, lease)
    if not dry_run and names:
        there = sum(ask(found, found.queue(f"{name}-poison").count) for name in names)
        where = f"{names[0]}-poison" if len(names) == 1 else f"{len(names)} poison queues"
        whole = selection.takes_all and limit is None
        confirm(
            f"Delete {'all' if whole else 'the matching jobs'} of about {counted(there, 'job')} in {where}", yes=yes
        )
    for name in names:
        run = Run(name, "deleted", limit, selection.takes_all)
        if dry_run:
            _look_only(run, found, selection, lease, as_json=as_json)
        else:
            with run.shown() as told:
                pass_over = partial(purge, found, name, Pass(selection=selection, limit=limit, lease=lease, told=told))
                ask(found, pass_over)
            run.print_end(as_json=as_json)
        limit = run.rest()
        if limit == 0:
            break


def _look_only(  # noqa: PLR0913 — what the commands were given
    run: Run,
    broker: Broker,
    selection: Selection,
    lease: int,
    *,
    as_json: bool,
    replayable: bool = False,
) -> None:
    found, limit = Found(), run.limit
    with run.shown() as told:
        over = Pass(selection=selection, limit=limit, lease=lease, told=told)
        ask(broker, lambda: look_through(broker, run.queue, found.add, over, replayable=replayable))
    run.print_dry(found, as_json=as_json)


def _meant(
    broker: Broker, queue: str | None, selection: Selection, names: list[str] | None, lease: int
) -> tuple[list[str], Selection]:
    """Return the queues that are meant, and the selection with the whole ids of the jobs that are."""
    if queue is not None:
        queues = [queue]
    elif not (queues := sorted(ask(broker, lambda: views.queues_with_poison(broker)))):
        say("no job was given up")
    if not names:
        return queues, selection
    ids = ask(broker, lambda: views.whole_ids(broker, queue, names, lease))
    return queues, replace(selection, ids=tuple(ids))


def _checked(queue: str) -> str:
    """Return the name of the queue that jobs came from. Raises ConfigurationError."""
    if queue.endswith(POISON_SUFFIX):
        raise ConfigurationError(f"name the queue that the jobs came from: {queue.removesuffix(POISON_SUFFIX)}")
    return check_task_queue(queue)


def _selection(task: str | None, error: str | None, older: str | None, newer: str | None) -> Selection:
    def ago(option: str, text: str | None) -> timedelta | None:
        seconds = parse_seconds(option, text)
        return None if seconds is None else timedelta(seconds=seconds)

    least, most = ago("--older", older), ago("--newer", newer)
    if least is not None and most is not None and most <= least:
        raise ConfigurationError("no job matches both: --older must be a shorter time than --newer")
    return Selection(task, error, (), least, most)


def _print_list(jobs: Sequence[views.Named], *, one_queue: bool) -> None:
    """Print one line for each."""
    queue = [] if one_queue else [Column("QUEUE", gives_way=True)]
    columns = [Column("JOB", ids=True), *queue, Column("TASK", gives_way=True), Column("AGE", right=True)]
    rows = (
        [
            views.id_of(each),
            *([] if one_queue else [name]),
            each.task or NONE,
            age(each.at, each.seen_at),
            views.error_of(each),
        ]
        for name, each in jobs
    )
    print_table([*columns, Column("ERROR", gives_way=True)], rows)
