import copy
import io
import json
import logging
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from qworker.lines.escaping import HIDDEN
from qworker.lines.records import Line, extras_of, write
from qworker.lines.structlog_events import logger_for_handlers
from qworker.observe.log_format import ConsoleFormatter, JsonFormatter

FORGED = "\n12:00:00.000 [info     ] job.succeeded    job=1"
TURNING = "\u202e\u2066\u061c"
NAMES = ["name", "msg", "args", "message", "level", "event_", "timestamp", "logger", "taskName", "exc_info_", "a b=1"]


class Odd:
    """One whose own text is as odd as can be."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        if "fails" in self.text:
            raise ValueError(self.text)
        return self.text


class OddText(str):
    __slots__ = ()

    def __str__(self) -> str:
        return f"{FORGED}{TURNING}"

    __repr__ = __str__


class OddNumber(int):
    def __repr__(self) -> str:
        return FORGED

    __str__ = __repr__


texts = st.text(st.characters() | st.sampled_from(f"\n\r\x1b\x85\u2028 =\"'\\{TURNING}\ud800")) | st.just(FORGED)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary()
    | st.dates()
    | texts
    | st.builds(Odd, texts | st.just("fails"))
    | st.builds(OddText, texts)
    | st.builds(OddNumber, st.integers())
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(texts | st.integers(), inner), max_leaves=8
)
fields = st.dictionaries(texts | st.sampled_from(NAMES), values, max_size=6)


class Keeper(logging.Handler):
    def __init__(self, found: list[logging.LogRecord]) -> None:
        super().__init__()
        self.emit = found.append  # type: ignore[assignment, method-assign]


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What a logger of its own is given."""
    found: list[logging.LogRecord] = []
    logger = logging.getLogger("the.task")
    handler = Keeper(found)
    logger.addHandler(handler)
    logger.setLevel("DEBUG")
    yield found
    logger.removeHandler(handler)
    logger.setLevel("NOTSET")


def record_of(event: object, said: dict[Any, Any]) -> logging.LogRecord:
    found: list[logging.LogRecord] = []
    logger = logging.Logger("the.task")  # noqa: LOG001 — it is nobody else's
    logger.addHandler(Keeper(found))
    write(logger, logging.INFO, event, said, code=record_of.__code__)
    return found[0]


class RefusesConstants(json.JSONDecoder):
    """JSON has no NaN, though Python reads it."""

    def __init__(self) -> None:
        super().__init__(parse_constant=pytest.fail)


@given(event=texts | leaves, said=fields)
@example(event="x", said={FORGED: FORGED, TURNING: TURNING, "n": float("nan"), "deep": [float("inf"), Odd(FORGED)]})
@example(event="x", said={"big": 10**5000, "bigger": [10**5000]})
def test_whatever_is_said_is_one_line(event: object, said: dict[Any, Any]) -> None:
    record = record_of(event, said)
    as_json, for_people = JsonFormatter().format(record), ConsoleFormatter(colors=False).format(record)
    by_others = logging.Formatter("%(levelname)s %(name)s %(message)s").format(record)
    for line in (as_json, for_people, by_others):
        assert 1 == len(line.splitlines())
        assert not HIDDEN.search(line)
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} \[info     \] ", for_people)
    assert by_others.startswith("INFO the.task ")
    loaded = json.loads(as_json, cls=RefusesConstants)
    assert ("info", len(said) + 3) == (loaded["level"], len(loaded))
    made: Any = record.msg
    assert len(said) == len(made.attributes) - 1
    for value in made.attributes.values():
        assert not (isinstance(value, str) and HIDDEN.search(value))
    json.dumps(made.attributes, allow_nan=False)


@given(said=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), st.integers(0, 9), max_size=6))
def test_no_field_is_lost_and_no_record_harmed(said: dict[str, int]) -> None:
    record = record_of("hello", said)
    assert ("the.task", "INFO", (), None) == (record.name, record.levelname, record.args, record.exc_info)
    assert record.getMessage().startswith("hello")
    loaded = json.loads(JsonFormatter().format(record))
    assert sorted(said.values()) == sorted(
        value for key, value in loaded.items() if key not in {"event", "level", "timestamp"}
    )


@pytest.mark.parametrize("key", ["exception", "traceback"])
def test_a_field_of_several_lines_keeps_them_and_cannot_forge_one(key: str) -> None:
    record = record_of("hello", {key: f"Traceback{FORGED}{TURNING}\x1b[2J"})
    assert "hello" == record.getMessage()
    assert f"Traceback{FORGED}\\u202e\\u2066\\u061c\\x1b[2J" == json.loads(JsonFormatter().format(record))[key]
    assert all(line.startswith("    ") for line in ConsoleFormatter(colors=False).format(record).splitlines()[1:])


def test_a_line_reads_well() -> None:
    said = {
        "task": "mail.send",
        "error": "it's late",
        "seconds": 0.5,
        "none": None,
        "to": "",
        "path": "C:\\x",
        "a b": 1,
    }
    text = "mail.sent task=mail.send error=\"it's late\" seconds=0.5 none=None to='' path=C:\\x 'a b'=1"
    assert text == record_of("mail.sent", said).getMessage()


