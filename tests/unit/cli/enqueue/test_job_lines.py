import json
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from doubles import ScriptedBroker
from qworker import App
from qworker.cli.enqueue.job_lines import BadLine, Batch, Options
from qworker.cli.enqueue.lines import Line


@pytest.fixture
def app() -> App:
    app = App(broker=ScriptedBroker())

    @app.task(name="send", queue="mail", bundle=7)
    def send(to: str, at: int = 0) -> None:
        if not to:
            raise AssertionError("only called by a worker")

    return app


def line(text: str, number: int = 1) -> Line:
    return Line(number, text.encode("utf-8", "surrogateescape"))


def test_jobs_that_go_the_same_way_are_together(app: App) -> None:
    batch = Batch()
    for number, content in enumerate(
        [
            {"args": ["a"]},
            {"task": "send", "kwargs": {"to": "b", "at": 2}},
            {"args": ["c"], "delay": "1m"},
            {"args": ["d"], "delay": 60, "queue": None},
            {"args": ["e"], "queue": "slow", "ttl": 5},
        ]
    ):
        batch.add(line(json.dumps(content), number), app, Options("send"))
    assert {
        Options("send"): [0, 1],
        Options("send", delay=60): [2, 3],
        Options("send", queue="slow", ttl=5): [4],
    } == {options: group.lines for options, group in batch.groups.items()}
    assert 5 == len(batch)
    first = batch.groups[Options("send")]
    assert [(["a"], {}), ([], {"to": "b", "at": 2})] == [(job.args, job.kwargs) for job in first.jobs]


def test_the_command_line_is_for_what_a_line_does_not_say(app: App) -> None:
    batch = Batch()
    batch.add(line('{"args":["a"],"ttl":9}'), app, Options("send", queue="slow", ttl=5, delay=1))
    assert [Options("send", queue="slow", ttl=9, delay=1)] == list(batch.groups)


def test_headers_are_each_jobs_own(app: App) -> None:
    batch = Batch()
    for content in ('{"args":["a"],"headers":{"tenant":"x"}}', '{"args":["b"]}', '{"args":["c"],"headers":{"a":"b"}}'):
        batch.add(line(content), app, Options("send"))
    [group] = batch.groups.values()
    assert [{"tenant": "x"}, {}, {"a": "b"}] == [job.headers for job in group.jobs]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "it is not a JSON object"),
        ("e30=", "it is not a JSON object"),
        ('{"args":["a"', "it is not JSON: Expecting ',' delimiter at character 13"),
        ('{"args":["a"],"args":["b"]}', "a key stands twice in one JSON object"),
        ('{"args":[NaN]}', "NaN is not JSON"),
        ('{"args":["\\ud800"]}', "it holds a lone surrogate, which is no character"),
        ('{"args":["\udcff"]}', "it is not UTF-8 text"),
        ('{"arg":["a"]}', "no such key: 'arg'; there are task, args, kwargs, queue, delay, ttl, headers"),
        ('{"args":"a"}', "'args' must be an array"),
        ('{"kwargs":["a"]}', "'kwargs' must be an object"),
        ('{"args":["a"],"queue":5}', "'queue' must be a valid string"),
        ('{"args":["a"],"headers":["x"]}', "'headers' must be an object"),
        ('{"args":["a"],"headers":{"x":5}}', "'headers': 'x' must be a valid string"),
        ('{"args":["a"],"delay":"soon"}', "'delay': 'soon' is not a time span such as 90, 90s, 5m or 1h"),
        ('{"args":["a"],"delay":"8d"}', "task send: delay must be from 0 seconds to 7 days, not 691,200 s"),
        ('{"args":["a"],"delay":5,"ttl":5}', "task send: a ttl of 5 s must be more than the delay of 5 s"),
        ('{"args":["a"],"ttl":"25000d"}', "task send: ttl must be more than 0 seconds and at most 2,147,483,647 s"),
        ('{"args":["a"],"ttl":0}', "task send: ttl must be more than 0 seconds and at most 2,147,483,647 s"),
        ('{"args":["a"],"queue":"A"}', "queue name 'A' has 1 characters: use 3 to 63"),
        ('{"task":"sent"}', "unknown task 'sent'; registered: send"),
        ("{}", "send: missing a required argument: 'to'"),
        ('{"args":["a","x"]}', "send: at: Input should be a valid integer, unable to parse string as an integer"),
        (f'{{"args":["{"x" * 70_000}"]}}', "the job is 70130 bytes as sent, the limit is 65536"),
    ],
    ids=lambda value: value[:30],
)
def test_a_bad_line_says_what_is_wrong(app: App, text: str, problem: str) -> None:
    batch = Batch()
    with pytest.raises(BadLine) as raised:
        batch.add(line(text), app, Options("send"))
    assert str(raised.value).startswith(problem)
    assert 0 == len(batch)


def test_a_line_needs_a_task(app: App) -> None:
    with pytest.raises(BadLine, match=r"^which task"):
        Batch().add(line('{"args":["a"]}'), app, Options())


def test_a_line_too_long_or_cut_off_is_said_to_be(app: App) -> None:
    with pytest.raises(BadLine, match="it is longer than 1,048,576 bytes"):
        Batch().add(Line(1, None), app, Options("send"))
    with pytest.raises(BadLine, match=r"at character 10 \(the input ends within this line\)"):
        Batch().add(Line(1, b'{"args":[', whole=False), app, Options("send"))


def test_a_validator_that_breaks_is_one_bad_line() -> None:
    app = App(broker=ScriptedBroker())

    def broken(value: Any) -> Any:
        raise KeyError(value)

    @app.task(name="odd")
    def odd(n: Annotated[int, AfterValidator(broken)]) -> None: ...

    with pytest.raises(BadLine, match="odd: n: a validator of its type raised KeyError"):
        Batch().add(line('{"args":[5]}'), app, Options("odd"))
