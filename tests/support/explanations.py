"""What may explain that a job was executed again: processes that ended, and answers that were lost.

An execution B that follows A of the same message is explained by what became of A:

- it was settled as retried, released or snoozed before B began: B is the next attempt;
- it lost its lease;
- it could not be settled ("failed"), and a fault struck an update, a delete or a put to the poison queue;
- it was never settled, and its process was killed, stopped or died after A began and before B did, or ended with A's
  handler stuck in it, or the answer to an update or delete of the message was lost;
- it was settled as succeeded, poisoned or expired, or another delivery was in between, and the answer to a delete of
  the message was lost.

A second message with the same job is a copy: explained if an answer to a put was lost, or the job was replayed.

An execution in a bundle is settled with the bundle: until that is deleted, or renewed without it, the end of its
process explains another whatever became of it; and one that had got a message of its own meanwhile may get a copy, also
when a worker ended that took its bundle apart.
"""

import signal
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

Line = dict[str, Any]

NOTICED_WITHIN: Final = 2.0
"""Seconds between a death and the line that tells of it; a process may also begin a job just after its killer wrote."""
REAPPEARS: Final = frozenset({"retried", "released", "snoozed"})
"""As what a message is settled that comes again."""
_FINAL: Final = frozenset({"succeeded", "expired", "poisoned"})
_GRACEFUL: Final = frozenset({0, signal.SIGTERM, signal.SIGINT, signal.SIGCONT})
_FROZEN: Final = frozenset({signal.SIGSTOP, signal.SIGTSTP})
_ANSWERED: Final = frozenset({"Answer", "Throttle", "Shuffle", "CloseAfterAnswer"})
"""Faults whose victim knows that its request wasn't applied, or has its answer."""
_PUT_TRIES: Final = 30.0
"""Seconds from a put whose answer was lost to the end of the enqueue that it belongs to, at most."""


