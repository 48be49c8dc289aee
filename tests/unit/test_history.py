import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from explanations import Line
from history import History, Verdict, check

STEP = 10.0


class Told:
    """A history that is made up, a line every ten seconds."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def say(self, what: str, **fields: Any) -> None:
        self.lines.append({"what": what, "pid": 1, "at": STEP * len(self.lines)} | fields)

    def enqueued(self, job: str = "a", **fields: Any) -> None:
        self.say("enqueued", job=job, n=0, **fields)

    def start(self, job: str = "a", *, attempt: int = 1, pid: int = 1, message: str | None = "m") -> None:
        self.say("start", job=job, n=0, attempt=attempt, pid=pid, message=message)

    def end(self, job: str = "a", *, attempt: int = 1, pid: int = 1) -> None:
        self.say("end", job=job, n=0, attempt=attempt, pid=pid)

    def settled(self, kind: str, job: str = "a", *, attempt: int = 1, pid: int = 1) -> None:
        self.say("settled", **{"as": kind}, job=job, attempt=attempt, pid=pid)

    def done(self, job: str = "a", *, attempt: int = 1, pid: int = 1, message: str | None = "m") -> None:
        """Tell of an execution from its start to its good end."""
        self.start(job, attempt=attempt, pid=pid, message=message)
        self.end(job, attempt=attempt, pid=pid)
        self.settled("succeeded", job, attempt=attempt, pid=pid)

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        self.say("kill", pid=pid, signal=number)

    def fault(self, operation: str, message: str | None = "m", action: str = "DropAnswer", queue: str = "q") -> None:
        self.say("fault", action=action, operation=operation, queue=queue, message=message)

    def verdict(self, **known: Any) -> Verdict:
        return check(self.lines, **known)


@pytest.fixture
def told() -> Told:
    """A history of job "a", which was enqueued."""
    told = Told()
    told.enqueued()
    return told


def test_a_job_that_runs_once_is_clean(told: Told) -> None:
    told.done()
    verdict = told.verdict()
    verdict.assert_clean()
    assert (Counter(a=1), 0.0, ()) == (verdict.executions, verdict.slowest_recovery, verdict.recovered)


def test_a_job_that_never_starts_is_lost(told: Told) -> None:
    assert {"a"} == told.verdict().lost
    told.verdict(remaining={"a"}).assert_clean()
    told.verdict(poisoned={"a"}, may_poison={"a"}).assert_clean()


def test_a_job_that_starts_and_never_ends_is_lost(told: Told) -> None:
    told.start()
    told.kill(1)
    assert {"a"} == told.verdict().lost


def test_a_job_settled_as_poisoned_that_is_not_in_the_poison_queue_is_lost(told: Told) -> None:
    told.start()
    told.settled("poisoned")
    assert {"a"} == told.verdict().lost


def test_a_job_that_may_not_have_been_accepted_is_not_lost() -> None:
    told = Told()
    told.say("uncertain", job="a")
    told.verdict().assert_clean()


@pytest.mark.parametrize("end", ["end", "succeeded", "expired"])
def test_any_good_end_is_enough(told: Told, end: str) -> None:
    told.start()
    told.end() if end == "end" else told.settled(end)
    told.verdict().assert_clean()


def test_an_execution_of_what_nobody_enqueued_is_unexpected(told: Told) -> None:
    told.done()
    told.done("b", message="other")
    assert {"b"} == told.verdict().unexpected


def test_a_producer_that_may_be_killed_says_beforehand_what_to_expect() -> None:
    told = Told()
    told.say("enqueueing", n=0)
    told.done()
    told.verdict().assert_clean()


def test_a_poisoned_job_that_nobody_enqueued_is_unexpected(told: Told) -> None:
    told.done()
    assert {"b"} == told.verdict(poisoned={"b"}).unexpected


def test_a_job_that_is_poisoned_without_being_asked(told: Told) -> None:
    told.start()
    told.settled("poisoned")
    verdict = told.verdict(poisoned={"a"})
    assert {"a"} == verdict.poisoned_unasked
    assert not verdict.lost
    with pytest.raises(
        AssertionError, match=r"1 jobs were poisoned unasked, not 0\njob a: poisoned unasked\n.*enqueued"
    ):
        verdict.assert_clean()
    verdict.assert_clean(poisoned=1)


def test_a_job_that_may_be_poisoned() -> None:
    told = Told()
    told.enqueued(may_poison=True)
    told.verdict(poisoned={"a"}).assert_clean()


def test_a_duplicate_after_success_is_unexplained_even_if_its_process_was_killed(told: Told) -> None:
    told.done()
    told.kill(1)
    told.done(attempt=2, pid=2)
    verdict = told.verdict()
    assert {"a"} == verdict.unexplained
    assert 2 == verdict.executions["a"]


def test_a_duplicate_without_a_cause_is_unexplained(told: Told) -> None:
    told.start()
    told.done(attempt=2, pid=2)
    assert {"a"} == told.verdict().unexplained


def test_the_death_of_another_process_explains_nothing(told: Told) -> None:
    told.start()
    told.kill(3)
    told.done(attempt=2, pid=2)
    assert {"a"} == told.verdict().unexplained


def test_a_kill_after_the_second_start_explains_nothing(told: Told) -> None:
    told.start()
    told.done(attempt=2, pid=2)
    told.kill(1)
    assert {"a"} == told.verdict().unexplained


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGCONT])
def test_a_signal_that_ends_a_worker_in_good_order_explains_nothing(told: Told, number: int) -> None:
    told.start()
    told.kill(1, number)
    told.done(attempt=2, pid=2)
    assert {"a"} == told.verdict().unexplained


def test_a_kill_explains_the_next_execution_and_says_how_long_it_took(told: Told) -> None:
    told.start()
    told.kill(1)
    told.say("elsewhere")
    told.done(attempt=2, pid=2)
    verdict = told.verdict()
    verdict.assert_clean()
    assert ["killed"] == [again.reason for again in verdict.recovered]
    assert 2 * STEP == verdict.slowest_recovery


def test_a_release_that_was_applied_before_its_worker_was_killed_spends_no_attempt(told: Told) -> None:
    told.start()
    told.kill(1)
    told.done(attempt=1, pid=2)
    told.verdict().assert_clean()


def test_a_kill_explains_one_execution_not_two(told: Told) -> None:
    told.start()
    told.kill(1)
    told.start(attempt=2, pid=2)
    told.done(attempt=3, pid=3)
    assert {"a"} == told.verdict().unexplained


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGSEGV])
def test_other_ways_to_stop_a_process(told: Told, number: int) -> None:
    told.start()
    told.kill(1, number)
    told.done(attempt=2, pid=2)
    told.verdict().assert_clean()


def test_a_frozen_worker_notices_later_that_it_lost_its_lease(told: Told) -> None:
    told.start()
    told.kill(1, signal.SIGSTOP)
    told.done(attempt=2, pid=2)
    told.kill(1, signal.SIGCONT)
    told.settled("lost")
    verdict = told.verdict()
    verdict.assert_clean()
    assert (Counter(stopped=1), STEP) == (verdict.reasons, verdict.slowest_recovery)


def test_a_frozen_worker_may_not_settle_what_was_executed_elsewhere(told: Told) -> None:
    told.start()
    told.kill(1, signal.SIGSTOP)
    told.done(attempt=2, pid=2)
    told.settled("succeeded")
    assert {"a"} == told.verdict().unexplained


def test_a_process_that_dies_by_itself(told: Told) -> None:
    told.start()
    told.say("died", pid=1, how=7)
    told.done(attempt=2, pid=2)
    verdict = told.verdict()
    verdict.assert_clean()
    assert Counter(died=1) == verdict.reasons


def test_a_process_that_exits_in_good_order_explains_only_a_handler_that_was_stuck(told: Told) -> None:
    told.start()
    told.say("stuck", job="a", attempt=1)
    told.say("exited", pid=1, how=0)
    told.done(attempt=2, pid=2)
    told.verdict().assert_clean()
    told.lines = [line for line in told.lines if line["what"] != "stuck"]
    assert {"a"} == told.verdict().unexplained


def test_the_death_of_a_child_process_or_of_its_worker(told: Told) -> None:
    for child, worker, killed in ((1, 2, 1), (3, 4, 4)):
        told.say("start", job="a", n=0, attempt=child, pid=child, worker=worker, message=None)
        told.kill(killed)
    told.done(attempt=5, pid=6, message=None)
    told.verdict().assert_clean()


def test_a_lost_lease_explains_the_next_execution_even_before_its_first_owner_notices(told: Told) -> None:
    told.start()
    told.start(attempt=2, pid=2)
    told.settled("lost", attempt=1, pid=1)
    told.settled("succeeded", attempt=2, pid=2)
    verdict = told.verdict()
    verdict.assert_clean()
    assert ("lease lost", 0.0) == (verdict.recovered[0].reason, verdict.recovered[0].seconds)


def test_retried_released_and_snoozed_are_followed_by_the_next_attempt(told: Told) -> None:
    numbers = {"retried": 2, "released": 2, "snoozed": 2}
    attempt = 1
    for kind, following in numbers.items():
        told.start(attempt=attempt)
        told.settled(kind, attempt=attempt)
        attempt = following
    told.done(attempt=2)
    verdict = told.verdict()
    verdict.assert_clean()
    assert ((), 4) == (verdict.recovered, verdict.executions["a"])


@pytest.mark.parametrize(("kind", "number"), [("retried", 2), ("released", 1), ("snoozed", 1)])
def test_a_next_attempt_that_begins_before_the_last_is_settled_is_unexplained(
    told: Told, kind: str, number: int
) -> None:
    told.start()
    told.done(attempt=number, pid=2)
    told.settled(kind)
    assert {"a"} == told.verdict().unexplained
    told.lines[-1]["at"] = told.lines[2]["at"] + 0.5  # the worker's line may be a little late
    told.verdict().assert_clean()


@pytest.mark.parametrize("kind", ["poisoned", "expired"])
def test_an_execution_after_an_end_without_a_start_is_unexplained(told: Told, kind: str) -> None:
    told.start()
    told.kill(1)
    told.settled(kind, attempt=2, pid=2)
    told.done(attempt=3, pid=3)
    assert {"a"} == told.verdict().unexplained


@pytest.mark.parametrize(
    ("kind", "number"),
    [("retried", 1), ("retried", 3), ("released", 2), ("released", 0), ("snoozed", 2), ("snoozed", 0)],
)
def test_an_attempt_that_is_counted_wrongly(told: Told, kind: str, number: int) -> None:
    told.start()
    told.settled(kind)
    told.done(attempt=number)
    assert {"a"} == told.verdict().wrong_attempts


@pytest.mark.parametrize("number", [0, 2])
def test_a_first_attempt_has_the_number_one(told: Told, number: int) -> None:
    told.done(attempt=number)
    assert {"a"} == told.verdict().wrong_attempts


def test_a_kill_may_cost_a_delivery_that_never_started(told: Told) -> None:
    told.kill(3)
    told.start(attempt=2)
    told.settled("retried", attempt=2)
    told.kill(4)
    told.done(attempt=4)
    told.verdict().assert_clean()


def test_a_job_that_was_released_before_it_started_spends_no_attempt(told: Told) -> None:
    told.settled("released", attempt=1, pid=3)
    told.done(attempt=1)
    told.verdict().assert_clean()


def test_a_refused_attempt_counts_without_a_start(told: Told) -> None:
    told.settled("retried", attempt=1, pid=3)
    told.start(attempt=2)
    told.settled("retried", attempt=2)
    told.settled("retried", attempt=3, pid=3)
    told.done(attempt=4)
    told.verdict().assert_clean()


def test_another_worker_that_had_it_and_was_killed_too_is_not_held_against_the_recovery(told: Told) -> None:
    told.start()
    told.kill(1)
    told.say("a long time")
    told.kill(2)
    told.done(attempt=3, pid=3)
    verdict = told.verdict()
    verdict.assert_clean()
    assert STEP == verdict.slowest_recovery


@pytest.mark.parametrize("operation", ["update", "delete"])
@pytest.mark.parametrize("message", ["m", None])
def test_a_lost_answer_explains_the_next_execution(told: Told, operation: str, message: str | None) -> None:
    told.start()
    told.fault(operation, message)
    told.done(attempt=2, pid=2)
    verdict = told.verdict()
    verdict.assert_clean()
    assert Counter({"answer lost": 1}) == verdict.reasons


@pytest.mark.parametrize(
    ("operation", "message", "action"),
    [
        ("update", "another", "DropAnswer"),
        ("update", "m", "Answer"),
        ("get", "m", "DropAnswer"),
        ("put", "m", "Shuffle"),
    ],
)
def test_a_fault_that_lost_no_answer_about_it_explains_nothing(
    told: Told, operation: str, message: str, action: str
) -> None:
    told.start()
    told.fault(operation, message, action)
    told.done(attempt=2, pid=2)
    assert {"a"} == told.verdict().unexplained


@pytest.mark.parametrize("message", ["m", None])
def test_a_fault_after_the_second_start_explains_nothing(told: Told, message: str | None) -> None:
    told.start()
    told.done(attempt=2, pid=2)
    told.fault("update", message)
    assert {"a"} == told.verdict().unexplained


def test_a_fault_before_the_first_start_explains_nothing_unless_it_names_the_message() -> None:
    told = Told()
    told.enqueued()
    told.fault("update", None)
    told.start()
    told.done(attempt=2, pid=2)
    assert {"a"} == told.verdict().unexplained
    told.lines[1]["message"] = "m"  # the renewal of a message that waited for its turn
    told.verdict().assert_clean()


def test_a_lost_answer_to_a_delete_explains_an_execution_after_a_success(told: Told) -> None:
    told.start()
    told.fault("delete")
    told.settled("succeeded")
    told.done(attempt=2, pid=2)
    told.verdict().assert_clean()
    told.lines[2]["operation"] = "update"
    assert {"a"} == told.verdict().unexplained


@pytest.mark.parametrize(("operation", "queue", "message"), [("update", "q", "m"), ("put", "q-poison", "its copy")])
def test_what_could_not_be_settled_is_explained_by_any_fault(
    told: Told, operation: str, queue: str, message: str
) -> None:
    told.start()
    told.fault(operation, message, "Answer", queue)
    told.settled("failed")
    told.done(attempt=2, pid=2)
    told.verdict().assert_clean()
    told.lines = [line for line in told.lines if line["what"] != "fault"]
    assert {"a"} == told.verdict().unexplained


def test_two_messages_of_one_job_without_a_cause(told: Told) -> None:
    told.done(message="m")
    told.done(message="its twin")
    assert {"a"} == told.verdict().unexplained


@pytest.mark.parametrize("message", ["m", None])
def test_two_messages_of_one_job_if_the_answer_to_a_put_was_lost(message: str | None) -> None:
    told = Told()
    told.fault("put", message)
    told.enqueued()
    told.done(message="m")
    told.done(message="its twin")
    verdict = told.verdict()
    verdict.assert_clean()
    assert Counter(copy=1) == verdict.reasons


@pytest.mark.parametrize("what", ["uncertain", "replayed"])
def test_two_messages_of_one_job_that_was_put_twice(told: Told, what: str) -> None:
    told.say(what, job="a")
    told.done(message="m")
    told.done(message="its twin")
    told.verdict().assert_clean()


def test_a_second_copy_does_not_explain_a_second_execution_of_the_first(told: Told) -> None:
    told.say("uncertain", job="a")
    told.done(message="m")
    told.done(attempt=2, message="m")
    assert {"a"} == told.verdict().unexplained


def test_two_messages_that_are_executed_in_turns_are_judged_each_by_itself(told: Told) -> None:
    told.say("uncertain", job="a")
    told.start(message="m")
    told.start(pid=2, message="its twin")
    told.settled("retried")
    told.settled("succeeded", pid=2)
    told.done(attempt=2, message="m")
    told.verdict().assert_clean()


def test_an_error_shows_the_lines_of_each_job_up_to_ten() -> None:
    told = Told()
    for n in range(30):
        told.enqueued(f"job-{n:02}")
    with pytest.raises(AssertionError) as raised:
        told.verdict().assert_clean()
    text = str(raised.value).splitlines()
    assert "30 jobs, of which 10 follow: lost" == text[0]
    assert ["job job-00: lost", '{"what": "enqueued", "pid": 1, "at": 0.0, "job": "job-00", "n": 0}'] == [
        line.strip() for line in text[1:3]
    ]
    assert 1 + 10 * 2 == len(text)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    assert [] == history.read()
    history.note("start", n=1)
    history.note_all([{"what": "start", "n": 2}, {"what": "end", "n": 1}])
    with history.file.open("a") as file:
        file.write('{"what": "end", "n"')
    assert (Counter({1: 1, 2: 1}), Counter({1: 1})) == (history.count(), history.count("end"))
    assert all({"pid", "at"} <= line.keys() for line in history.read())


# Bundles: their jobs are settled with the message, and may go on in messages of their own


def in_bundle(told: Told, kind: str = "succeeded") -> None:
    told.say("start", job="a", n=0, attempt=1, pid=1, message=None, bundle="b")
    told.end()
    told.settled(kind)


def test_a_job_of_a_bundle_that_is_repeated_for_no_reason_is_unexplained(told: Told) -> None:
    in_bundle(told)
    told.done(attempt=2, pid=2)
    assert {"a"} == told.verdict().unexplained


@pytest.mark.parametrize("kind", ["succeeded", "poisoned"])
def test_until_its_bundle_is_settled_a_kill_explains_another_execution(told: Told, kind: str) -> None:
    in_bundle(told, kind)
    told.kill(1)
    told.done(attempt=2, pid=2)
    verdict = told.verdict()
    verdict.assert_clean()
    assert {"killed": 1} == verdict.reasons


def test_a_kill_of_another_process_explains_nothing(told: Told) -> None:
    in_bundle(told)
    told.kill(3)
    told.done(attempt=2, pid=2)
    assert {"a"} == told.verdict().unexplained


def test_a_lost_answer_about_the_bundle_explains_another_execution(told: Told) -> None:
    in_bundle(told)
    told.fault("delete", "b")
    told.done(attempt=2, pid=2)
    told.verdict().assert_clean()


def test_a_retry_that_got_its_message_before_the_kill_may_have_a_copy(told: Told) -> None:
    told.say("start", job="a", n=0, attempt=1, pid=1, message=None, bundle="b")
    told.settled("retried")
    told.kill(1)
    told.done(attempt=2, pid=2, message="m1")
    told.done(attempt=2, pid=2, message="m2")
    told.verdict().assert_clean()


def test_a_retry_without_a_kill_has_no_copy(told: Told) -> None:
    told.say("start", job="a", n=0, attempt=1, pid=1, message=None, bundle="b")
    told.settled("retried")
    told.done(attempt=2, pid=2, message="m1")
    told.done(attempt=2, pid=2, message="m2")
    assert {"a"} == told.verdict().unexplained


def test_a_kill_while_its_bundle_was_taken_apart_explains_a_copy() -> None:
    told = Told()
    told.enqueued(bundled=True)
    told.kill(3)
    told.done(attempt=2, pid=2, message="m1")
    told.done(attempt=2, pid=2, message="m2")
    told.verdict().assert_clean()
    assert {"copy": 1} == told.verdict().reasons


def test_a_bundle_explains_no_copy_by_itself() -> None:
    told = Told()
    told.enqueued(bundled=True)
    told.done(message="m1")
    told.done(message="m2")
    assert {"a"} == told.verdict().unexplained
