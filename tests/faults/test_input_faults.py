"""Faults 33 to 39: whatever is in a message, an argument, a name, an error or an answer."""

import base64
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

import input_jobs
import jobs
from azurite_server import Azurite, connection_string
from fault_actions import ChangeXML
from fault_proxy import FaultProxy
from fault_report import Fault
from fault_rules import Rule
from qworker import App
from qworker.brokers.base import Message
from qworker.errors import InvalidArguments, InvalidEnvelope, MessageTooLarge
from qworker.job import utc_now
from qworker.poison.record import PoisonRecord, decode_poison
from qworker.produce.producer import Producer
from qworker.wire.bodies import Encoding
from qworker.wire.envelope import decode, encode
from qworker.wire.notes import Notes, with_notes
from stage import MakeStage, Stage, WorkerProcess
from waiting import wait_until


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
    """Some say that they have been delivered before, to other workers; one task is known to the next worker only."""
    earlier = (0, 1, 9, 19, 98, 99)
    deliver_to_others(
        stage, {times: json.dumps({"task": "input_jobs.unheard_of", "id": f"tried-{times}"}) for times in earlier}
    )
    stage.enqueue(jobs.quick, 1)
    stage.enqueue(input_jobs.take, 2)
    worker = stage.worker("--burst", "-l", "debug")
    assert 0 == worker.wait(), worker.output
    unknown = {line["job"]: line for line in worker.lines("task.unknown")}
    assert 2 == sum(line["level"] == "warning" for line in unknown.values()), "one line a task, but at level debug"
    rests = [int(unknown[f"tried-{times}"]["retry_in"].rstrip("s")) for times in earlier[:-1]]
    [record] = take_poisoned(stage)
    fault.did("unknown tasks at their 1st, 2nd, 10th, 20th, 99th and 100th delivery")
    fault.saw(f"rests of {rests} s, then poisoned")
    assert [f"{times + 1}/100" for times in earlier[:-1]] == [
        unknown[f"tried-{times}"]["deliveries"] for times in earlier[:-1]
    ]
    assert all(0.8 * full <= rest < full + 1 for rest, full in zip(rests, [1, 1.2, 5.2, 31.9, 600], strict=True))
    assert ("tried-99", "UnknownTask") == (record.job_id, record.failure.type)
    assert "unknown task 'input_jobs.unheard_of'; registered: " in record.failure.message
    assert 6 == stage.remaining()
    assert [1] == [line["n"] for line in stage.history.lines("end")]
    stage.worker(app="input_jobs")
    wait_until(lambda: len(stage.history.lines("end")) == 2, what="the job that only the newer worker knows")
    assert [(1, 1), (2, 1)] == [(line["n"], line["attempt"]) for line in stage.history.lines("end")]


def deliver_to_others(stage: Stage, bodies: dict[int, str]) -> None:
    """Put messages which say that so many workers gave them back, as none of these knew their task."""

    async def deliver() -> None:
        await stage.app.broker.create_queue(stage.queue)
        queue = stage.app.broker.queue(stage.queue)
        held = []
        for times, body in bodies.items():
            await queue.put(body)
            [got] = await queue.get(1, visibility=300)
            for _ in range(times):
                await queue.update(got.id, got.receipt, visibility=0)
                [got] = await queue.get(1, visibility=300)
            held.append((got, with_notes(body, got.id, Notes(releases=times + 1, unknown=times))))
        for got, body_now in held:
            await queue.update(got.id, got.receipt, visibility=0, body=body_now)

    stage.app._portal.run(deliver())


