"""Faults 33 to 39: whatever is in a message, an argument, a name, an error or an answer."""

import base64
import json
from collections import Counter
from dataclasses import dataclass

import pytest

import input_jobs
import jobs
from fault_report import Fault
from qworker.poison import PoisonRecord, decode_poison
from stage import Stage, wait_until


@dataclass(frozen=True)
class Bad:
    """A body that is no job, or not one that can be run, and what is said of it."""

    body: str
    why: str


def _in_base64(text: bytes) -> str:
    return base64.b64encode(text).decode()


BAD = {
    "bad Base64": Bad("eyJ0YXNrIjoiaW5wdXRfam9icy50YWtl*", "neither a JSON object nor Base64"),
    "bad UTF-8 in Base64": Bad(_in_base64(b'{"task":"\xff"}'), "its Base64 is not UTF-8"),
    "no text at all": Bad(_in_base64(bytes(range(256))), "its Base64 is not UTF-8"),
    "not JSON": Bad('{"task":"input_jobs.take","args":[1', "it is not JSON"),
    "not an object": Bad('["input_jobs.take", 1]', "it is a JSON list, not an object"),
    "a missing field": Bad('{"args":[1]}', "'task' is missing"),
    "a field of another type": Bad('{"task":"input_jobs.take","args":{"n":1}}', "'args' must be an array"),
    "an unknown version": Bad('{"v":2,"task":"input_jobs.take","args":[1]}', "its version is 2"),
    "an argument that is no number": Bad(
        '{"task":"input_jobs.take","args":["many"]}', "n: Input should be a valid integer"
    ),
    "a missing argument": Bad('{"task":"input_jobs.take"}', "missing a required argument: 'n'"),
    "one argument too many": Bad('{"task":"input_jobs.take","args":[1,2]}', "too many positional arguments"),
}


def put(stage: Stage, *bodies: str) -> None:
    """Put bodies into the queue as they are, one after the other."""

    async def put_all() -> None:
        await stage.app.broker.create_queue(stage.queue)
        for body in bodies:
            await stage.app.broker.queue(stage.queue).put(body)

    stage.app._portal.run(put_all())


def take_poisoned(stage: Stage) -> list[PoisonRecord]:
    """Empty the poison queue."""
    records = [decode_poison(body) for body in stage.poisoned()]
    stage.app._portal.run(stage.app.broker.queue(f"{stage.queue}-poison").clear())
    return records


@pytest.mark.fault(33)
def test_a_bad_message_in_a_batch_is_poisoned_and_its_neighbours_run(stage: Stage, fault: Fault) -> None:
    full = [[(kind, place)] for kind in BAD for place in (0, fault.random.randrange(1, 31), 31)]
    batches = fault.scale(short=[list(zip(BAD, fault.random.sample(range(32), len(BAD)), strict=True))], full=full)
    poisoned = 0
    for number, bad in enumerate(batches):
        kinds = {place: kind for kind, place in bad}
        good = [place for place in range(32) if place not in kinds]
        for place in range(32):
            if place in kinds:
                put(stage, BAD[kinds[place]].body)
            else:
                stage.enqueue(input_jobs.take, 100 * number + place)
        worker = stage.worker("--burst", "-c", "32", app="input_jobs")
        assert 0 == worker.wait(), worker.output
        records = take_poisoned(stage)
        poisoned += len(records)
        for kind in kinds.values():
            [record] = [record for record in records if record.body == BAD[kind].body]
            assert BAD[kind].why in record.failure.message, kind
            assert (1, stage.queue) == (record.attempts, record.queue)
        assert len(kinds) == len(records)
        executed = stage.history.count()
        assert [1] * len(good) == [executed[100 * number + place] for place in good]
        assert 0 == stage.remaining()
    fault.did(f"{len(BAD)} kinds of bad messages, {len(batches)} batches of 32")
    fault.saw(f"{poisoned} poisoned on their first delivery, {stage.history.count().total()} neighbours executed once")


@pytest.mark.fault(34)
def test_an_unknown_task_rests_between_its_attempts_and_is_poisoned_after_the_last(stage: Stage, fault: Fault) -> None:
    """Some have been delivered before, as if other workers had tried; one task is known to the next worker only."""
    for earlier in (4, 3, 2, 1, 0):
        put(stage, json.dumps({"task": "input_jobs.unheard_of", "id": f"tried-{earlier}", "args": [earlier]}))
        if earlier:
            deliver_all(stage)
    stage.enqueue(jobs.quick, 1)
    deployed = stage.enqueue(input_jobs.take, 2)
    worker = stage.worker("--burst")
    assert 0 == worker.wait(), worker.output
    retried = {line["job"]: line for line in worker.lines("job.retried")}
    rests = [int(retried[f"tried-{earlier}"]["retry_in"].rstrip("s")) for earlier in range(4)]
    [record] = take_poisoned(stage)
    fault.did("unknown tasks at their 1st to 5th delivery")
    fault.saw(f"rests of {rests} s, then poisoned")
    assert ["1/5", "2/5", "3/5", "4/5"] == [retried[f"tried-{earlier}"]["attempt"] for earlier in range(4)]
    assert all(0.8 * full <= rest <= full for rest, full in zip(rests, [5, 10, 20, 40], strict=True))
    assert ("tried-4", 5, "UnknownTask") == (record.job_id, record.attempts, record.failure.type)
    assert "unknown task 'input_jobs.unheard_of'; registered: " in record.failure.message
    assert "1/5" == retried[deployed.id]["attempt"]
    assert 5 == stage.remaining()
    assert [1] == [line["n"] for line in stage.history.lines("end")]
    if fault.full:
        _run_to_their_ends(stage, fault)


def _run_to_their_ends(stage: Stage, fault: Fault) -> None:
    worker = stage.worker(app="input_jobs")
    wait_until(lambda: stage.remaining() == 0, within=120, what="the last attempts")
    tries = Counter(line["job"] for line in worker.lines("job.retried"))
    fault.saw(f"further tries until they were poisoned: {sorted(tries.values())}")
    assert {"tried-2": 1, "tried-1": 2, "tried-0": 3} == tries
    assert {f"tried-{earlier}": 5 for earlier in range(4)} == {
        record.job_id: record.attempts for record in take_poisoned(stage)
    }
    assert [(1, 1), (2, 2)] == [(line["n"], line["attempt"]) for line in stage.history.lines("end")]


def deliver_all(stage: Stage) -> None:
    """Get all messages and put them back."""

    async def deliver() -> None:
        queue = stage.app.broker.queue(stage.queue)
        for message in await queue.get(32, visibility=60):
            await queue.update(message.id, message.receipt, visibility=0)

    stage.app._portal.run(deliver())
