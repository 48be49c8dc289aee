"""Whatever an app has set up of logging stays: each event is one readable line, in the format that it should have."""

import asyncio
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from documents import Runner
from qworker.brokers.sqlite.broker import SqliteBroker
from running import run

SEED = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(10**6)))
SAMPLE = 24
"""Combinations at random that are tried beside those that are always."""
WITH_CHILD = 0.25
"""The share of them in which a child process logs too: it costs twice what all the rest of a worker does."""

TASKS = """
import logging
from qworker import INJECTED, App, Backoff, Context

app = App()

@app.task
def ok(*, ctx: Context = INJECTED) -> None:
    ctx.log.info("from the handler", to="ada")
    logging.getLogger("some.library").info("from a library, %s", 1)

@app.task(executor="process")
def in_child(*, ctx: Context = INJECTED) -> None:
    ctx.log.info("from a child")

@app.task(max_attempts=2, backoff=Backoff(base=0))
def fails() -> None:
    raise ValueError("two\\nlines")
"""
JOBS = ['{"task": "hosted.ok"}', '{"task": "hosted.fails"}', "no job"]
CHILDS = '{"task": "hosted.in_child"}'
EVENTS = {
    "worker.started": (1, "INFO"),
    "job.succeeded": (2, "INFO"),
    "job.retried": (1, "WARNING"),
    "job.poisoned": (1, "ERROR"),
    "message.poisoned": (1, "ERROR"),
    "worker.stopping": (1, "INFO"),
    "worker.stopped": (1, "INFO"),
}
HANDLERS = {"from the handler": "task=hosted.ok", "from a child": "task=hosted.in_child"}
RANKS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}

TEXT = r"HOST (DEBUG|INFO|WARNING|ERROR) [\w.]+ "
CONSOLE = r"\d\d:\d\d:\d\d\.\d{3} \[(debug|info|warning|error) +\] "

DICT = """
import logging.config
logging.config.dictConfig({{
    "version": 1, {more}
    "formatters": {{"plain": {{"format": "HOST %(levelname)s %(name)s %(message)s"}}}},
    "handlers": {{"console": {{"class": "logging.StreamHandler", "formatter": "plain"}}}},
    {rest}
}})
"""
HANDLER = """
import logging, sys
handler = logging.StreamHandler(sys.{stream})
handler.setFormatter(logging.Formatter("HOST %(levelname)s %(name)s %(message)s"))
logging.getLogger({logger}).addHandler(handler)
"""
FILE = """
import logging.config, pathlib
pathlib.Path("logging.ini").write_text('''
[loggers]
keys=root
[handlers]
keys=console
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=console
[handler_console]
class=StreamHandler
formatter=plain
[formatter_plain]
format=HOST %(levelname)s %(name)s %(message)s
''')
logging.config.fileConfig("logging.ini")
"""
AS_JSON = """
import json, logging

class Json(logging.Formatter):  # as python-json-logger does
    known = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

    def format(self, record):
        added = {key: value for key, value in vars(record).items() if key not in self.known}
        return json.dumps({"message": record.getMessage(), "level": record.levelname, **added})

handler = logging.StreamHandler()
handler.setFormatter(Json())
logging.basicConfig(level="INFO", handlers=[handler])
"""
FACTORY = """
import logging
make = logging.getLogRecordFactory()

def making(*args, **kwargs):
    record = make(*args, **kwargs)
    record.task = record.queue = record.request_id = "the host's"
    return record

logging.setLogRecordFactory(making)
logging.basicConfig(level="INFO", format="HOST %(levelname)s %(name)s %(message)s")
"""


@dataclass(frozen=True)
class Host:
    """A way to set up logging, and the lines that come of it; None: those of qworker's own formats."""

    code: str
    line: str | None = TEXT
    root: str = "INFO"
    """The level that comes of it, where nothing else sets it."""
    by: str = "root"
    """Whose lines those are: the root's, or one logger's, where all others are of qworker's own formats."""


