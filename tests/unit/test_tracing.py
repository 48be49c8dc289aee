import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from doubles import ScriptedBroker
from idle import arun_until_idle, run_until_idle
from qworker import INJECTED, App, Backoff, ConfigurationError, Context, Reject, Retry, Snooze
from qworker.errors import BrokerRefused
from qworker.job import Job
from qworker.wire.envelope import decode

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EXPORTER = InMemorySpanExporter()
tracer = trace.get_tracer("the application")


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    sdk = TracerProvider()
    sdk.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(sdk)


@pytest.fixture(autouse=True)
def exporter() -> Iterator[None]:
    EXPORTER.clear()
    yield
    EXPORTER.clear()


@pytest.fixture
def app() -> Iterator[App]:
    app = App(broker="sqlite://", tracing=True)
    yield app
    app.close()


def spans(name: str) -> list[ReadableSpan]:
    return [span for span in EXPORTER.get_finished_spans() if span.name == name]


def id_of(span: ReadableSpan) -> tuple[int, int]:
    found = span.get_span_context()
    assert found is not None
    return found.trace_id, found.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def traceparent(span: ReadableSpan) -> str:
    found = span.get_span_context()
    assert found is not None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


async def test_a_job_is_linked_to_what_enqueued_it(app: App) -> None:
    seen: dict[str, Any] = {}

    @app.task(name="send", queue="mail")
    async def send(to: str, *, ctx: Context = INJECTED) -> None:
        seen["headers"] = dict(ctx.headers)
        with tracer.start_as_current_span("within"):
            await asyncio.sleep(0)

    with tracer.start_as_current_span("request"):
        job = await send.using(headers={"user": "Ada"}).aenqueue("a@b.c")
    await arun_until_idle(app)

    [sent], [processed], [request], [within] = (
        spans(name) for name in ("send mail", "process mail", "request", "within")
    )
    common = {
        "messaging.system": "qworker",
        "messaging.destination.name": "mail",
        "messaging.message.id": job.id,
        "qworker.task": "send",
    }
    assert SpanKind.PRODUCER is sent.kind
    assert common | {"messaging.operation.name": "send", "messaging.operation.type": "send"} == dict(
        sent.attributes or {}
    )
    assert sent.parent is not None
    assert id_of(request) == (sent.parent.trace_id, sent.parent.span_id)
    assert SpanKind.CONSUMER is processed.kind
    assert common | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "qworker.attempt": 1,
        "qworker.outcome": "succeeded",
    } == dict(processed.attributes or {})
    assert (None, [id_of(sent)], StatusCode.UNSET) == (processed.parent, links(processed), processed.status.status_code)
    assert within.parent is not None
    assert id_of(processed) == (within.parent.trace_id, within.parent.span_id)
    assert {"user": "Ada", "traceparent": traceparent(sent)} == seen["headers"] == job.headers


async def test_a_thread_is_within_the_span_of_its_attempt(app: App) -> None:
    @app.task(name="plain")
    def plain() -> None:
        with tracer.start_as_current_span("within"):
            pass

    await plain.aenqueue()
    await arun_until_idle(app)
    [processed], [within] = spans("process default"), spans("within")
    assert within.parent is not None
    assert id_of(processed) == (within.parent.trace_id, within.parent.span_id)


def test_a_sync_call_is_within_its_callers_span(app: App) -> None:
    @app.task(name="plain")
    def plain() -> None: ...

    with tracer.start_as_current_span("request") as request:
        plain.enqueue()
    [sent] = spans("send default")
    assert sent.parent == request.get_span_context()
    assert not trace.get_current_span().get_span_context().is_valid


async def test_each_attempt_has_a_span_and_says_why_it_failed(app: App) -> None:
    @app.task(name="fail", max_attempts=2, backoff=Backoff(base=0))
    async def fail() -> None:
        raise ValueError("no")

    await fail.aenqueue()
    await arun_until_idle(app)

    first, second = spans("process default")
    [sent] = spans("send default")
    assert id_of(first)[0] != id_of(second)[0]
    assert [[id_of(sent)]] * 2 == [links(first), links(second)]
    for number, span in enumerate((first, second), start=1):
        attributes = dict(span.attributes or {})
        assert (number, "failed", "ValueError") == (
            attributes["qworker.attempt"],
            attributes["qworker.outcome"],
            attributes["error.type"],
        )
        assert (StatusCode.ERROR, "ValueError: no") == (span.status.status_code, span.status.description)
        [event] = span.events
        assert "exception" == event.name
        recorded = dict(event.attributes or {})
        assert ("ValueError", "no") == (recorded["exception.type"], recorded["exception.message"])
        assert 'raise ValueError("no")' in str(recorded["exception.stacktrace"])


async def test_the_other_outcomes(app: App) -> None:
    @app.task(name="ends", max_attempts=1, timeout=0.05)
    async def ends(how: str, *, ctx: Context = INJECTED) -> None:
        match how:
            case "late":
                await asyncio.sleep(60)
            case "retry":
                raise Retry("busy")
            case "reject":
                raise Reject("never")
            case "snooze" if ctx.job.releases == 0:
                raise Snooze("not yet", after=0)

    for how in ("late", "retry", "reject", "snooze"):
        await ends.aenqueue(how)
    await app.asend([Job("bad", "ends", ["late", "and more"])], ends.using()._sending)
    await arun_until_idle(app, concurrency=1)

    found = [
        (attributes["qworker.outcome"], attributes.get("error.type"), span.status.is_ok)
        for span in spans("process default")
        if (attributes := dict(span.attributes or {}))
    ]
    assert sorted(
        [
            ("failed", "TimedOut", False),
            ("retryasked", "Retry", False),
            ("rejected", "Reject", False),
            ("snoozed", None, True),
            ("succeeded", None, True),
            ("rejected", "InvalidArguments", False),
        ],
        key=str,
    ) == sorted(((outcome, error and str(error).rpartition(".")[2], ok) for outcome, error, ok in found), key=str)


