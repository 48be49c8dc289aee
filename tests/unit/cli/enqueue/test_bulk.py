import json
import signal
import threading
from collections.abc import Iterable, Iterator

import pytest

from doubles import ScriptedBroker
from qworker import App
from qworker.cli.enqueue.bulk import BATCH, Bulk
from qworker.cli.enqueue.job_lines import Options
from qworker.cli.enqueue.line_numbers import LineNumbers
from qworker.cli.enqueue.lines import Line
from qworker.cli.shared.stopping import Stopped, Stopping
from qworker.errors import AnswerLost, BrokerRefused, BrokerUnusable
from qworker.wire.bundle import contents_of
from waiting import until


class Seen:
    def __init__(self) -> None:
        self.bad_lines: list[tuple[int, str]] = []
        self.jobs: list[int] = []

    def bad_line(self, number: int, problem: str) -> None:
        self.bad_lines.append((number, problem))

    def enqueued(self, jobs: int) -> None:
        self.jobs.append(jobs)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworker.produce.enqueuer._PAUSES", ())


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def app(broker: ScriptedBroker) -> Iterator[App]:
    app = App(broker=broker)

    @app.task(name="one", queue="ones")
    def one(n: int) -> None: ...

    @app.task(name="many", queue="many", bundle=400)
    def many(n: int) -> None: ...

    yield app
    app.close()


def lines(*numbers: int, task: str = "one") -> Iterable[Line]:
    return [Line(n, json.dumps({"task": task, "args": [n]}).encode()) for n in numbers]


def sent(broker: ScriptedBroker, queue: str = "ones") -> list[int]:
    return [json.loads(body)["args"][0] for [body, _, _] in broker.queue(queue).called("put")]


def bulk(app: App, *, skip: str = "", start: int = 1, strict: bool = False) -> Bulk:
    skipped = LineNumbers.parse("", skip) if skip else LineNumbers()
    return Bulk(app, Seen(), Stopping(), Options(), start, skipped, strict)


def stopped(work: Bulk, given: Iterable[Line | None]) -> Stopped:
    with pytest.raises(Stopped) as raised:
        work.run(given)
    return raised.value


def test_bundles_are_filled(app: App, broker: ScriptedBroker) -> None:
    work = bulk(app)
    work.run(lines(*range(1, 902), task="many"))
    bodies = [body for [body, _, _] in broker.queue("many").called("put")]
    contents = [contents_of(body, message_id="m") for body in bodies]
    assert [400, 400, 101] == [len(found.members) for found in contents if found is not None]
    assert (901, "901 jobs enqueued in 0.") == (work.jobs, work.counted()[:-3])


def test_no_more_than_a_batch_is_held(app: App, broker: ScriptedBroker) -> None:
    taken = 0

    def endless() -> Iterator[Line]:
        nonlocal taken
        for line in lines(*range(1, 2 * BATCH + 2), task="many"):
            taken = line.number
            yield line
            if line.number % 500 == 0:
                assert line.number - len(put_so_far()) < BATCH

    def put_so_far() -> list[object]:
        found = (contents_of(body, message_id="m") for [body, _, _] in broker.queue("many").called("put"))
        return [member.said for contents in found if contents is not None for member in contents.members]

    work = bulk(app)
    work.run(endless())
    assert (2 * BATCH + 1, [BATCH, 2 * BATCH, taken]) == (work.jobs, work.view.jobs)  # type: ignore[attr-defined]


def test_what_was_read_is_enqueued_before_a_wait(app: App, broker: ScriptedBroker) -> None:
    def slow() -> Iterator[Line | None]:
        yield from lines(1)
        yield None
        assert [1] == sent(broker)
        yield from lines(2)

    bulk(app).run(slow())
    assert [1, 2] == sent(broker)


def test_lines_before_the_start_and_those_to_skip_are_left_out(app: App, broker: ScriptedBroker) -> None:
    bulk(app, start=3, skip="4,6-7").run(lines(*range(1, 10)))
    assert [3, 5, 8, 9] == sent(broker)


def test_a_bad_line_stops_nothing(app: App, broker: ScriptedBroker) -> None:
    work = bulk(app)
    work.run([*lines(1), Line(2, b"x"), Line(3, b"  "), *lines(4)])
    assert ([1, 4], 1, [(2, "it is not a JSON object")]) == (sent(broker), work.bad_lines, work.view.bad_lines)  # type: ignore[attr-defined]
    assert work.counted().endswith(" s, 1 bad line")


