"""Many jobs from lines: batch by batch, so that it can be said at any time which of them are enqueued."""

import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from qworker._exits import BAD_INPUT, FAILED, UNUSABLE
from qworker.app import App
from qworker.cli.enqueue.job_lines import BadLine, Batch, Group, Options
from qworker.cli.enqueue.line_numbers import LineNumbers
from qworker.cli.enqueue.lines import EndlessLine, Line
from qworker.cli.shared.stopping import Stopped, Stopping
from qworker.errors import BrokerUnusable, EnqueueUncertain, PartlyEnqueued, QworkerError

BATCH: Final = 1000
"""Lines that are held at once, and asked of the broker at once."""
_BATCH_BYTES: Final = 8 << 20


class Unreported(Exception):
    """A bad line that nobody could be told of."""


class View(Protocol):
    """Shows a user the progress."""

    def bad_line(self, number: int, problem: str) -> None:
        """Show the problem of a line. Raises Unreported."""

    def enqueued(self, jobs: int) -> None:
        """Show how many jobs are enqueued by now."""


@dataclass
class Bulk:
    """Enqueues the jobs of lines, and knows which are enqueued."""

    app: App
    view: View
    stopping: Stopping
    defaults: Options = field(default_factory=Options)
    start: int = 1
    """The first line to be enqueued."""
    skip: LineNumbers = field(default_factory=LineNumbers)
    """Lines that are enqueued already."""
    strict: bool = False
    """Whether a bad line ends it."""

    def __post_init__(self) -> None:
        """Begin before the first line."""
        self.began = time.monotonic()
        self.jobs = 0
        self.bad_lines = 0
        self._next = self.start
        """The first line that it has not looked at, or could not enqueue."""
        self._batch = Batch()
        self._uncertain = LineNumbers()

    def run(self, lines: Iterable[Line | None]) -> None:
        """Enqueue all; None among the lines says that the next has to be waited for. Raises Stopped."""
        try:
            for line in lines:
                if line is None:
                    self._put()
                elif line.number >= self.start:
                    self._take(line)
                if self.stopping.asked is not None:
                    raise KeyboardInterrupt  # noqa: TRY301 — a second signal raises it anywhere
            self._put()
        except KeyboardInterrupt:
            number = self.stopping.asked or signal.SIGINT
            raise self._stopped("interrupted", 128 + number) from None
        except Unreported:  # if nobody reads of bad lines, nothing more is done
            raise self._stopped("standard error is closed, so bad lines can't be reported", FAILED) from None
        except EndlessLine as error:
            raise self._stopped(f"{error}: the input is not lines of JSON", BAD_INPUT) from None
        except OSError as error:
            raise self._stopped(f"line {self._next} can't be read: {error.strerror}", FAILED) from None

    def counted(self) -> str:
        """Return the number of enqueued jobs, the time taken, and the number of bad lines, in words."""
        text = f"{_many(self.jobs, 'job')} enqueued in {time.monotonic() - self.began:.1f} s"
        return text + (f", {_many(self.bad_lines, 'bad line')}" if self.bad_lines else "")

    def way_on(self) -> str:
        """Say how to enqueue the rest: all before --start-line is enqueued, and of what follows, --skip-lines."""
        left = [number for group in self._batch.groups.values() for number in group.lines]
        first = min([self._next, *left])
        skip = self.skip.after(first)
        text = f"go on with --start-line {first}{f' --skip-lines {skip}' if skip else ''}"
        if self._uncertain:
            text += f"; the broker did not answer for these lines, which may be enqueued already: {self._uncertain}"
        return text

    def _take(self, line: Line) -> None:
        if line.number not in self.skip and (line.data is None or line.data.strip()):
            try:
                self._batch.add(line, self.app, self.defaults)
            except BadLine as bad:
                self._refuse(line.number, str(bad))
        self._next = line.number + 1
        if len(self._batch) == BATCH or self._batch.bytes > _BATCH_BYTES:
            self._put()

    def _refuse(self, number: int, problem: str) -> None:
        if self.strict:
            self._put()
            raise self._stopped(f"line {number}: {problem}", BAD_INPUT)
        self.bad_lines += 1
        self.view.bad_line(number, problem)

    def _put(self) -> None:
        """Enqueue the jobs read so far, a group at a time; jobs that can't be enqueued stay in the batch."""
        groups = self._batch.groups
        for options in tuple(groups):
            self._put_group(groups[options])
            del groups[options]
        self._batch = Batch()
        self.skip = self.skip.after(self._next - 1)
        self.view.enqueued(self.jobs)

    def _put_group(self, group: Group) -> None:
        ids = {job.id: number for job, number in zip(group.jobs, group.lines, strict=True)}
        try:
            group.producer.send_made(group.jobs)
        except PartlyEnqueued as error:
            self._keep(group, [ids[job] for job in error.accepted], [ids[job] for job in error.uncertain])
            raise self._failed(error.__cause__ or error) from None
        except EnqueueUncertain as error:
            self._keep(group, [], group.lines)
            raise self._failed(error) from None
        except KeyboardInterrupt:
            self._keep(group, [], group.lines)
            raise
        except QworkerError as error:
            raise self._failed(error) from None
        self._count(group.lines)

    def _keep(self, group: Group, accepted: list[int], uncertain: list[int]) -> None:
        """Keep in the batch only the jobs that are not known to be enqueued."""
        self._count(accepted)
        self._uncertain = LineNumbers.of(uncertain)
        group.lines = sorted(set(group.lines).difference(accepted))

    def _count(self, accepted: list[int]) -> None:
        self.jobs += len(accepted)
        self.skip |= LineNumbers.of(accepted)

    def _failed(self, error: BaseException) -> Stopped:
        return self._stopped(str(error), UNUSABLE if isinstance(error, BrokerUnusable) else FAILED)

    def _stopped(self, reason: str, exit_code: int) -> Stopped:
        return Stopped(f"{reason}; {self.counted()}: {self.way_on()}", exit_code)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
