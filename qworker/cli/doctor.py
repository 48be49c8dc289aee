"""qworker doctor: checks whether a worker could do its work here, and names the remedies."""

from typing import Annotated, Any

import typer

from qworker._exits import FAILED
from qworker.brokers.base import Broker
from qworker.cli.shared.asking import ask, shared_broker
from qworker.cli.shared.hiding import without_secrets
from qworker.cli.shared.load import load_app, wanted_queues
from qworker.cli.shared.options import AppArgument, AppOption, BrokerOption, JsonOption, one_app
from qworker.cli.shared.pipes import say
from qworker.cli.shared.tables import Column, print_json, print_table
from qworker.operate.doctor.checkup import Plan, check_up
from qworker.operate.doctor.findings import Finding
from qworker.operate.words import NONE, counted
from qworker.settings import Settings


def doctor(
    named: AppArgument = None,
    *,
    app: AppOption = None,
    broker: BrokerOption = None,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", "-q", metavar="NAME", help="A queue to check. May be repeated. [default: the app's]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check whether a worker could do its work here, and name the remedies.

    It checks the broker, the rights, the clock, the protocol, the contents of the queues, round trips, and the cost of
    polling. It changes nothing. Without an app and without a queue, it checks all queues. The exit code is 1 if a check
    failed.
    """
    found, settings = shared_broker(one_app(named, app), broker, create=True)
    plan = _plan(found, settings, queue or [])
    findings = ask(found, lambda: check_up(found, plan))
    failed = sum(each.verdict == "failed" for each in findings)
    if as_json:
        print_json({"broker": found.label, "ok": not failed, "checks": [_as_json(each) for each in findings]})
    else:
        columns = Column("CHECK"), Column("QUEUE", gives_way=True), Column("RESULT"), Column("FOUND", wraps=True)
        print_table(columns, map(_row, findings))
        warnings = sum(each.verdict == "warning" for each in findings)
        say(f"{counted(len(findings), 'check')}: {failed} failed, {counted(warnings, 'warning')}")
    raise typer.Exit(FAILED if failed else 0)


def _plan(broker: Broker, settings: Settings, queues: list[str]) -> Plan:
    app = None if settings.app is None else load_app(settings.app)
    return Plan(
        queues=wanted_queues(settings, queues),
        encoding=settings.encoding if app is None else app.encoding,
        processes=settings.processes,
        poll_max=settings.poll_max or broker.poll_max,
        counts=settings.health_port is not None,
    )


def _row(finding: Finding) -> tuple[str, ...]:
    found = f"{finding.found}. {finding.todo[0].upper()}{finding.todo[1:]}" if finding.todo else finding.found
    return finding.check, without_secrets(finding.queue or NONE), finding.verdict, without_secrets(found)


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "queue": finding.queue and without_secrets(finding.queue),
        "result": finding.verdict,
        "found": without_secrets(finding.found),
        "todo": finding.todo or None,
        "figures": dict(finding.figures),
    }
