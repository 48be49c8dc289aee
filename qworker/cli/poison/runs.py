"""Shows a pass over a poison queue: a bar, an end in one line, and the findings of a dry run."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from qworker.cli.shared.asking import Interrupted
from qworker.cli.shared.pipes import print_text, say, tell
from qworker.cli.shared.progress import progress_bar
from qworker.cli.shared.tables import Column, as_json_text, print_json, print_table
from qworker.operate.words import NONE, counted
from qworker.poison.selection import GivenUp
from qworker.poison.sweep import Progress, Told


@dataclass(slots=True)
class Run:
    """One pass."""

    queue: str
    what: str
    """The change to a job, as in "put back into mail"."""
    limit: int | None
    """The number of jobs after which it ends."""
    takes_all: bool
    """Whether every job that it looks at is meant."""
    progress: Progress = field(default_factory=lambda: Progress(0))

    @contextmanager
    def shown(self) -> Iterator[Told]:
        """Show a bar meanwhile. Raises Interrupted if Ctrl-C ends it."""
        try:
            with progress_bar(f"{self.queue}-poison") as show:

                def told(progress: Progress) -> None:
                    self.progress = progress
                    total = progress.there
                    if self.takes_all and self.limit is not None:
                        total = min(total, self.limit)
                    show(progress.looked_at, total, f"{progress.done} {self.what}")

                yield told
        except KeyboardInterrupt:
            rest = f"the others are still in {self.queue}-poison"
            raise Interrupted(f"interrupted: {self.done_in_words()}, {rest}") from None

    def done_in_words(self) -> str:
        """Return "3 jobs put back into mail", and a note on their ttl if some have one."""
        of_ttl = f"; the ttl of {anew} counts anew" if (anew := self.progress.ttl_anew) else ""
        return f"{counted(self.progress.done, 'job')} {self.what}{of_ttl}"

    def rest(self) -> int | None:
        """Return how many jobs there may still be of the limit; None if there is none."""
        return None if self.limit is None else max(0, self.limit - self.progress.done)

    def print_end(self, *, as_json: bool) -> None:
        """Print the result, and report the messages that could not be looked at."""
        if as_json:
            tell(as_json_text(self._as_json() | {"ttl_anew": self.progress.ttl_anew}))
        else:
            tell(self.done_in_words())
        self._say_what_was_hidden()

    def print_dry(self, found: "Found", *, as_json: bool) -> None:
        """Print the changes that a run would make."""
        groups = sorted(found.jobs.items(), key=lambda group: (-group[1], group[0]))
        if as_json:
            listed = [{"task": task, "error": error, "jobs": jobs} for (task, error), jobs in groups]
            print_json(self._as_json() | {"dry_run": True, "found": listed})
        else:
            if groups:
                columns = Column("JOBS", right=True), Column("TASK", gives_way=True), Column("ERROR", gives_way=True)
                print_table(columns, ((str(jobs), task, error) for (task, error), jobs in groups))
            print_text(f"{counted(self.progress.done, 'job')} would be {self.what}\n")
        self._say_what_was_hidden()

    def _as_json(self) -> dict[str, Any]:
        progress = self.progress
        return {"queue": self.queue, "jobs": progress.done, "looked_at": progress.looked_at, "left": progress.left}

    def _say_what_was_hidden(self) -> None:
        if (left := self.progress.left) > 0:
            what = counted(left, "message")
            say(f"{what} left in {self.queue}-poison that can't be put back; {self.progress.why_left}")
        hidden = self.progress.there - self.progress.looked_at
        enough = self.limit is not None and self.progress.done >= self.limit
        if hidden > 0 and not enough:
            say(f"about {hidden} more could not be looked at: another command holds them, or was killed a moment ago")


class Found:
    """The jobs that a dry run found."""

    def __init__(self) -> None:
        self.jobs: Counter[tuple[str, str]] = Counter()
        """The number of jobs for each task and error."""

    def add(self, given_up: GivenUp) -> None:
        """Count one."""
        error = given_up.problem or NONE if given_up.record is None else given_up.record.failure.type
        self.jobs[given_up.task or NONE, error] += 1
