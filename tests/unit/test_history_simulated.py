"""Random histories of a queue that works are clean; with an error planted, they aren't."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explanations import Line
from history import Verdict, check

LEASE, STEP = 30.0, 10.0
MAX_ATTEMPTS = 3


@dataclass(eq=False)
class Message:
    id: str
    job: str
    visible_at: float = 0.0
    received: int = 0
    releases: int = 0


@dataclass(eq=False)
class Delivery:
    message: Message
    pid: int
    attempt: int
    started: bool = False
    lost: bool = False


@dataclass
class Simulation:
    """A queue and three workers; all that happens is told as tests tell it."""

    random: Random
    at: float = 0.0
    lines: list[Line] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    pids: list[int] = field(default_factory=lambda: [1, 2, 3])
    poisoned: set[str] = field(default_factory=set)
    interrupted: int = 0

    def run(self, steps: int) -> None:
        actions: list[Callable[[], None]] = [self.enqueue, self.receive, self.receive, self.begin, self.begin, self.end]
        actions += [self.end, self.give_back, self.kill, self.freeze, self.lose_a_get, self.lose_a_lease]
        for _ in range(steps):
            self.at += STEP
            self.random.choice(actions)()
        while self.messages:
            self.at += STEP
            self.random.choice([self.receive, self.begin, self.end])()

    def say(self, what: str, **fields: Any) -> None:
        self.at += 0.001
        self.lines.append({"what": what, "at": self.at} | fields)

    def settled(self, delivery: Delivery, kind: str) -> None:
        job, message = delivery.message.job, delivery.message.id if delivery.started else None
        self.say("settled", **{"as": kind}, job=job, attempt=delivery.attempt, pid=delivery.pid, message=message)
        self.deliveries.remove(delivery)

    def enqueue(self) -> None:
        job = f"job-{len(self.lines)}"
        copies = 1
        if self.random.random() < 0.1:
            copies = 2
            self.say("fault", action="DropAnswer", operation="put", queue="q", message=f"{job}/0")
        self.messages += [Message(f"{job}/{copy}", job) for copy in range(copies)]
        self.say("enqueued", job=job, n=len(self.lines), pid=0, may_poison=True)

    def receive(self) -> None:
        if message := self._one([message for message in self.messages if message.visible_at <= self.at]):
            message.received += 1
            message.visible_at = float("inf")
            attempt = message.received - message.releases
            self.deliveries.append(Delivery(message, self.random.choice(self.pids), attempt))

    def begin(self) -> None:
        delivery = self._one([one for one in self.deliveries if not one.started])
        if delivery is None:
            return
        if delivery.attempt > MAX_ATTEMPTS:
            self._poison(delivery)
            return
        delivery.started = True
        self._handler_says("start", delivery)

    def end(self) -> None:
        delivery = self._one([one for one in self.deliveries if one.started])
        if delivery is None:
            return
        if delivery.lost:
            self.settled(delivery, "lost")
            return
        kind = self.random.choice(["succeeded", "succeeded", "retried", "snoozed", "released"])
        if kind == "succeeded":
            self._handler_says("end", delivery)
            self.messages.remove(delivery.message)
        elif kind == "retried" and delivery.attempt == MAX_ATTEMPTS:
            self._poison(delivery)
            return
        else:
            delivery.message.visible_at = self.at + self.random.choice([0, STEP])
            delivery.message.releases += kind != "retried"
        self.settled(delivery, kind)

    def give_back(self) -> None:
        if delivery := self._one([one for one in self.deliveries if not one.started]):
            delivery.message.visible_at = self.at
            delivery.message.releases += 1
            self.settled(delivery, "released")

    def kill(self) -> None:
        pid = self.random.choice(self.pids)
        self.say("kill", pid=pid, signal=signal.SIGKILL)
        self.say("died", pid=pid, how=-9)
        self.pids[self.pids.index(pid)] = max(self.pids) + 1
        for delivery in self._taken_from(pid):
            self.interrupted += delivery.started and not delivery.lost
            self.deliveries.remove(delivery)

    def freeze(self) -> None:
        pid = self.random.choice(self.pids)
        self.say("kill", pid=pid, signal=signal.SIGSTOP)
        for delivery in self._taken_from(pid):
            if delivery.started:
                delivery.lost = True
            else:
                self.settled(delivery, "lost")

    def lose_a_get(self) -> None:
        if message := self._one([message for message in self.messages if message.visible_at <= self.at]):
            message.received += 1
            message.visible_at = self.at + LEASE
            self.say("fault", action="CutBody", operation="get", queue="q", message=None, messages=[message.id])

    def lose_a_lease(self) -> None:
        if delivery := self._one([one for one in self.deliveries if one.started and not one.lost]):
            delivery.message.visible_at = self.at
            self.settled(delivery, "lost")

    def _one(self, choices: list[Any]) -> Any:
        return self.random.choice(choices) if choices else None

    def _taken_from(self, pid: int) -> list[Delivery]:
        """Let the leases of a process end."""
        taken = [delivery for delivery in self.deliveries if delivery.pid == pid]
        for delivery in taken:
            if not delivery.lost:
                delivery.message.visible_at = self.at + LEASE
        return taken

    def _handler_says(self, what: str, delivery: Delivery) -> None:
        message = delivery.message
        self.say(what, job=message.job, n=0, attempt=delivery.attempt, pid=delivery.pid, message=message.id)

    def _poison(self, delivery: Delivery) -> None:
        self.poisoned.add(delivery.message.job)
        self.messages.remove(delivery.message)
        self.settled(delivery, "poisoned")

    def verdict(self) -> Verdict:
        # Lines come in the order of their writing, which is about that of time.
        lines = sorted(self.lines, key=lambda line: line["at"] + self.random.uniform(-STEP, STEP))
        return check(lines, poisoned=self.poisoned)


def simulated(random: Random) -> Simulation:
    simulation = Simulation(random)
    simulation.enqueue()
    simulation.run(150)
    return simulation


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=True))
def test_a_random_history_without_an_error_is_clean(random: Random) -> None:
    simulation = simulated(random)
    verdict = simulation.verdict()
    verdict.assert_clean()
    starts = sum(line["what"] == "start" for line in simulation.lines)
    assert starts == verdict.executions.total()


def of(simulation: Simulation, **fields: Any) -> list[Line]:
    """Return the lines that have all these fields."""
    return [line for line in simulation.lines if fields.items() <= line.items()]


def lose_the_end(simulation: Simulation, job: str) -> None:
    for line in of(simulation, job=job):
        if line["what"] == "end" or line.get("as") == "succeeded":
            simulation.lines.remove(line)


def lose_from_the_poison_queue(simulation: Simulation, job: str) -> None:
    lose_the_end(simulation, job)
    simulation.poisoned.discard(job)


def forget_the_enqueue(simulation: Simulation, job: str) -> None:
    simulation.lines.remove(of(simulation, job=job, what="enqueued")[0])


def poison(simulation: Simulation, job: str) -> None:
    simulation.poisoned.add(job)
    of(simulation, job=job, what="enqueued")[0]["may_poison"] = False


def count_an_attempt_less(simulation: Simulation, job: str) -> None:
    start = of(simulation, job=job, what="start")[-1]
    for line in of(simulation, job=job, pid=start["pid"], attempt=start["attempt"]):
        if line["at"] >= start["at"]:
            line["attempt"] = 0


def only(simulation: Simulation, job: str, *told: tuple[str, int, int]) -> None:
    """Have a job's history be only this after its enqueue: what, attempt, pid."""
    message = f"{job}/0"
    simulation.lines = [line for line in simulation.lines if line.get("job") != job or line["what"] == "enqueued"]
    simulation.at += 1000
    for what, attempt, pid in told:
        kind = {"what": what} if what in {"start", "end"} else {"what": "settled", "as": what}
        simulation.at += STEP
        simulation.say(**kind, job=job, n=0, attempt=attempt, pid=pid, message=message)


