"""What happened to jobs, as it was written down by all that had a part in it, and whether it was right.

Each line is a JSON object with ``what``, ``at`` (``time.monotonic()``, which all processes share) and ``pid``:

- producers: ``enqueued`` with job and n, once enqueue has returned (``may_poison`` if the poison queue is a good end;
  ``bundled`` if its message may carry others),
  ``uncertain`` with job, ``enqueueing`` with n by those that may be killed, ``replayed`` with job;
- handlers: ``start``, ``end`` and others with job, n, attempt, message;
- the worker: ``settled`` with as, job, attempt, message (null if no handler was called); ``stuck``;
- the killer: ``kill`` with pid and signal, before it sends it; who waits for a process: ``died`` or ``exited``;
- the fault proxy: ``fault`` with action, operation, queue, message.

After a full drain a job is *lost* if it was accepted, and neither was done nor is in the poison queue or the queue. It
is *unexpected* if it was executed or poisoned though nobody enqueued it. explanations.py says which second executions
are explained. An attempt's number is right if it is one more than that of an attempt that was retried, or the same as
that of one that was released or snoozed; it may be more only where a delivery may have been lost unseen.
"""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from explanations import REAPPEARS, Causes, Execution, Line
from history_lines import append, now

_SHOWN: Final = 10
"""Jobs of each kind that an error shows in full."""
_DONE: Final = frozenset({"succeeded", "expired"})
_FINAL: Final = _DONE | {"poisoned"}


@dataclass
class History:
    """A file of lines."""

    file: Path

    def note(self, what: str, **fields: Any) -> None:
        """Append a line."""
        append(self.file, {"what": what} | now() | fields)

    def note_all(self, lines: Iterable[Line]) -> None:
        """Append several lines."""
        append(self.file, *(now() | line for line in lines))

    def read(self) -> list[Line]:
        """Return all lines; the last may be under way, or torn, and is left out then."""
        if not self.file.exists():
            return []
        complete = self.file.read_bytes().rpartition(b"\n")[0]
        lines: list[Line] = json.loads(b"[" + b",".join(complete.splitlines()) + b"]")
        return lines

    def lines(self, what: str = "start") -> list[Line]:
        return [line for line in self.read() if line["what"] == what]

    def count(self, what: str = "start") -> Counter[int]:
        return Counter(line["n"] for line in self.lines(what))


@dataclass(frozen=True, slots=True)
class Recovery:
    """An execution that repeats an earlier one, for a reason."""

    job: str
    reason: str
    seconds: float
    """From what made it necessary to its start."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the history comes to."""

    lost: frozenset[str] = frozenset()
    unexpected: frozenset[str] = frozenset()
    unexplained: frozenset[str] = frozenset()
    """Jobs with an execution that repeats another for no reason."""
    wrong_attempts: frozenset[str] = frozenset()
    poisoned: frozenset[str] = frozenset()
    poisoned_unasked: frozenset[str] = frozenset()
    recovered: tuple[Recovery, ...] = ()
    executions: Counter[str] = field(default_factory=Counter)
    """By job."""
    lines: Mapping[str, list[Line]] = field(default_factory=dict, repr=False)
    """By job."""

    @property
    def slowest_recovery(self) -> float:
        """Seconds from a kill, a death or a stop to the next start of a job that ran there; 0 if there was none."""
        ends = {"killed", "died", "stopped", "stuck"}
        return max((again.seconds for again in self.recovered if again.reason in ends), default=0.0)

    @property
    def reasons(self) -> Counter[str]:
        """How many second executions each reason explains."""
        return Counter(again.reason for again in self.recovered)

    def assert_clean(self, poisoned: int = 0) -> None:
        """Fail if anything is wrong; so many jobs must be in the poison queue besides those that may be."""
        problems = [
            *self._problem("lost", self.lost),
            *self._problem("executed or poisoned, but never enqueued", self.unexpected),
            *self._problem("executed again without a reason", self.unexplained),
            *self._problem("counted its attempts wrongly", self.wrong_attempts),
        ]
        if poisoned != len(self.poisoned_unasked):
            problems.append(f"{len(self.poisoned_unasked)} jobs were poisoned unasked, not {poisoned}")
            problems += self._problem("poisoned unasked", self.poisoned_unasked)
        assert not problems, "\n".join(problems)

    def _problem(self, what: str, jobs: frozenset[str]) -> Iterator[str]:
        if len(jobs) > _SHOWN:
            yield f"{len(jobs)} jobs, of which {_SHOWN} follow: {what}"
        for job in sorted(jobs)[:_SHOWN]:
            lines = sorted(self.lines.get(job, ()), key=_at)
            yield "\n    ".join([f"job {job}: {what}", *map(json.dumps, lines)])