HOSTS = {
    "nothing": Host("", None),
    "basicConfig": Host(
        "import logging\nlogging.basicConfig(level='INFO', format='HOST %(levelname)s %(name)s %(message)s')"
    ),
    "basicConfig without a level": Host(
        "import logging\nlogging.basicConfig(format='HOST %(levelname)s %(name)s %(message)s')"
    ),
    "dictConfig": Host(DICT.format(more="", rest='"root": {"handlers": ["console"], "level": "INFO"}')),
    "dictConfig that spares loggers": Host(
        DICT.format(more='"disable_existing_loggers": False,', rest='"root": {"handlers": ["console"]}')
    ),
    "dictConfig of a logger of the app's": Host(
        DICT.format(more="", rest='"loggers": {"shop": {"handlers": ["console"]}}'), None
    ),
    "dictConfig of the library's logger": Host(
        DICT.format(more="", rest='"loggers": {"some": {"handlers": ["console"]}}'), by="some.library"
    ),
    "dictConfig of qworker's logger": Host(
        DICT.format(more="", rest='"loggers": {"qworker": {"handlers": ["console"]}}'), by="qworker"
    ),
    "fileConfig": Host(FILE),
    "a handler": Host(HANDLER.format(stream="stderr", logger="")),
    "a handler on standard output": Host(HANDLER.format(stream="stdout", logger="")),
    "a handler of qworker's logger": Host(HANDLER.format(stream="stderr", logger='"qworker"'), by="qworker"),
    "a handler that writes nothing": Host(
        "import logging\nlogging.getLogger().addHandler(logging.NullHandler())", None
    ),
    "a function that sets up logging by itself": Host("import logging\nlogging.debug('from the module')", None),
    "a function that does, and then a level": Host(  # as basicConfig(level="INFO") does
        "import logging\nlogging.debug('from the module')\nlogging.getLogger().setLevel('INFO')",
        r"(DEBUG|INFO|WARNING|ERROR):[\w.]+:",
    ),
    "JSON": Host(AS_JSON, r'\{"message": "'),
    "a factory of records": Host(FACTORY),
}
LEVELS = {
    "no level": ("", None, None),
    "the root's at WARNING": ("logging.getLogger().setLevel('WARNING')", "WARNING", None),
    "qworker's at WARNING": ("logging.getLogger('qworker').setLevel('WARNING')", None, "WARNING"),
    "qworker's at INFO below the root's": (
        "logging.getLogger().setLevel('WARNING')\nlogging.getLogger('qworker').setLevel('INFO')",
        "WARNING",
        "INFO",
    ),
}
STRUCTLOGS = {
    "none": "",
    "to logging, with its levels": """
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger)
""",
    "to logging, rendered": """
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, structlog.processors.KeyValueRenderer(key_order=["event"])],
    logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger)
""",
    "printed": """
structlog.configure(
    processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
    logger_factory=structlog.PrintLoggerFactory())
""",
    "printed, and the factory takes no name": """
structlog.configure(
    processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
    logger_factory=lambda: structlog.PrintLogger())
""",
}
PRINTED = r"event='from "
OPTIONS: dict[str, list[str]] = {
    "as JSON": ["--log-format", "json"],
    "for people": ["--log-format", "console"],
    "unasked": [],
    "from INFO on": ["--log-level", "info"],
}


Combination = tuple[str, str, str, str]


def is_sense(host: str, levels: str, structlog: str) -> bool:
    """Say whether these are apart in HOSTS, and go together without qworker."""
    if host == "a factory of records":  # its records have a task already: logging refuses a second one in *extra*
        return structlog != "to logging, with its levels"
    return host != "a function that sets up logging by itself" or LEVELS[levels][1] is None