def test_names_that_records_have_themselves_get_an_underscore() -> None:
    record = record_of("hello", {"name": "ada", "name_": "eve", "message": 1, "level": 2})
    added = {"event": "hello", "name_": "ada", "name__": "eve", "message_": 1, "level_": 2}
    assert added.items() <= vars(record).items()
    loaded = json.loads(JsonFormatter().format(record))
    assert {"name": "ada", "name_": "eve", "message": 1, "level_": 2, "level": "info"}.items() <= loaded.items()


def test_what_filters_and_factories_add_is_shown_too() -> None:
    record = record_of("hello", {"n": 1})
    record.request_id = "r1"
    assert {"request_id": "r1"} == extras_of(record)
    assert json.loads(JsonFormatter().format(record))["request_id"] == "r1"
    plain = logging.makeLogRecord(
        {"msg": "%s comes", "args": ("ada",), "name": "lib", "levelname": "INFO", "to": "x\ny"}
    )
    assert "] ada comes         [lib] to=x\\ny" in ConsoleFormatter(colors=False).format(plain)


def test_a_library_whose_arguments_do_not_fit_is_heard() -> None:
    wrong = logging.makeLogRecord({"msg": "%d", "args": ("secret",), "levelname": "INFO", "name": "lib"})
    assert "%d (its arguments don't fit)" == json.loads(JsonFormatter().format(wrong))["event"]


def test_a_record_can_be_sent_to_another_process() -> None:
    record = record_of("hello", {"n": 1})
    sent = pickle.loads(pickle.dumps(copy.copy(record)))
    assert "hello n=1" == sent.getMessage()
    assert isinstance(sent.msg, Line)
    assert {"n": 1} == sent.msg.fields


def test_the_log_of_a_handler_is_a_logger_of_its_tasks_name(records: list[logging.LogRecord]) -> None:
    log = logger_for_handlers("the.task", job="j1", task="the.task")
    log.info("number %d", 5, name="ada")
    log.debug("with its stack", stack_info=True)
    try:
        int("x")
    except ValueError as error:
        log.exception("it failed")
        log.warning("it failed", exc_info=error)
        log.critical("it failed", exc_info=(type(error), error, error.__traceback__))
    log.error("nothing is wrong", exc_info=True)  # noqa: LOG014 — it says so
    first, second, *failed, last = records
    assert ("number 5 name=ada task=the.task job=j1", "the.task", 20) == (first.getMessage(), first.name, first.levelno)
    assert ("test_records.py", "test_the_log_of_a_handler_is_a_logger_of_its_tasks_name") == (
        first.filename,
        first.funcName,
    )
    assert first.lineno == second.lineno - 1
    assert second.stack_info is not None
    assert second.stack_info.endswith('log.debug("with its stack", stack_info=True)')
    assert [ValueError] * 3 == [record.exc_info[0] for record in failed if record.exc_info]
    assert ["ERROR", "WARNING", "CRITICAL"] == [record.levelname for record in failed]
    assert last.exc_info is None


def test_a_level_of_its_logger_holds_and_being_disabled_does_not(records: list[logging.LogRecord]) -> None:
    logging.getLogger("the.task").setLevel("WARNING")
    logging.getLogger("the.task").disabled = True
    log = logger_for_handlers("the.task")
    log.info("unheard")
    log.warning("heard")
    assert ["heard"] == [record.getMessage() for record in records]


def test_bound_variables_are_fields(records: list[logging.LogRecord]) -> None:
    with structlog.contextvars.bound_contextvars(request="r1"):
        logger_for_handlers("the.task").info("hello")
    assert ["hello request=r1"] == [record.getMessage() for record in records]


def test_the_order_of_fields_is_always_the_same(records: list[logging.LogRecord]) -> None:
    """A context has its variables in the order of their hashes, which is another in each process."""
    bound = {"job": "j1", "task": "the.task", "b": 1, "a": 2, "queue": "q", "attempt": 1}
    with structlog.contextvars.bound_contextvars(**bound):
        logger_for_handlers("the.task", job="j1", task="the.task").info("hello", z=0)
        mine = records[0].getMessage()
        other = logging.makeLogRecord({"msg": "hello", "levelname": "INFO", "name": "lib"})
        theirs = ConsoleFormatter(colors=False).format(other)
    assert "hello z=0 a=2 b=1 task=the.task attempt=1 queue=q job=j1" == mine
    assert theirs.endswith("[lib] a=2 b=1 task=the.task attempt=1 queue=q job=j1")


@pytest.mark.parametrize("stream_takes_colors", [True, False])
def test_colors_are_the_consoles_own(*, stream_takes_colors: bool) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ConsoleFormatter(colors=stream_takes_colors))
    handler.handle(record_of("hello\x1b[31m", {"n\x1b[31m": "\x1b[31m"}))
    assert stream_takes_colors == ("\x1b" in stream.getvalue())
    assert "hello\\x1b[31m" in stream.getvalue()
