"""Faults 52 and 53: a message is data and nothing else, and secrets stay where they are. 54: see test_rights.py."""

import ast
import asyncio
import base64
import importlib
import itertools
import json
import logging
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from azure.storage.queue import AccountSasPermissions, ResourceTypes, Services, generate_account_sas

import canaries
import qworker
import qworker.brokers.choose
from azurite_server import ACCOUNT, KEY, Azurite, connection_string
from fault_actions import Action, Answer, ChangeXML, CutBody, DropAnswer, DropBefore
from fault_exchange import How
from fault_proxy import FaultProxy
from fault_report import Fault
from fault_rules import Rule
from qworker import App, Context, Job, events
from qworker.brokers.base import Message, PeekedMessage
from qworker.cli import main
from qworker.errors import QworkerError
from qworker.observe import log_setup
from qworker.outcome import Failure
from qworker.poison.record import PoisonRecord
from qworker.settings import Settings
from qworker.wire.bodies import as_body
from stage import MakeStage, Stage, WorkerProcess
from waiting import wait_until

enqueue_module = importlib.import_module("qworker.produce.enqueuer")
run_module = importlib.import_module("qworker.cli.run.command")  # its name in the package is that of the command
PACKAGE: Final = Path(qworker.__file__).parent
ARGUMENT: Final = "canary-argument"
WRONG_KEY: Final = "canaryKEY" * 8
WRONG_SIG: Final = "canarySIG="
SECRETS: Final = {ARGUMENT, WRONG_KEY, WRONG_SIG, quote(WRONG_SIG, safe=""), KEY, quote(KEY, safe="")}


# 52

_LOADERS: Final = {
    "cloudpickle",
    "code",
    "codeop",
    "copyreg",
    "dill",
    "joblib",
    "jsonpickle",
    "marshal",
    "pickle",
    "ruamel",
    "runpy",
    "shelve",
    "yaml",
}
_RUNNERS: Final = {"eval", "exec", "compile", "__import__"}


def dangers_in(source: str) -> Iterator[str]:
    """Find what could make code or objects of data."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.partition(".")[0] in _LOADERS)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in _LOADERS:
                yield module
            case ast.Name(id=name) if name in _RUNNERS:
                yield name
            case ast.Attribute(attr="import_module" | "system" | "popen" as name):
                yield name
            case ast.Call(func=ast.Attribute(attr="send" | "recv" as name, value=owner)) if "pipe" in ast.unparse(
                owner
            ):
                yield f"pipe.{name}"  # multiprocessing pickles what goes this way
            case _:
                pass


@pytest.mark.fault(52)
def test_no_code_that_makes_code_or_objects_of_data(fault: Fault) -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    found = {(str(file.relative_to(PACKAGE)), danger) for file in files for danger in dangers_in(file.read_text())}
    fault.did(f"{len(files)} modules searched for pickle, eval, exec, YAML and modules imported by name")
    fault.saw(
        f"none; modules are imported by name in {len(found)} places: the app's, and in a child process the app's, "
        "the task's own, and qworker's own, for its logs"
    )
    files_with = {"cli/shared/load.py", "processes/beginning.py", "engine/run/child.py"}
    assert {(file, "import_module") for file in files_with} == found


@pytest.mark.parametrize(
    "source", ["import pickle", "from yaml import load", "eval('1')", "x = exec", "self._pipe.send(1)", "os.system('')"]
)
def test_what_is_dangerous_is_found(source: str) -> None:
    assert [] != list(dangers_in(source))


class Evil:
    """Its pickle runs a command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