def each_once() -> dict[Combination, bool]:
    """Return each way to set up logging with each other option once, and whether a child process has it too."""
    others = [*product(LEVELS, STRUCTLOGS, OPTIONS)]
    once = [(host, *others[(7 * number + 3) % len(others)]) for number, host in enumerate(HOSTS)]
    once += [("dictConfig", level, "none", "unasked") for level in LEVELS]
    once += [("basicConfig", "no level", structlog, "unasked") for structlog in STRUCTLOGS]
    alone = [("dictConfig", level, "none", option) for level in LEVELS for option in OPTIONS]
    alone += [(host, "no level", "none", option) for host in HOSTS for option in ("as JSON", "for people")]
    found = dict.fromkeys(alone, False) | dict.fromkeys(once, True)
    return {each: child for each, child in found.items() if is_sense(*each[:3])}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    running = Runner()
    yield running
    running.close()


def put_jobs(folder: Path, bodies: Sequence[str] = (*JOBS, CHILDS)) -> None:
    async def put() -> None:
        broker = SqliteBroker(folder / "qworker.db")
        await broker.create_queue("default")
        for body in bodies:
            await broker.queue("default").put(body)
        await broker.aclose()

    asyncio.run(put())


def write_app(folder: Path, host: str, levels: str, structlog: str, *, child: bool = True) -> None:
    (folder / "pyproject.toml").touch()
    code = ["import logging, structlog", HOSTS[host].code, LEVELS[levels][0], STRUCTLOGS[structlog], TASKS]
    (folder / "hosted.py").write_text("\n".join(code))
    put_jobs(folder, (*JOBS, CHILDS) if child else JOBS)


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("QWORKER_", "AZURE_"))}


@pytest.mark.parametrize("combination", each_once(), ids=", ".join)
def test_each_event_is_one_readable_line(combination: Combination, runner: Runner, tmp_path: Path) -> None:
    check(combination, runner, tmp_path, child=each_once()[combination])


@pytest.mark.parametrize("number", range(SAMPLE))
def test_each_event_is_one_readable_line_at_random(number: int, runner: Runner, tmp_path: Path) -> None:
    dice = random.Random(f"{SEED} {number}")
    made = dice.choice([each for each in product(HOSTS, LEVELS, STRUCTLOGS) if is_sense(*each)])
    check((*made, dice.choice([*OPTIONS])), runner, tmp_path, child=dice.random() < WITH_CHILD)


def check(combination: Combination, runner: Runner, tmp_path: Path, *, child: bool) -> None:
    host, levels, structlog, option = combination
    write_app(tmp_path, host, levels, structlog, child=child)
    command = ["qworker", "run", "hosted", "--burst", *OPTIONS[option]]
    code, printed = runner.run(command, tmp_path, environment())
    assert 0 == code, printed
    lines = printed.splitlines()
    note = f"{combination}, {child=}, TEST_SEED={SEED}\n{printed}"

    _, root, own = LEVELS[levels]
    if "from INFO on" == option and root is not None:
        own = own or "INFO"
    seen = RANKS[own or root or "INFO"]
    expected = Counter({event: count for event, (count, rank) in EVENTS.items() if RANKS[rank] >= seen})
    heard = RANKS["INFO"] >= RANKS[root or "INFO"]
    expected["job.succeeded"] -= 0 if child or RANKS["INFO"] < seen else 1
    expected["from a library, 1"] = int(heard)
    for event in HANDLERS:
        expected[event] = int((heard or structlog.startswith("printed")) and (child or event != "from a child"))
    if option in {"as JSON", "for people"}:
        expected["log_format: "] = int(HOSTS[host].line is not None and "root" == HOSTS[host].by)
    if "from INFO on" == option:
        expected["log_level: "] = int("WARNING" == own and seen <= RANKS["WARNING"])

    texts = {event: re.compile(rf"(?<![\w.]){re.escape(event)}") for event in expected}
    found = {event: [line for line in lines if text.search(line)] for event, text in texts.items()}
    assert expected == Counter({event: len(those) for event, those in found.items()}), note
    assert sum(expected.values()) == len(lines), note
    assert not [line for line in lines if not re.match(any_form(host, structlog, option), line)], note
    assert all(
        logger_of(event) is None or form_of(host, structlog, option, event).match(line)
        for event, those in found.items()
        for line in those
    ), note
    for event in HANDLERS.keys() & +expected:
        assert "hosted." in found[event][0], note