@pytest.mark.parametrize("bundle", [1, 10])
async def test_many_jobs_have_one_span(app: App, bundle: int) -> None:
    @app.task(name="note", bundle=bundle)
    async def note(n: int) -> None: ...

    jobs = await note.aenqueue_many([(n,) for n in range(25)])
    assert [] == await note.aenqueue_many([])
    await arun_until_idle(app)

    [sent] = spans("send default")
    attributes = dict(sent.attributes or {})
    assert (25, None) == (attributes["messaging.batch.message_count"], attributes.get("messaging.message.id"))
    assert {traceparent(sent)} == {job.headers["traceparent"] for job in jobs}
    processed = spans("process default")
    assert {job.id for job in jobs} == {(span.attributes or {})["messaging.message.id"] for span in processed}
    assert [[id_of(sent)]] * 25 == [links(span) for span in processed]
    assert 25 == len({id_of(span)[0] for span in processed})


async def test_a_context_that_the_user_gives_is_kept(app: App) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    headers = {"traceparent": TRACEPARENT, "other": "x"}
    job = await note.using(headers=headers).aenqueue()
    await arun_until_idle(app)
    given = [(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)]
    [sent], [processed] = spans("send default"), spans("process default")
    assert headers == job.headers
    assert (given, given) == (links(sent), links(processed))


async def test_of_many_each_keeps_the_context_that_it_was_given(app: App) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    producer = app.get_task("note").using()
    theirs = producer.using(headers={"traceparent": TRACEPARENT, "tenant": "acme"})
    producer.send_made([producer.make([], {}), theirs.make([], {}), theirs.make([], {}), producer.make([], {})])
    [sent] = spans("send default")
    assert [(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)] == links(sent)
    bodies = [message.body for message in await app.broker.queue("default").peek(4)]
    seen = [decode(body, message_id="m").headers.get("traceparent") for body in bodies]
    assert [traceparent(sent), TRACEPARENT, TRACEPARENT, traceparent(sent)] == seen


async def test_baggage_reaches_the_handler(app: App) -> None:
    seen = []

    @app.task(name="note")
    async def note() -> None:
        seen.append(baggage.get_baggage("tenant"))

    token = context.attach(baggage.set_baggage("tenant", "acme"))
    await note.aenqueue()
    context.detach(token)
    await arun_until_idle(app)
    assert ["acme"] == seen


async def test_what_a_worker_was_started_in_is_no_parent(app: App) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    await note.aenqueue()
    with tracer.start_as_current_span("start-up"):
        await arun_until_idle(app)
    assert [None] == [span.parent for span in spans("process default")]


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense"}, {"traceparent": ""}])
async def test_a_job_without_a_context_is_run(app: App, headers: dict[str, str]) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    untraced = App(broker=app.broker, tracing=False)
    await untraced.task(name="note")(note.function).using(headers=headers).aenqueue()
    assert () == EXPORTER.get_finished_spans()
    await arun_until_idle(app)
    assert [[]] == [links(span) for span in spans("process default")]


def test_an_enqueue_that_fails_says_why() -> None:
    broker = ScriptedBroker()
    app = App(broker=broker, tracing=True)
    broker.queue("default").will("put", BrokerRefused("no"))
    with pytest.raises(BrokerRefused):
        app.task(name="note")(lambda: None).enqueue()
    [sent] = spans("send default")
    assert (StatusCode.ERROR, "BrokerRefused") == (sent.status.status_code, (sent.attributes or {})["error.type"])
    assert ["exception"] == [event.name for event in sent.events]
    app.close()


def test_a_setting_turns_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWORKER_TRACING", "1")
    for given, traced in ((None, 1), (False, 0), (True, 1)):
        EXPORTER.clear()
        app = App(broker="sqlite://", tracing=given)
        app.task(name="note")(lambda: None).enqueue()
        run_until_idle(app)
        app.close()
        assert (traced, traced) == (len(spans("send default")), len(spans("process default")))


def test_it_is_of_the_app_and_not_of_a_worker(app: App) -> None:
    async def start() -> None:
        async with app.worker(tracing=True):
            pass

    with pytest.raises(ConfigurationError, match="tracing: not of a worker"):
        asyncio.run(start())


OFF = """
    import sys
    sys.modules.update(dict.fromkeys({hidden}))
    from qworker import App
    from qworker.testing import run_until_idle
    app = App(broker="sqlite://"{tracing})
    ran = []
    task = app.task(name="note")(lambda: ran.append(1))
    task.enqueue()
    run_until_idle(app)
    assert ran
    print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def python(hidden: list[str], tracing: str) -> "subprocess.CompletedProcess[str]":
    code = textwrap.dedent(OFF).format(hidden=hidden, tracing=tracing)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_nothing_of_it_is_imported_when_it_is_off() -> None:
    ended = python([], "")
    assert ("[]\n", "") == (ended.stdout, ended.stderr)


def test_without_opentelemetry_it_says_what_to_install() -> None:
    ended = python(["opentelemetry"], ", tracing=True")
    assert ended.stderr.endswith(
        "ConfigurationError: tracing: OpenTelemetry is not installed: pip install 'qworker-azure[otel]'\n"
    )