@pytest.mark.fault(52)
def test_a_message_is_only_data(stage: Stage, fault: Fault) -> None:
    trace = stage.folder / "was-here"
    command = f"touch {trace}"
    names = ["os.system", "builtins.eval", "builtins.exec", "subprocess.run", "posix.system", "../../x", "jobs.note"]
    names += ["this.s", "xmlrpc.server.main"]  # of modules that nobody has imported
    names += ["jobs", "qworker.cli.main", "pickle.loads", "audited._audit", f"__import__('os').system('{command}')"]
    hostile = [as_body({"task": name, "args": [command]}) for name in names]
    hostile += [as_body({"task": "jobs.rest", "args": [1, {"__reduce__": ["os.system", command]}]})]
    no_jobs = [
        base64.b64encode(pickle.dumps(Evil(command))).decode(),
        f"!!python/object/apply:os.system ['{command}']",
        as_body({"py/object": "os.system", "py/reduce": [command]}),
    ]
    worker = stage.worker(app="audited")
    worker.wait_for("worker.started")
    put(stage, as_body({"task": "first.unknown"}))  # what is imported at the first failure is none of theirs
    worker.wait_for("task.unknown")
    put(stage, as_body({"task": "audited.watch"}))
    wait_until(lambda: stage.history.lines("watching"), what="the auditor")
    put(stage, *hostile, *no_jobs)
    refused = len(hostile) + len(no_jobs) + 1
    wait_until(lambda: len(refusals(worker)) == refused, what="their refusal")
    put(stage, as_body({"task": "audited.report"}))
    [report] = wait_until(lambda: stage.history.lines("audited"), what="what was seen")
    unknown = {line["error"].partition("; registered: ")[0] for line in worker.lines("task.unknown")}
    fault.did(f"{refused - 1} messages with tasks named os.system, builtins.eval …, and pickles and YAML that run code")
    fault.saw(
        f"{len(unknown) - 1} unknown tasks, the others poisoned; code run, modules imported, processes begun because "
        f"of them, by Python's own audit: {len(report['seen']) - 1}"
    )
    assert {f"UnknownTask: unknown task {name!r}" for name in ("first.unknown", *names)} == unknown
    assert ["exec"] == [line.partition(" ")[0] for line in report["seen"]]  # its own example
    assert not trace.exists()


def refusals(worker: WorkerProcess) -> list[dict[str, Any]]:
    return [line for event in ("task.unknown", "job.poisoned", "message.poisoned") for line in worker.lines(event)]


def put(stage: Stage, *bodies: str) -> None:
    async def put_all() -> None:
        for body in bodies:
            await stage.app.broker.queue(stage.queue).put(body)

    stage.app._portal.run(put_all())


# 53


class Ears:
    """Everything that was said, and whether a secret was among it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def hear(self, *texts: str) -> None:
        self.heard += texts

    def hear_error(self, error: BaseException) -> None:
        """Hear all that may be printed of an exception, and of those that it came from."""
        self.hear("".join(traceback.format_exception(error)))
        at: BaseException | None = error
        while at is not None:
            self.hear(str(at), repr(at), repr(vars(at)))
            at = at.__cause__ or at.__context__

    @property
    def size(self) -> str:
        return f"{sum(map(len, self.heard)) / 1000:,.0f} kB"

    def check(self, secrets: set[str] = SECRETS) -> None:
        told = [text for text in self.heard for secret in secrets if secret in text]
        assert [] == told
        assert self.heard


@pytest.fixture
def ears() -> Iterator[Ears]:
    """Hear all logs of this process, those of the SDK too, at DEBUG."""
    ears = Ears()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            ears.hear(self.format(record))

    root, sdk = logging.getLogger(), logging.getLogger("azure")
    before, handler = (root.level, sdk.level), Handler()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    sdk.setLevel(logging.DEBUG)
    yield ears
    root.removeHandler(handler)
    root.setLevel(before[0])
    sdk.setLevel(before[1])


def sas(account_url: str) -> str:
    """Return the URL of an account with a SAS that may do everything."""
    token = generate_account_sas(
        ACCOUNT,
        KEY,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions(read=True, write=True, list=True, add=True, update=True, process=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
        services=Services(queue=True),
    )
    return f"{account_url}?{token}"


def signature_of(url: str) -> set[str]:
    [signature] = parse_qs(urlsplit(url).query)["sig"]
    return {signature, quote(signature, safe="")}


def on_a_broken_server(proxy: FaultProxy) -> list[Callable[[], object]]:
    """Return ways to break it."""
    actions: list[Action] = [
        *(Answer(status, code) for status, code in [(403, "AuthenticationFailed"), (401, ""), (400, "Odd"), (500, "")]),
        Answer(503, "ServerBusy", message=ARGUMENT),
        *(DropBefore(how) for how in get_args(How)),
        *(DropAnswer(how) for how in get_args(How)),
        CutBody(),
        ChangeXML(lambda _: b"<no xml"),
        ChangeXML(lambda _: b'<!DOCTYPE x [<!ENTITY a "b">]><QueueMessagesList>&a;</QueueMessagesList>'),
    ]
    return [partial(proxy.add, Rule(action)) for action in actions]


@pytest.mark.fault(53)
@pytest.mark.parametrize("credential", ["key", "sas"])
async def test_what_a_producer_or_a_broker_says(
    fault_proxy: FaultProxy, ears: Ears, monkeypatch: pytest.MonkeyPatch, fault: Fault, credential: str
) -> None:
    """Each call of a broker, with right and wrong credentials, through a server broken in each way."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = 0.0  # tell of each
    account = f"http://127.0.0.1:{fault_proxy.port}/{ACCOUNT}"
    query = "sv=2025-11-05&ss=q&srt=sco&sp=rwdlacup&se=2099-01-01&sig="
    right = fault_proxy.connection_string if credential == "key" else sas(account)
    wrong = connection_string(fault_proxy.port, WRONG_KEY) if credential == "key" else f"{account}?{query}{WRONG_SIG}"
    nobody = connection_string(1, WRONG_KEY) if credential == "key" else f"http://127.0.0.1:1/x?{query}{WRONG_SIG}"
    failures = 0
    for url, breaks in ((right, on_a_broken_server(fault_proxy)), (wrong, [lambda: None]), (nobody, [lambda: None])):
        for break_it in breaks:
            broker = qworker.brokers.choose.broker_from_url(url)
            await queue_in(broker) if url == right else None
            break_it()
            for call in calls_of(broker):
                try:
                    await call()
                except Exception as error:  # noqa: BLE001 — whatever it is, it is to be heard
                    failures += 1
                    ears.hear_error(error)
            fault_proxy.clear_rules()
            ears.hear(repr(broker), broker.label, repr(broker.queue("mail")))
            await broker.aclose()
    fault.did("each call with a wrong key or SAS, to nobody, and to a server that answers wrongly in 12 ways")
    fault.saw(f"{failures} errors, {ears.size} of DEBUG logs and tracebacks, no canary")
    assert failures > 80
    ears.check(SECRETS | (signature_of(right) if credential == "sas" else set()))


