"""Several worker processes as one target, for their supervisor."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from qworker.observe.health.reports import REPORT_FD, Report, Samples, unpack
from qworker.observe.health.seldom import Seldom

if TYPE_CHECKING:  # an extra
    from qworker.observe.metrics import Metrics

_SILENT: Final = 30.0
"""Seconds without a report after which a process is taken for stuck; one comes every second."""
_LONGEST: Final = 4 << 20
"""Bytes of one report: a hundred times as many as those of a hundred tasks take."""
_LAST_READS: Final = 64
"""Reads of what a process left that has ended: more than a pipe holds."""
_STARTING: Final = 120.0
"""Seconds that a process may take to its first report."""


class Fleet:
    """What worker processes reported; used on the supervisor's event loop only.

    What a process has counted outlives it: a counter never goes back.
    """

    def __init__(self, metrics: "Metrics | None", monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take the supervisor's own metrics, None if there can't be any."""
        self._metrics = metrics
        self.monotonic = monotonic
        self._lines: set[Line] = set()
        self._of_the_dead: Samples = {}

    def open_line(self) -> "Line":
        """Return what a new process is to report through."""
        line = Line(self)
        self._lines.add(line)
        return line

    def retire(self, line: "Line") -> None:
        """Keep what a process that has ended had counted, and forget the rest."""
        self._lines.discard(line)
        if self._metrics is None:
            return
        from qworker.observe.health.samples import gauges_of  # noqa: PLC0415 — an extra

        gauges = gauges_of(self._metrics.registry)
        for key, value in line.samples.items():
            if key[0] not in gauges:
                self._of_the_dead[key] = self._of_the_dead.get(key, 0.0) + value

    def live(self) -> str | None:
        """Return why the whole should be restarted; a process that ends is replaced anyway, one that is stuck isn't."""
        return next((reason for line in self._lines if (reason := line.live()) is not None), None)

    def ready(self) -> str | None:
        """Return why the work isn't done: no process is there, or one of those that are can't do its own."""
        reports = [(line, line.report) for line in self._lines if line.report is not None]
        if not reports:
            return "no worker process has started yet"
        reasons = (line.named(report.ready) for line, report in reports if report.ready is not None)
        return next(reasons, None) or self.live()

    def metrics(self, accept: str) -> tuple[bytes, str] | None:
        """Return the sum of all processes, those that have ended too."""
        if self._metrics is None:
            return None
        from qworker.observe.health.samples import text_of_all  # noqa: PLC0415 — an extra

        others = (self._of_the_dead, *(line.samples for line in self._lines))
        return text_of_all(self._metrics.registry, others, accept)


class Line:
    """The pipe that one process reports through, and what it said."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._read_fd, self._write_fd = os.pipe()
        if sys.platform != "win32":  # where there is no supervisor to read it
            os.set_blocking(self._read_fd, False)
        self._unfinished = b""
        self._odd = Seldom("a worker process reported what is no report")
        self._pid: int | None = None
        self._heard_at = fleet.monotonic()
        self.report: Report | None = None
        """The last one."""
        self.samples: Samples = {}

    @property
    def fds(self) -> tuple[int, ...]:
        """The file descriptors that the process is to have."""
        return (self._write_fd,)

    @property
    def environment(self) -> Mapping[str, str]:
        """What tells the process of them."""
        return {REPORT_FD: str(self._write_fd)}

    def started(self, pid: int) -> None:
        """Begin to listen to the process.

        Its end of the pipe stays open here too: what reads would otherwise be told of the end again and again.
        """
        self._pid = pid
        asyncio.get_running_loop().add_reader(self._read_fd, self._read)

    def close(self) -> None:
        """Hear the rest of what it said: it has ended, or could not be started."""
        for _ in range(_LAST_READS):
            if not self._read():
                break
        asyncio.get_running_loop().remove_reader(self._read_fd)
        for fd in (self._read_fd, self._write_fd):
            os.close(fd)
        self._fleet.retire(self)

    def live(self) -> str | None:
        """Return why it should be restarted."""
        silent = self._fleet.monotonic() - self._heard_at
        if self.report is None:
            return self.named(f"nothing was heard since its start, {silent:.0f} s ago") if silent > _STARTING else None
        if silent > _SILENT:
            return self.named(f"nothing was heard for {silent:.0f} s")
        return None if self.report.live is None else self.named(self.report.live)

    def named(self, reason: str) -> str:
        """Return a reason with the process that has it."""
        return f"worker {self._pid}: {reason}"

    def _read(self) -> bool:
        """Take some of what is there, so that no process has the event loop for itself; return whether anything was."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._read_fd, 65_536)
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._unfinished) > _LONGEST:
            self._unfinished = b""  # the rest of it will be no report
            self._odd.note(self.named("a line too long"))
        return bool(data)

    def _take(self, line: bytes) -> None:
        try:
            report = unpack(line)
        except (ValueError, TypeError, RecursionError) as error:
            self._odd.note(self.named(type(error).__name__))
            return
        self.report = report
        self._heard_at = self._fleet.monotonic()
        self.samples.update(report.samples)
        for key in report.gone:
            self.samples.pop(key, None)