def check(
    lines: Iterable[Line],
    *,
    poisoned: Collection[str] = (),
    remaining: Collection[str] = (),
    may_poison: Collection[str] = (),
) -> Verdict:
    """Judge a history, given the jobs that are in the poison queue and those that are still in the queue."""
    lines = sorted(lines, key=_at)
    causes = Causes(lines)
    by_job: defaultdict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if "job" in line:
            by_job[line["job"]].append(line)
    expected_n = {line["n"] for line in lines if line["what"] == "enqueueing"}
    jobs = {job: _JobHistory(job, lines_of, causes) for job, lines_of in by_job.items()}
    asked = {*may_poison, *(job for job, it in jobs.items() if it.may_poison)}
    known = {job for job, it in jobs.items() if it.enqueued or it.uncertain or expected_n & it.ns}
    ended = {job for job, it in jobs.items() if it.done} | {*poisoned, *remaining}
    seen = {job for job, it in jobs.items() if it.executions or it.settled}
    accepted = seen | {job for job, it in jobs.items() if it.enqueued}
    return Verdict(
        lost=frozenset(accepted - ended),
        unexpected=frozenset((seen | {*poisoned}) - known),
        unexplained=frozenset(job for job, it in jobs.items() if it.unexplained),
        wrong_attempts=frozenset(job for job, it in jobs.items() if it.wrong_attempts),
        poisoned=frozenset(poisoned),
        poisoned_unasked=frozenset({*poisoned} - asked),
        recovered=tuple(again for it in jobs.values() for again in it.recovered),
        executions=Counter({job: len(it.executions) for job, it in jobs.items() if it.executions}),
        lines=by_job,
    )