async def queue_in(broker: Any) -> None:
    await broker.create_queue("mail")
    await broker.queue("mail").put(as_body({"task": "t", "args": [ARGUMENT]}))


def calls_of(broker: Any) -> list[Callable[[], Awaitable[Any]]]:
    queue = broker.queue("mail")
    body = as_body({"task": "t", "args": [ARGUMENT]})
    return [
        lambda: queue.put(body),
        lambda: queue.get(2, visibility=1),
        lambda: queue.peek(2),
        lambda: queue.update("no-such", "receipt", visibility=1, body=body),
        lambda: queue.delete("no-such", "receipt"),
        queue.count,
        lambda: broker.create_queue("mail"),
        broker.list_queues,
    ]


@pytest.mark.fault(53)
def test_what_a_worker_says(
    request: pytest.FixtureRequest, stage_on: MakeStage, fault_proxy: FaultProxy, tmp_path: Path, fault: Fault
) -> None:
    """Jobs that are given a secret, and come to every end there is, through a server that breaks now and then."""
    through = sas(f"http://127.0.0.1:{fault_proxy.port}/{ACCOUNT}")
    azurite: Azurite = request.getfixturevalue("azurite")
    ears = Ears()
    run_all_tasks(stage_on(azurite.connection_string, through), "json", fault_proxy, ears)
    run_all_tasks(stage_on(f"sqlite:///{tmp_path}/jobs.db"), "console", fault_proxy, ears)
    be_denied(stage_on(azurite.connection_string, connection_string(fault_proxy.port, WRONG_KEY)), ears)
    fault.did("workers at log level debug, with asyncio's and the SDK's own; 16 ends of jobs, a wrong key")
    fault.saw(f"{ears.size} of output of {len(ears.heard)} workers, no canary")
    ears.check(SECRETS | signature_of(through))


