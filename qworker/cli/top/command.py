"""qworker top: queues, workers, tasks and failures, as they change."""

import asyncio
import sys
from collections import deque
from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from qworker._distribution import install
from qworker.cli.shared.asking import ask, shared_broker
from qworker.cli.shared.load import wanted_queues
from qworker.cli.shared.options import AppArgument, AppOption, BrokerOption, one_app
from qworker.cli.shared.tables import print_whole
from qworker.cli.top.screen import ENDING_KEY, watching_keys
from qworker.cli.top.view import View
from qworker.errors import ConfigurationError
from qworker.operate.top.model import Look, picture, recent
from qworker.operate.top.sources import Sources
from qworker.settings import parse_seconds

if TYPE_CHECKING:
    from qworker.operate.top.scrape import Endpoint

T = TypeVar("T")


def top(  # noqa: PLR0913 — one parameter an option
    named: AppArgument = None,
    *,
    app: AppOption = None,
    broker: BrokerOption = None,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", "-q", metavar="NAME", help="A queue to show. May be repeated. [default: the app's]"),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="URL", help="http://HOST:PORT of a worker with --health-port. May be repeated."),
    ] = None,
    interval: Annotated[str, typer.Option("--interval", "-n", metavar="TIME", help="Time between two looks.")] = "2s",
    once: Annotated[bool, typer.Option("--once", help="Print one picture, after two looks, and exit.")] = False,
) -> None:
    """Show queues, workers, tasks and recent failures until you press q or Ctrl-C.

    It asks the broker for queues and failures, and the metrics that workers serve for workers and tasks. Without an app
    and without a queue, it shows all queues.
    """
    if not once and not sys.stdout.isatty():
        raise ConfigurationError("standard output is not a terminal: --once prints one picture")
    seconds = parse_seconds("--interval", interval) or 0.0
    if not seconds:
        raise ConfigurationError("--interval: must be more than 0")
    endpoints = _endpoints(source or [])
    found, settings = shared_broker(one_app(named, app), broker, create=True)
    sources = Sources(found, wanted_queues(settings, queue or []), endpoints)
    screen = _Pictures(found.label, sources, seconds)
    ask(found, screen.print_one if once else screen.keep_showing)


class _Pictures:
    """Collects the looks until now, and shows a picture of them."""

    def __init__(self, label: str, sources: Sources, interval: float) -> None:
        self._label = label
        self._sources = sources
        self._interval = interval
        self._looks: deque[Look] = deque()

    async def print_one(self) -> None:
        """Print a picture after two looks: one look alone has no rates."""
        await self._look()
        await asyncio.sleep(self._interval)
        await self._look()
        print_whole(self._view(None))

    async def keep_showing(self) -> None:
        """Show pictures on the terminal until somebody wants to end it."""
        from rich.console import Console  # noqa: PLC0415 — see above
        from rich.live import Live  # noqa: PLC0415 — the same

        console = Console()
        quit_asked, resized = asyncio.Event(), asyncio.Event()
        with watching_keys(quit_asked, resized), Live(console=console, screen=True, auto_refresh=False) as live:
            while not quit_asked.is_set():
                live.update(self._view(console.height), refresh=True)
                if await _unless(quit_asked, self._look()):
                    resized.clear()
                    live.update(self._view(console.height), refresh=True)
                    await _unless(quit_asked, _until(resized, self._interval))

    async def _look(self) -> None:

        look = await self._sources.look()
        self._looks = deque(recent([*self._looks, look], look.at))

    def _view(self, height: int | None) -> View:

        keys = "" if height is None else f"  every {self._interval:g}s, {ENDING_KEY} ends it"
        title = f"qworker top  {datetime.now().astimezone():%H:%M:%S}{keys}  {self._label}"
        return View(title, picture(self._looks) if self._looks else None, height)


def _endpoints(urls: list[str]) -> "list[Endpoint]":
    if not urls:
        return []
    try:
        from qworker.operate.top.scrape import Endpoint  # noqa: PLC0415 — an extra
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise ConfigurationError(f"--from takes prometheus-client: {install('metrics')}") from None
    return [Endpoint(url) for url in dict.fromkeys(urls)]


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Work, unless an event comes before it is done; return whether it was done."""
    working, coming = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait([working, coming], return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        coming.cancel()
        ended = await asyncio.gather(working, coming, return_exceptions=True)
    if isinstance(ended[0], Exception):
        raise ended[0]
    return ended[0] is None


async def _until(event: asyncio.Event, seconds: float) -> None:
    """Wait so many seconds, or until an event."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
