"""Gives commands on queues a broker, an answer, and a person's consent."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from qworker.brokers.base import Broker
from qworker.cli.shared.load import load_broker
from qworker.errors import ConfigurationError
from qworker.operate.missing import NotFound
from qworker.settings import Settings

T = TypeVar("T")


class Interrupted(Exception):
    """Ctrl-C ended the command; the text says in one line how far it came."""


class Refused(Exception):
    """Nothing was done, because a person said no."""


def shared_broker(app: str | None, url: str | None, *, create: bool = False) -> tuple[Broker, Settings]:
    """Return the broker that a command is about, and the settings.

    Raises ConfigurationError for one in memory, and NotFound for a file that is not there yet, unless it is to *create*
    something: a look from the wrong directory should not leave a file behind.
    """
    settings = Settings.load({"app": app})
    broker = load_broker(url, settings)
    check_lasting(broker)
    if not create and not broker.exists():
        raise NotFound(f"{broker.label} does not exist yet: is this the right directory, and is QWORKER_BROKER set?")
    return broker, settings


def check_lasting(broker: Broker) -> None:
    """Raise ConfigurationError for a broker that a command can neither leave anything in nor find anything in."""
    if not broker.shared:
        raise ConfigurationError(
            f"{broker.label}: a broker in memory is gone when this command ends: use a file, as in sqlite:///jobs.db"
        )


def ask(broker: Broker, question: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine that asks the broker, and close its connections. Raises KeyboardInterrupt for Ctrl-C."""

    async def answered() -> T:
        try:
            return await question()
        finally:
            await broker.aclose()

    return asyncio.run(answered())


def confirm(what: str, *, yes: bool) -> None:
    """Return if a person agrees to *what*, or has said so before. Raises Refused, or ConfigurationError.

    Where no terminal is there to ask on, that is an error: silence is no consent.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigurationError(f"{what}? There is no terminal to ask on, and nothing was done: use --yes")
    typer.echo(f"{what}? [y/N] ", nl=False, err=True)  # standard output is for the results
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Refused("nothing was done")