def run_all_tasks(stage: Stage, log_format: str, proxy: FaultProxy, ears: Ears) -> None:
    canaries.app.use_broker(stage.url)
    tasks = [task for task in canaries.app.tasks.values() if task.name != "canaries.wants"]
    for task in tasks:
        task.using(queue=stage.queue, headers={"trace": ARGUMENT}).enqueue(ARGUMENT)
    canaries.app.close()
    wrong: list[dict[str, Any]] = [
        {"task": "canaries.wants", "args": [ARGUMENT, {"to": ARGUMENT, ARGUMENT: 1}, {ARGUMENT: ARGUMENT}]},
        {"task": "canaries.nothing", "args": [ARGUMENT]},
        {"task": "canaries.saves", "args": ["x"], "state": ARGUMENT},
    ]
    put(
        stage,
        *(as_body(fields) for fields in wrong),
        f'{{"args": ["{ARGUMENT}',
        base64.b64encode(ARGUMENT.encode()).decode(),
    )
    proxy.add(Rule(DropAnswer(), on="update", times=2))
    proxy.add(Rule(Answer(500, "InternalError"), on="delete", times=2))
    proxy.add(Rule(CutBody(), on="put", times=1))
    proxy.add(Rule(ChangeXML(lambda _: b"<no xml"), on="get", nth=3))
    options = ["-l", "debug", "--log-format", log_format, "--lease", "2"]
    worker = stage.worker(*options, app="canaries", env={"PYTHONASYNCIODEBUG": "1"})
    wait_until(lambda: stage.remaining() == 1 and worker.output.count("UnknownTask"), what="an end of all but one")
    worker.send(signal.SIGTERM)
    worker.wait()
    proxy.clear_rules()
    assert worker.output.count("it failed") >= 3  # each of the handlers that do
    ears.hear(worker.output)


def be_denied(stage: Stage, ears: Ears) -> None:
    worker = stage.worker("-l", "debug", app="canaries", env={"PYTHONASYNCIODEBUG": "1"})
    worker.wait_for("poll.failed")
    worker.send(signal.SIGTERM)
    worker.wait()
    ears.hear(worker.output)


@pytest.mark.fault(53)
def test_what_objects_and_errors_say(fault: Fault, ears: Ears, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueue_module, "_PAUSES", (0.01,))
    app = App(broker=connection_string(1, WRONG_KEY))

    @app.task(name="t")
    def handler(number: int, secret: str) -> None: ...

    job = Job("j1", "t", [1, ARGUMENT], {"secret": ARGUMENT}, state=ARGUMENT, headers={"trace": ARGUMENT})
    body, now = as_body({"args": [ARGUMENT]}), datetime.now(UTC)
    failure = Failure("ValueError", "no")
    objects = [
        app,
        app.broker,
        app.broker.queue("mail"),
        handler,
        handler.using(headers={"trace": ARGUMENT}),
        handler.signature,
        handler.options,
        job,
        Context(job, queue="mail", state=ARGUMENT),
        Message("m1", "r1", 1, body, now, None, now),
        PeekedMessage("m1", 1, body, now, None, now),
        PoisonRecord(body, "mail", failure, 1, "host:1", now, "m1"),
        Settings(broker=connection_string(1, WRONG_KEY)),
        app.make_worker(Settings()),
        qworker.brokers.choose.broker_from_url(f"https://shop.queue.core.windows.net?sv=1&sig={WRONG_SIG}"),
        events.JobStarted(job=job, queue="mail", attempt=1),
        events.JobPoisoned(job=job, queue="mail", attempt=1, poison_queue="mail-poison", failure=failure),
    ]
    for thing in objects:
        ears.hear(repr(thing), str(thing), f"{thing}")
    mistakes: list[Callable[[], object]] = [
        lambda: handler.enqueue(ARGUMENT, "x"),  # type: ignore[arg-type]
        lambda: handler.enqueue(1, {ARGUMENT: 1}),  # type: ignore[arg-type]
        lambda: handler.enqueue(1, f"{ARGUMENT}\ud800"),
        lambda: handler.using(headers={"trace": f"{ARGUMENT}\ud800"}).enqueue(1, ARGUMENT),
        lambda: handler.enqueue(1, ARGUMENT * 10_000),
        lambda: handler.enqueue(1, ARGUMENT),
        lambda: handler.enqueue_many([(1, ARGUMENT)] * 2),
        lambda: App(broker=f"AccountKey={WRONG_KEY}").broker,
        lambda: App(broker=f"azure://x?sig={WRONG_SIG}").broker,
    ]
    for mistake in mistakes:
        with pytest.raises(QworkerError) as caught:
            mistake()
        ears.hear_error(caught.value)
    app.close()
    fault.did(f"repr() and str() of {len(objects)} objects, tracebacks of {len(mistakes)} mistakes of a producer")
    fault.saw("no canary")
    ears.check()