NASTY = [
    "\x00\x01\r\n\t\x0b\x1f",
    "\r",
    "\x7f\x85\x9f\u2028\u2029",
    "\ufffe\uffff\ufdd0\U0010ffff",
    "😀👩‍👩‍👧‍👦🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "𝄞é́ ﷽",
    "\ufeff<a>&amp;</a>]]>\\u0000\\\"'",
    " \t leading and trailing \n ",
]
TEXTS = (
    st.text(max_size=60)
    | st.text(st.sampled_from('\x00\x01\r\n\x7f\x85\ufffe\uffff\\"<&]😀𝄞é'), max_size=60)
    | st.sampled_from(NASTY)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def app_on(stage: Stage, encoding: Encoding) -> App:
    """Return an app on the stage's broker, with a task that takes anything."""
    app = App(broker=stage.url, encoding=encoding)

    @app.task(name="keep")
    def keep(value: Any, **named: Any) -> None: ...

    return app


@pytest.mark.fault(35)
@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_arguments_come_back_as_they_were(stage: Stage, fault: Fault, encoding: Encoding) -> None:
    """Their order and types too: 1 is not 1.0, nor True."""
    app = app_on(stage, encoding)
    task, tried = app.get_task("keep"), 0

    async def take() -> Message:
        queue = app.broker.queue(stage.queue)
        [message] = await queue.get(visibility=60)
        await queue.delete(message.id, message.receipt)
        return message

    @seed(fault.seed)
    @settings(max_examples=fault.scale(short=25, full=1000), deadline=None, database=None)
    @given(VALUES, st.dictionaries(TEXTS.filter(lambda name: name != "value"), VALUES, max_size=3), TEXTS)
    def round_trip(value: Any, named: dict[str, Any], header: str) -> None:
        nonlocal tried
        tried += 1
        task.using(queue=stage.queue, headers={header: header}).enqueue(value, **named)
        message = app._portal.run(take())
        job = decode(message.body, message_id=message.id)
        args, kwargs = task.signature.decode(job.args, job.kwargs)
        assert json.dumps([[value], named, {header: header}]) == json.dumps([args, kwargs, job.headers])

    round_trip()
    app.close()
    fault.did(f"{tried:,} calls with texts of all characters, as text and as Base64")
    fault.saw(f"{tried:,} identical")


@pytest.mark.fault(35)
def test_a_handler_gets_arguments_as_they_were(stage: Stage, fault: Fault) -> None:
    calls = [(n, {text: [text]}) for n, text in enumerate(NASTY)]
    producer: Producer[...] = input_jobs.keep.using(queue=stage.queue)
    producer.enqueue_many(calls)
    producer.enqueue(99, None, **{text: text for text in NASTY})
    worker = stage.worker("--burst", app="input_jobs")
    assert 0 == worker.wait(), worker.output
    kept = {line["n"]: (line["value"], line["named"]) for line in stage.history.lines("kept")}
    fault.saw(f"{len(kept)} of {len(NASTY) + 1} identical in the handler")
    assert {n: (value, {}) for n, value in calls} | {99: (None, {text: text for text in NASTY})} == kept


@pytest.mark.fault(35)
@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_half_a_character_is_refused_and_nothing_is_sent(stage: Stage, fault: Fault, encoding: Encoding) -> None:
    app = app_on(stage, encoding)
    put(stage)
    producer = app.get_task("keep").using(queue=stage.queue)
    places: list[Callable[[str], object]] = [
        producer.enqueue,
        lambda text: producer.enqueue(None, named=text),
        lambda text: producer.enqueue([{"a": text}]),
        lambda text: producer.enqueue({text: 1}),
        lambda text: producer.enqueue(None, **{text: 1}),
        lambda text: producer.using(headers={"a": text}).enqueue(None),
        lambda text: producer.enqueue_many([("fine",), (text,)]),
    ]
    halves = ["\ud800", "a\udfff", "\ude00\ud83d", "\ud83d😀"]
    for half, place in itertools.product(halves, places):
        with pytest.raises(InvalidArguments):
            place(half)
    app.close()
    fault.did("calls with a lone surrogate")
    fault.saw(f"{len(halves) * len(places)} refused, {stage.remaining()} sent")
    assert 0 == stage.remaining()


@pytest.mark.fault(36)
@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_a_job_of_64_kib_as_sent_is_accepted_and_no_byte_more(stage: Stage, fault: Fault, encoding: Encoding) -> None:
    """In Base64, the next larger size is 65,540 bytes."""
    app = app_on(stage, encoding)
    put(stage)
    task = app.get_task("keep")
    refusals = []
    for character in 'xé€😀"\\\x00\x85<&':
        largest = _filled(app, character)
        with pytest.raises(MessageTooLarge, match=r"is (\d+) bytes as sent, the limit is 65536") as refused:
            task.using(queue=stage.queue).enqueue(largest + "x")
        refusals.append(refused.value.size)
        assert 0 == stage.remaining()
        task.using(queue=stage.queue).enqueue(largest)
        [message] = app._portal.run(app.broker.queue(stage.queue).get(visibility=60))
        app._portal.run(app.broker.queue(stage.queue).delete(message.id, message.receipt))
        assert 65_536 == len(message.body.encode())
        assert [largest] == decode(message.body, message_id="m").args
    app.close()
    fault.did("jobs of 65,536 bytes and the next larger, of ten characters, as text and as Base64")
    fault.saw(f"{len(refusals)} accepted, {len(refusals)} of {refusals[0]:,} bytes refused")
    assert {65_537 if encoding == "text" else 65_540} == {*refusals}


def _filled(app: App, character: str) -> str:
    """Return the longest text, of a character and of x, with which a job still fits."""

    def size(text: str) -> int:
        return len(encode(app.get_task("keep")._producer._job([text], {}, utc_now()), "text").encode())

    room = 65_536 if app.encoding == "text" else 65_536 // 4 * 3
    each = size(character * 2) - size(character)
    count = min((room - size("")) // each, room // 2 // each)  # Azurite mixes up what crosses the border of 64 KiB
    text = character * count
    return text + "x" * (room - size(text))


@pytest.mark.fault(36)
def test_what_is_too_large_never_meets_the_network(fault: Fault) -> None:
    """Nobody listens there: whatever was sent would end in another error."""
    app = App(broker=connection_string(1))

    @app.task(name="keep")
    def keep(text: str) -> None: ...

    with pytest.raises(MessageTooLarge) as refused:
        keep.enqueue("x" * 65_536)
    with pytest.raises(MessageTooLarge):
        keep.enqueue_many([("fine",), ("x" * 65_536,)])
    app.close()
    fault.saw(f"where nobody listens: refused as too large, {refused.value.size} bytes")


def hostile(levels: int) -> dict[str, str]:
    """Return bodies that are made to hurt who reads them, those of arrays and objects so many levels deep."""
    call = '{"task":"input_jobs.take"'
    return {
        "arrays without end": "[" * levels,
        "arrays in arrays": f'{call},"args":{"[" * levels}{"]" * levels}}}',
        "objects in objects": call + ',"kwargs":' + '{"n":' * levels + "1" + "}" * (levels + 1),
        "an integer of 5,000 digits": f'{call},"args":[{"9" * 5_000}]}}',
        "a float of 5,000 digits": f'{call},"args":[{"9" * 5_000}.5]}}',
        "NaN": f'{call},"args":[NaN]}}',
        "-Infinity": f'{call},"args":[-Infinity]}}',
        "a task twice": f'{call},"task":"os.system","args":[1]}}',
        "a key 3,000 times": call + ',"kwargs":{' + ",".join(['"n":1'] * 3_000) + "}}",
        "an integer as version": f'{call},"v":{"9" * 4_300}}}',
        "a tree as version": f'{call},"v":{"[" * 190}{"]" * 190}}}',
    }


@pytest.mark.fault(37)
@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_hostile_json_is_rejected_at_once(fault: Fault, encoding: Encoding) -> None:
    """The best of several readings is measured: others have a processor to share."""
    slowest = 0.0
    texts = hostile(100_000)
    for kind, text in texts.items():
        body = text if encoding == "text" else _in_base64(text.encode())
        times = []
        for _ in range(5):
            began = time.perf_counter()
            with pytest.raises(InvalidEnvelope):
                decode(body, message_id="m1")
            times.append(time.perf_counter() - began)
        slowest = max(slowest, min(times))
        assert min(times) < 0.05, kind
    fault.did(f"{len(texts)} kinds of hostile JSON, as text and as Base64")
    fault.saw(f"the slowest rejected in {1000 * slowest:.1f} ms")


@pytest.mark.fault(37)
def test_a_worker_survives_hostile_json(stage: Stage, fault: Fault) -> None:
    bodies = [*hostile(6_000).values()]  # more would leave no room for the reason
    put(stage, *bodies)
    stage.enqueue(input_jobs.take, 1)
    worker = stage.worker("--burst", app="input_jobs")
    assert 0 == worker.wait(), worker.output
    records = take_poisoned(stage)
    fault.saw(f"{len(records)} poisoned by a worker that then ran a good one")
    assert sorted(bodies) == sorted(record.body for record in records)
    assert {(1, "InvalidEnvelope")} == {(record.attempts, record.failure.type) for record in records}
    assert [1] == [line["n"] for line in stage.history.lines("end")]
    assert 0 == stage.remaining()


CANARY = "canary-5ecret"
FORGED = (
    '\n12:00:00.000 [info     ] forged\r\n{"event": "forged"}\n'
    "\x1b[2J\x1b]0;title\x07\x9b31m\u2028\u2029\x85\x0b\x0c\x1c\x00\x7f"
)
FIELD = 2_048


SHOUTS = [(FORGED, 1), (FORGED, 2_000), ("😀", 25_000), ('"\\', 50_000), ("\n", 100_000), ("x", 100_000)]
LINES = {"job.retried": len(SHOUTS), "job.poisoned": len(SHOUTS) + 2, "message.poisoned": 3}


def enqueue_odd_jobs(stage: Stage) -> None:
    """Enqueue jobs of odd names, arguments and errors, each with a canary in its arguments."""
    secret = CANARY + FORGED
    input_jobs.shout.using(queue=stage.queue).enqueue_many(
        [(n, secret, text, times) for n, (text, times) in enumerate(SHOUTS)]
    )
    input_jobs.oddly_named.using(queue=stage.queue).enqueue(10, secret, FORGED)
    put(
        stage,
        json.dumps({"task": '{"event": "forged"} [info     ] forged', "args": [secret]}),
        json.dumps({"task": "input_jobs.take", "args": [secret]}),
        json.dumps({"task": FORGED, "args": [secret]}),
        json.dumps({"task": "input_jobs.take", "id": FORGED * 100, "args": [secret]}),
        json.dumps({"v": FORGED * 100, "task": "input_jobs.take", "args": [secret]}),
    )


@pytest.mark.fault(38)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_whatever_a_text_holds_it_is_one_line(stage: Stage, fault: Fault, log_format: str) -> None:
    enqueue_odd_jobs(stage)
    worker = stage.worker("--burst", "--log-format", log_format, app="input_jobs")
    assert 0 == worker.wait(), worker.output
    lines = worker.output.splitlines()
    seen, longest = (_json_lines if log_format == "json" else _console_lines)(lines)
    fault.did("names, arguments and errors of up to 150 KB, with newlines, ANSI codes, JSON")
    fault.saw(f"{len(lines)} lines for {sum(seen.values())} events, the longest field {longest:,} bytes")
    assert worker.output == "".join(f"{line}\n" for line in lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", worker.output)
    assert LINES == {event: seen[event] for event in LINES}
    assert seen["task.unknown"] >= 1  # it may come back while the worker runs
    assert 2 == seen["worker.started"] + seen["worker.stopped"]
    assert longest <= FIELD
    assert CANARY not in worker.output
    assert len(SHOUTS) + 5 == len(stage.poisoned())


def _json_lines(lines: list[str]) -> tuple[Counter[str], int]:
    fields = [json.loads(line) for line in lines]
    sizes = [len(json.dumps(value, ensure_ascii=False).encode()) for line in fields for value in line.values()]
    return Counter(line["event"] for line in fields), max(sizes)


def _console_lines(lines: list[str]) -> tuple[Counter[str], int]:
    """Each begins with its time; what is said of a field's size is said of its text between the keys."""
    begun = [re.match(r"\d\d:\d\d:\d\d\.\d{3} \[(?:info|warning|error) *\] (\S+) ", line) for line in lines]
    sizes = [len(part.encode()) for line in lines for part in re.split(r" \w+=", line)]
    return Counter(line[1] if line else "no line" for line in begun), max(sizes)


def with_entities(entities: str, text: str) -> Callable[[bytes], bytes]:
    """Return what puts entities into an answer, and a text of them in the place of all messages."""
    message = "".join(f"<{name}>{text}</{name}>" for name in ("MessageId", "PopReceipt", "MessageText"))
    document = f"<QueueMessagesList><QueueMessage>{message}</QueueMessage></QueueMessagesList>"
    return lambda _: f'<?xml version="1.0"?><!DOCTYPE x [{entities}]>{document}'.encode()


BOMBS = {
    "billion laughs": with_entities(
        '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 11)), "&l10;"
    ),
    "one large entity, often": with_entities(f'<!ENTITY a "{"x" * 3_000_000}">', "&a;" * 30),
    "one small entity, very often": with_entities(f'<!ENTITY a "{"x" * 6_000}">', "&a;" * 10_000),
    "a file": with_entities('<!ENTITY a SYSTEM "file:///etc/passwd">', "&a;"),
}


@pytest.mark.fault(39)
def test_an_answer_with_entities_is_refused_unexpanded(
    azurite: Azurite, fault_proxy: FaultProxy, stage_on: MakeStage, fault: Fault
) -> None:
    stage = stage_on(azurite.connection_string, worker_url=fault_proxy.connection_string)
    worker = stage.worker(app="input_jobs")
    stage.enqueue(input_jobs.take, 0)
    wait_until(lambda: stage.history.count("end")[0], what="a job")
    before = peak_memory(worker)
    times = fault.scale(short=1, full=10)
    rules = [fault_proxy.add(Rule(ChangeXML(bomb), on="get", times=times)) for bomb in BOMBS.values()]
    wait_until(lambda: all(rule.applied == times for rule in rules), within=300, what="the answers of each kind")
    worker.wait_for("poll.failed")
    stage.enqueue(input_jobs.take, 1)
    wait_until(lambda: stage.history.count("end")[1], what="a job after all that")
    grown = peak_memory(worker) - before
    sizes = [len(bomb(b"")) for bomb in BOMBS.values()]
    fault.did(
        f"{len(BOMBS)} kinds of answers with entities, of {min(sizes):,} to {max(sizes):,} bytes, {times} of each"
    )
    fault.saw(f"{grown:.0f} MB more memory, and the next job was run")
    assert "the answer can't be read (EntitiesRefused)" in worker.lines("poll.failed")[0]["reason"]
    assert grown < 100


def peak_memory(worker: WorkerProcess) -> float:
    """Return the most memory that it has had, in MB."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) / 1024