class _JobHistory:
    """The lines of one job, sorted by time, made into executions."""

    def __init__(self, job: str, lines: list[Line], causes: Causes) -> None:
        self.job = job
        self.executions: list[Execution] = []
        self.settled: list[Line] = []
        self.enqueued = self.uncertain = self.replayed = self.done = self.may_poison = self.bundled = False
        self.ns: set[Any] = set()
        self._put_by: list[float] = []
        """When an enqueue of it returned."""
        self._never_started: list[Line] = []
        """What became of deliveries whose handler was never called."""
        self._causes = causes
        for line in lines:
            self._add(line)
        self.unexplained = 0
        self.wrong_attempts = 0
        self.recovered: list[Recovery] = []
        self._judge()

    def _add(self, line: Line) -> None:
        match line["what"]:
            case "start":
                pids = (line["pid"], line["worker"]) if "worker" in line else (line["pid"],)
                self.ns.add(line.get("n"))
                self.executions.append(
                    Execution(self.job, line["attempt"], pids, line["at"], line.get("message"), line.get("bundle")),
                )
            case "end":
                self.done = True
            case "settled":
                self._settle(line)
            case "stuck":
                for execution in self._unsettled(line):
                    execution.stuck = True
            case "enqueued":
                self.enqueued = True
                self._put_by.append(line["at"])
                self.may_poison = self.may_poison or line.get("may_poison", False)
                self.bundled = self.bundled or line.get("bundled", False)
            case "uncertain":
                self.uncertain = True
                self._put_by.append(line["at"])
            case "replayed":
                self.replayed = True

    def _settle(self, line: Line) -> None:
        self.settled.append(line)
        self.done = self.done or line["as"] in _DONE
        execution = next(self._unsettled(line), None)
        if execution is None:
            self._never_started.append(line)
        else:
            execution.settled = line

    def _unsettled(self, line: Line) -> Iterator[Execution]:
        return (
            execution
            for execution in self.executions
            if execution.settled is None
            and line["pid"] in execution.pids
            and line["attempt"] == execution.attempt
            and (execution.message is None or execution.message == line.get("message", execution.message))
        )

    def _judge(self) -> None:
        if not self.executions:
            return
        chains = self._chains()
        for chain in chains:
            self._judge_first(chain[0], copy=chain is not chains[0])
            for first, second in itertools.pairwise(chain):
                self._judge_next(first, second)

    def _chains(self) -> list[list[Execution]]:
        """Sort executions by message, if it is known of each."""
        chains: defaultdict[str | None, list[Execution]] = defaultdict(list)
        known = all(execution.message for execution in self.executions)
        for execution in self.executions:
            chains[execution.message if known else None].append(execution)
        return list(chains.values())

    def _judge_first(self, execution: Execution, *, copy: bool) -> None:
        if copy and not self._copied():
            self.unexplained += 1
        elif copy:
            self.recovered.append(Recovery(self.job, "copy", 0.0))
        refused = sum(line["as"] == "retried" and line["at"] <= execution.at for line in self._never_started)
        more = execution.attempt > 1 + refused and not self._delivery_lost(float("-inf"), execution.at)
        if execution.attempt < 1 or more:
            self.wrong_attempts += 1

    def _judge_next(self, first: Execution, second: Execution) -> None:
        explanation = self._causes.explain(first, second, over=self._over_between(first, second))
        if explanation is None:
            if (second.message is None or second.message != first.message) and self._copied():
                self.recovered.append(Recovery(self.job, "copy", 0.0))
            else:
                self.unexplained += 1
            return
        if explanation.reason != "next attempt":
            since = self._since(explanation.since, first, second)
            self.recovered.append(Recovery(self.job, explanation.reason, max(second.at - since, 0.0)))
        self._check_number(first, second)

    def _over_between(self, first: Execution, second: Execution) -> bool:
        """Say whether a delivery whose handler was not called ended it; of copies, nobody knows which."""
        final = (line["at"] for line in self._never_started if line["as"] in _FINAL)
        if not any(first.at <= at <= second.at for at in final):
            return False
        return not (self._copied() or self._causes.may_be_copied(self._put_by))

    def _copied(self) -> bool:
        messages = {execution.message for execution in self.executions if execution.message}
        by_broker = self._causes.explain_copy(messages, self._put_by)
        return self.uncertain or self.replayed or by_broker or self._bundle_broken()

    def _bundle_broken(self) -> bool:
        """Say whether a worker may have ended that had this job's bundle, and had put the job into another message."""
        if any(execution.bundle and self._causes.ended(execution) for execution in self.executions):
            return True
        return self.bundled and self._causes.disturbed(self._put_by[0], self.executions[-1].at)

    def _check_number(self, first: Execution, second: Execution) -> None:
        """A delivery that ended unsettled may have been a release that was applied: then its number comes again."""
        between = (line for line in self._never_started if first.at <= line["at"] <= second.at)
        refused = sum(line["as"] == "retried" for line in between)
        least = first.attempt + (first.settled_as == "retried") + refused
        exact = first.settled_as in REAPPEARS
        more = second.attempt > least and exact and not self._delivery_lost(first.at, second.at)
        if second.attempt < least or more:
            self.wrong_attempts += 1

    def _delivery_lost(self, after: float, before: float) -> bool:
        return self._causes.disturbed(after, before) or any(
            line["as"] in {"lost", "failed"} and after <= line["at"] <= before for line in self._never_started
        )

    def _since(self, since: float, first: Execution, second: Execution) -> float:
        """Leave out the time in which another worker had the message, and gave it back or ended before it started."""
        given_back = [line["at"] for line in self._never_started if first.at <= line["at"] <= second.at]
        if second.attempt > first.attempt + 1:
            given_back.append(self._causes.last_disturbance(second.at))
        return max(since, *given_back) if given_back else since


def _at(line: Line) -> float:
    at: float = line["at"]
    return at