CS: Final = f"DefaultEndpointsProtocol=https;AccountName=me;AccountKey={WRONG_KEY};EndpointSuffix=core.windows.net"
SAS_URL: Final = f"https://me.queue.core.windows.net/?sv=2025-11-05&ss=q&sig={WRONG_SIG}"
COMMANDS: Final = [
    *(["run", *more] for more in ([CS], [SAS_URL], ["jobs", CS], ["jobs", "--brokr", CS], ["jobs", f"--brokr={CS}"])),
    *(["run", "jobs", option, CS] for option in ("-q", "-c", "-l", "--lease", "--poll-max", "--max-jobs")),
    *(
        ["run", "jobs", "--broker", url]
        for url in (
            f"AccountKey={WRONG_KEY}",
            f"{CS};QueueEndpoint=https://",
            f"azure://me?sig={WRONG_SIG}",
            f"https://me.queue.core.windows.net/mail?sv=1&sig={WRONG_SIG}",
            f"https://me.queue.core.windows.net/?{WRONG_KEY}",
            f"https://user:{WRONG_KEY}@me.queue.core.windows.net",
            f"ftp://me?sig={WRONG_SIG}",
            f"sqlite://{CS}",
            WRONG_KEY,
        )
    ),
    [CS],
    *(["enqueue", *more] for more in ([CS], [SAS_URL], ["canaries.well", CS], ["canaries.well", "-q", CS])),
    *(["enqueue", "canaries.well", "--broker", url] for url in (CS[:-20], f"sqlite://{SAS_URL}")),
    ["enqueue", "canaries.well", "--args", f'["{ARGUMENT}"]', "--broker", connection_string(1, WRONG_KEY)],
    *(
        ["enqueue", "canaries.wants", "--args", text]
        for text in (f'["{ARGUMENT}", 1, {{}}]', f'"{ARGUMENT}"', ARGUMENT)
    ),
    *(["enqueue", "canaries.wants", "--kwargs", text] for text in (f'["{ARGUMENT}"]', f'{{"number": "{ARGUMENT}"')),
    ["enqueue", "canaries.wants", "--kwargs", json.dumps({"number": 1, "letter": {}, "by_name": {ARGUMENT: "x"}})],
    ["poison", "replay", CS],
    ["poison", "replay", "mail", "--broker", CS[:-20]],
    ["poison", "replay", "mail", "--app", CS],
    *(["poison", verb, "mail", "--broker", CS[:-20]] for verb in ("list", "show", "purge")),
    *(["poison", verb, CS] for verb in ("list", "purge")),
    *(["queues", verb, "mail", "--broker", CS[:-20]] for verb in ("create", "delete", "clear", "count", "peek")),
    *(["queues", verb, CS] for verb in ("create", "delete", "clear", "count", "peek")),
    ["queues", "--broker", CS[:-20]],
    *([*command, "--help"] for command in ([], ["run"], ["enqueue"], ["queues"], ["poison"], ["poison", "replay"])),
]


@pytest.mark.fault(53)
def test_what_the_command_line_says(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, fault: Fault
) -> None:
    ears = Ears()
    monkeypatch.chdir(tmp_path)
    for name in ("configure", "prepare", "complete"):  # pytest's own handlers are to stay
        monkeypatch.setattr(log_setup, name, lambda *_, **__: [])
    monkeypatch.setattr(run_module, "_run_to_the_end", lambda _: pytest.fail("a worker has started"))
    for command, variables in itertools.chain(
        ((command, {"QWORKER_BROKER": CS}) for command in COMMANDS),
        ((["run", "jobs"], {name: CS}) for name in ("QWORKER_CONCURRENCY", "QWORKER_QUEUES", "QWORKER_LEASE")),
    ):
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            patched.setattr(sys, "argv", ["qworker", *command])
            with pytest.raises(SystemExit) as ended:
                main()
        output = capfd.readouterr()
        ears.hear(output.out, output.err)
        assert "--help" in command or ended.value.code in {1, 2}, command
        assert "--help" in command or 1 == len(output.err.splitlines()), output.err
    fault.did(f"{len(COMMANDS) + 3} command lines with a secret in a wrong place")
    fault.saw("one line each, no canary")
    ears.check()