def count_a_release(simulation: Simulation, job: str) -> None:
    only(simulation, job, ("start", 1, 98), ("snoozed", 1, 98), ("start", 2, 99), ("end", 2, 99))


def execute_again_after_its_end(simulation: Simulation, job: str) -> None:
    once = ("start", 1, 98), ("end", 1, 98), ("succeeded", 1, 98)
    only(simulation, job, *once, ("start", 2, 99), ("end", 2, 99))


def execute_twice_at_once(simulation: Simulation, job: str) -> None:
    only(simulation, job, ("start", 1, 98), ("start", 2, 99), ("end", 1, 98), ("end", 2, 99), ("retried", 1, 98))


PLANTED: list[tuple[Callable[[Simulation, str], None], str]] = [
    (lose_from_the_poison_queue, "lost"),
    (forget_the_enqueue, "unexpected"),
    (poison, "poisoned_unasked"),
    (execute_again_after_its_end, "unexplained"),
    (execute_twice_at_once, "unexplained"),
    (count_an_attempt_less, "wrong_attempts"),
    (count_a_release, "wrong_attempts"),
]


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=True), st.sampled_from(PLANTED))
def test_an_error_planted_in_a_random_history_is_found(
    random: Random, planted: tuple[Callable[[Simulation, str], None], str]
) -> None:
    plant, kind = planted
    simulation = simulated(random)
    job = random.choice([line["job"] for line in of(simulation, what="start")] or ["job-0"])
    plant(simulation, job)
    verdict = simulation.verdict()
    assert {job} == getattr(verdict, kind)
    with pytest.raises(AssertionError, match=job):
        verdict.assert_clean()