@dataclass(slots=True)
class Execution:
    """One start of a job's handler."""

    job: str
    attempt: int
    pids: tuple[int, ...]
    """Its process, and the worker that this is a child of."""
    at: float
    message: str | None
    bundle: str | None = None
    """The message, if it carries other jobs too."""
    settled: Line | None = None
    stuck: bool = False

    @property
    def settled_as(self) -> str | None:
        return None if self.settled is None else self.settled["as"]

    def settled_before(self, at: float) -> str | None:
        """Return as what it was settled; what lets a message reappear counts only if it came before that."""
        if self.settled is None or (self.settled["as"] in REAPPEARS and self.settled["at"] > at):
            return None
        return self.settled_as


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job was executed again, and since when it had to be."""

    reason: str
    since: float


class Causes:
    """What was done to processes and requests."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._deaths: defaultdict[int, list[Line]] = defaultdict(list)
        self._stops: defaultdict[int, list[Line]] = defaultdict(list)
        self._exits: defaultdict[int, list[Line]] = defaultdict(list)
        self._unnamed: list[Line] = []
        self._lost_puts: list[Line] = []
        self._faults_of: defaultdict[str, list[Line]] = defaultdict(list)
        self._disturbances = sorted(line["at"] for line in lines if self._add(line))

    def _add(self, line: Line) -> bool:
        """File a line; say whether it may have cost a delivery that nobody has seen."""
        match line:
            case {"what": "kill", "signal": number} if number in _FROZEN:
                self._stops[line["pid"]].append(line)
            case {"what": "kill", "signal": number} if number in _GRACEFUL:
                return False
            case {"what": "kill" | "died"}:
                self._deaths[line["pid"]].append(line)
            case {"what": "exited"}:
                self._exits[line["pid"]].append(line)
                return False
            case {"what": "fault"}:
                self._add_fault(line)
                return bool(line["operation"] == "get" and line["action"] not in _ANSWERED)
            case _:
                return False
        return True

    def _add_fault(self, line: Line) -> None:
        to_poison = (line.get("queue") or "").endswith("-poison")  # there the message has another id
        if line.get("message") is None or to_poison:
            self._unnamed.append(line)
        else:
            self._faults_of[line["message"]].append(line)
        if _lost_put(line):
            self._lost_puts.append(line)

    def disturbed(self, after: float, before: float) -> bool:
        """Say whether a delivery may have been lost unseen in that time."""
        first = bisect_left(self._disturbances, after - NOTICED_WITHIN)
        return first < bisect_right(self._disturbances, before + NOTICED_WITHIN)

    def last_disturbance(self, before: float) -> float:
        """Return when a delivery may last have been lost unseen."""
        index = bisect_right(self._disturbances, before)
        return self._disturbances[index - 1] if index else float("-inf")

    def explain(self, first: Execution, second: Execution, *, over: bool) -> Explanation | None:
        """Say why the same message was executed a second time, if there is a reason.

        *over*: in between, it was settled for good by a worker that didn't call the handler.
        """
        match first.settled_before(second.at + NOTICED_WITHIN):
            case _ if over:
                return self._fault("answer lost", first, second, {"delete"})
            case "retried" | "released" | "snoozed":
                return Explanation("next attempt", first.at)
            case "lost":
                assert first.settled is not None
                return self._end_of(first, second) or Explanation("lease lost", first.settled["at"])
            case "failed":
                return self._fault("not settled", first, second, {"update", "delete", "put"}, answered=True)
            case settled_as if settled_as is None or (first.bundle and settled_as in _FINAL):
                answer = self._fault("answer lost", first, second, {"update", "delete"})
                return self._end_of(first, second) or answer
            case _:
                return self._fault("answer lost", first, second, {"delete"})

    def explain_copy(self, messages: Collection[str], put_by: Collection[float]) -> bool:
        """Say whether the answer to a put of a job was lost, by its messages, or by when its enqueue returned."""
        named = (fault for message in messages for fault in self._faults_of.get(message, ()))
        return any(map(_lost_put, named)) or self._lost_put_in(self._unnamed, put_by)

    def may_be_copied(self, put_by: Collection[float]) -> bool:
        """Say whether the answer to a put of a job may have been lost, if the job's messages aren't all known."""
        return self._lost_put_in(self._lost_puts, put_by)

    def _lost_put_in(self, faults: Iterable[Line], put_by: Collection[float]) -> bool:
        return any(
            _lost_put(fault) and any(fault["at"] <= at <= fault["at"] + _PUT_TRIES for at in put_by) for fault in faults
        )

    def ended(self, execution: Execution) -> bool:
        """Say whether the process that ran it was killed, frozen or died after that."""
        return any(
            line["at"] >= execution.at - NOTICED_WITHIN
            for ends in (self._deaths, self._stops)
            for pid in execution.pids
            for line in ends.get(pid, ())
        )

    def _end_of(self, first: Execution, second: Execution) -> Explanation | None:
        """Find out what ended the process that ran it, or froze it."""
        deaths, stops, exits = (
            sorted(
                (
                    line
                    for pid in first.pids
                    for line in ends.get(pid, ())
                    if first.at - NOTICED_WITHIN <= line["at"] <= second.at + _lateness(line)
                ),
                key=lambda line: line["at"],
            )
            for ends in (self._deaths, self._stops, self._exits)
        )
        if deaths:
            return Explanation("killed" if deaths[0]["what"] == "kill" else "died", deaths[0]["at"])
        if stops:
            return Explanation("stopped", stops[-1]["at"])
        if exits and first.stuck:
            return Explanation("stuck", exits[0]["at"])
        return None

    def _fault(
        self,
        reason: str,
        first: Execution,
        second: Execution,
        operations: set[str],
        *,
        answered: bool = False,
    ) -> Explanation | None:
        named = self._faults_of.get(first.message or first.bundle or "", ())
        unnamed = (fault for fault in self._unnamed if first.at <= fault["at"])
        ats = [
            fault["at"]
            for faults in (named, unnamed)
            for fault in faults
            if fault["at"] <= second.at
            and fault["operation"] in operations
            and (answered or fault["action"] not in _ANSWERED)
        ]
        return Explanation(reason, max(ats)) if ats else None


def _lost_put(fault: Line) -> bool:
    return fault["operation"] == "put" and fault["action"] not in _ANSWERED


def _lateness(line: Line) -> float:
    """A kill is noted before it happens, anything else when it was noticed."""
    return 0.0 if line["what"] == "kill" else NOTICED_WITHIN