def logger_of(event: str) -> str | None:
    return "some.library" if event.startswith("from a library") else None if event in HANDLERS else "qworker"


def own_form(option: str) -> str:
    return CONSOLE if "for people" == option else r'\{"'


def form_of(host: str, structlog: str, option: str, event: str) -> re.Pattern[str]:
    """Return what the line of an event begins with."""
    way = HOSTS[host]
    is_hosts = way.line is not None and way.by in {"root", logger_of(event)}
    return re.compile(way.line if is_hosts and way.line else own_form(option))


def any_form(host: str, structlog: str, option: str) -> str:
    forms = [HOSTS[host].line, own_form(option) if "root" != HOSTS[host].by or HOSTS[host].line is None else None]
    return "|".join(filter(None, [*forms, PRINTED if structlog.startswith("printed") else None]))


def test_processes_and_children_log_as_the_app_has_it(tmp_path: Path) -> None:
    """The supervisor doesn't import the app: its own lines are in qworker's formats."""
    write_app(tmp_path, "dictConfig", "no level", "none")
    command = [sys.executable, "-m", "qworker", "run", "hosted", "--burst", "-p", "2", "--log-format", "json"]
    output = run(command, cwd=tmp_path, environment=environment())
    lines = output.splitlines()
    own = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    hosts = [line for line in lines if not line.startswith("{")]
    assert ["supervisor.started"] == own, output
    assert all(re.match(TEXT, line) for line in hosts), output
    counts = {event: sum(event in line for line in hosts) for event in [*EVENTS, *HANDLERS, "log_format: "]}
    told_by_each = dict.fromkeys(["worker.started", "worker.stopping", "worker.stopped"], 2)
    expected = {event: count for event, (count, _) in EVENTS.items()} | dict.fromkeys(HANDLERS, 1) | {"log_format: ": 1}
    assert expected | told_by_each == counts, output


def test_qworker_sets_up_nothing_if_it_is_told_so(runner: Runner, tmp_path: Path) -> None:
    write_app(tmp_path, "nothing", "no level", "none")
    command = ["qworker", "run", "hosted", "--burst", "--log-config", "none"]
    code, printed = runner.run([*command, "--log-format", "json"], tmp_path, environment())
    assert 0 == code
    warned = [
        "log_format: json has no effect, as log_config is none",
        "message.poisoned ",
        "job.retried ",
        "job.poisoned ",
    ]
    assert sorted(warned) == sorted(
        next((w for w in warned if line.startswith(w)), line) for line in printed.splitlines()
    )
    put_jobs(tmp_path)
    (tmp_path / "hosted.py").write_text(HOSTS["basicConfig"].code + TASKS)
    code, printed = runner.run(command, tmp_path, environment())
    assert all(re.match(TEXT, line) for line in printed.splitlines())
    assert 1 == printed.count("HOST INFO hosted.ok from the handler ")
    assert 1 == printed.count("HOST INFO hosted.in_child from a child ")


SET_UP_LATE = """
import contextlib, logging, logging.config

@contextlib.asynccontextmanager
async def lifespan(app):
    logging.config.dictConfig({
        "version": 1, "formatters": {"plain": {"format": "HOST %(levelname)s %(name)s %(message)s"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
        "root": {"handlers": ["console"]},
    })
    yield

app = App(lifespan=lifespan)
"""


def test_what_is_set_up_when_the_worker_starts_stays_too(runner: Runner, tmp_path: Path) -> None:
    """And that it disables the loggers that are there already loses no event."""
    write_app(tmp_path, "nothing", "no level", "none")
    module = tmp_path / "hosted.py"
    module.write_text(module.read_text().replace("app = App()", SET_UP_LATE))
    code, printed = runner.run(["qworker", "run", "hosted", "--burst"], tmp_path, environment())
    assert 0 == code
    in_worker = [line for line in printed.splitlines() if "from a child" not in line]
    assert all(re.match(TEXT, line) for line in in_worker), printed
    assert all(count == printed.count(event) for event, (count, _) in EVENTS.items()), printed
    assert all(1 == printed.count(event) for event in HANDLERS), printed