def test_a_bad_line_is_the_end_if_strict(app: App, broker: ScriptedBroker) -> None:
    error = stopped(bulk(app, strict=True), [*lines(1, 2), Line(3, b"x"), *lines(4)])
    assert ([1, 2], 65) == (sent(broker), error.exit_code)
    assert str(error).startswith("line 3: it is not a JSON object; 2 jobs enqueued in 0.")
    assert str(error).endswith(" s: go on with --start-line 3")


def test_a_failure_says_which_line_is_next(app: App, broker: ScriptedBroker) -> None:
    broker.queue("ones").will("put", *[f"m{n}" for n in range(BATCH)], BrokerRefused("no"))
    error = stopped(bulk(app, start=2), lines(*range(1, BATCH + 9)))
    assert (f"no; {BATCH:,} jobs", 1) == (str(error)[: len(f"no; {BATCH:,} jobs")], error.exit_code)
    assert str(error).endswith(f": go on with --start-line {BATCH + 2}")


def test_a_gap_in_what_is_enqueued_is_told(app: App, broker: ScriptedBroker) -> None:
    broker.queue("ones").will("put", "m1", BrokerRefused("no"), "m3", AnswerLost("hm"))
    error = stopped(bulk(app, skip="2,9"), lines(*range(1, 6)))
    assert str(error).startswith("no; 2 jobs enqueued")
    assert str(error).endswith(
        ": go on with --start-line 3 --skip-lines 4,9; "
        "the broker did not answer for these lines, which may be enqueued already: 5"
    )
    again = bulk(app, start=3, skip="4,9")
    again.run(lines(*range(1, 10)))
    assert [3, 5, 6, 7, 8] == sent(broker)[-5:]


def test_a_single_lost_answer_is_told(app: App, broker: ScriptedBroker) -> None:
    broker.queue("ones").will("put", AnswerLost("hm"))
    error = stopped(bulk(app), lines(1))
    assert "may or may not be queued" in str(error)
    assert str(error).endswith(
        "--start-line 1; the broker did not answer for these lines, which may be enqueued already: 1"
    )


def test_a_group_that_was_put_before_another_failed_is_told(app: App, broker: ScriptedBroker) -> None:
    broker.queue("many").will("put", BrokerUnusable("torn"))
    error = stopped(bulk(app), [*lines(1), *lines(2, task="many"), *lines(3), *lines(4, task="many")])
    assert ([1, 3], 78) == (sent(broker), error.exit_code)
    assert str(error).endswith(": go on with --start-line 2 --skip-lines 3")


def test_a_signal_ends_it_where_it_can_say_how_far_it_is(app: App, broker: ScriptedBroker) -> None:
    work = bulk(app)

    def interrupted() -> Iterator[Line | None]:
        yield from lines(1, 2)
        yield None
        yield from lines(3)
        signal.raise_signal(signal.SIGINT)
        yield from lines(4)

    with work.stopping:
        error = stopped(work, interrupted())
    assert ([1, 2], 130) == (sent(broker), error.exit_code)
    assert str(error).startswith("interrupted; 2 jobs enqueued in 0.")
    assert str(error).endswith(": go on with --start-line 3")


def test_a_second_signal_leaves_in_doubt_what_is_under_way(app: App, broker: ScriptedBroker) -> None:
    work = bulk(app)

    main, done = threading.main_thread().ident or 0, threading.Event()

    async def hang() -> str:
        signal.pthread_kill(main, signal.SIGINT)
        await until(lambda: work.stopping.asked)
        signal.pthread_kill(main, signal.SIGTERM)
        await until(done.is_set)
        return "m1"

    broker.queue("ones").will("put", hang)
    with work.stopping:
        error = stopped(work, lines(1, 2))
    done.set()
    assert 143 == error.exit_code
    assert str(error).endswith(
        "--start-line 1; the broker did not answer for these lines, which may be enqueued already: 1-2"
    )


def test_an_input_that_breaks_is_told(app: App, broker: ScriptedBroker) -> None:
    def broken() -> Iterator[Line | None]:
        yield from lines(1)
        raise OSError(5, "Input/output error")

    error = stopped(bulk(app), broken())
    assert str(error).startswith("line 2 can't be read: Input/output error; 0 jobs")
    assert str(error).endswith("--start-line 1")
