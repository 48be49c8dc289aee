"""Spans of enqueueing and of running, by OpenTelemetry's semantic conventions for messaging.

The only importer of opentelemetry, and imported only where tracing is on. docs/tracing.md says what a user sees.
"""

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from qworker import _distribution
from qworker.job import Job
from qworker.outcome import Failed, Failure, Lost, Outcome, Rejected, RetryAsked

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of the conventions that names and attributes are of."""
_LAST_SPANS: Final = 5_000
"""Milliseconds that a child process gets to export what its handler has recorded."""


class Tracing:
    """Makes spans with the tracer provider, and carries contexts with the propagators, that the program has set."""

    def __init__(self) -> None:
        version = _distribution.version()
        self._tracer = trace.get_tracer("qworker", version, schema_url=SCHEMA_URL)

    @contextmanager
    def send(self, jobs: Sequence[Job], queue: str) -> Iterator[Sequence[Job]]:
        """Surround the put of some jobs of one task, one span for all; give the jobs as they are to be put."""
        attributes: dict[str, Any] = _attributes("send", queue, jobs[0])
        if len(jobs) > 1:
            attributes["messaging.batch.message_count"] = len(jobs)
        else:
            attributes["messaging.message.id"] = jobs[0].id
        given = _given_to(jobs)
        with self._tracer.start_as_current_span(
            f"send {queue}", kind=SpanKind.PRODUCER, attributes=attributes, links=[*chain.from_iterable(given.values())]
        ) as span:
            try:
                yield _with_headers(jobs, self.carrier(), given)
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                raise

    async def process(self, job: Job, queue: str, attempt: int, run: Awaitable[Outcome]) -> Outcome:
        """Surround one attempt of a job; its span begins a trace, and is linked to the one that enqueued the job."""
        brought = propagate.extract(job.headers, Context())
        # A parent would be the trace of whoever started the worker, or that of a producer of days ago.
        parent = trace.set_span_in_context(trace.INVALID_SPAN, brought)
        attributes = _attributes("process", queue, job) | {"messaging.message.id": job.id, "qworker.attempt": attempt}
        span = self._tracer.start_span(
            f"process {queue}", parent, kind=SpanKind.CONSUMER, attributes=attributes, links=_creator(brought)
        )
        token = contexts.attach(trace.set_span_in_context(span, parent))
        try:
            outcome = await run
            _note(span, outcome)
        finally:
            contexts.detach(token)
            span.end()
        return outcome

    def carrier(self) -> dict[str, str]:
        """Return the running code's context as headers."""
        headers: dict[str, str] = {}
        propagate.inject(headers)
        return headers


@contextmanager
def followed(carrier: Mapping[str, str]) -> Iterator[None]:
    """Be in the context of headers, in a child process that may be killed afterwards."""
    token = contexts.attach(propagate.extract(carrier, Context()))
    try:
        yield
    finally:
        contexts.detach(token)
        flush = getattr(trace.get_tracer_provider(), "force_flush", None)  # the SDK's has one, the API's has not
        if flush is not None:
            flush(_LAST_SPANS)


def _attributes(operation: str, queue: str, job: Job) -> dict[str, Any]:
    return {
        "messaging.system": "qworker",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "qworker.task": job.task,
    }


def _creator(context: Context) -> list[Link]:
    """Return the link to the span that a context was brought from, if there is one."""
    span = trace.get_current_span(context).get_span_context()
    return [Link(span)] if span.is_valid else []


def _given_to(jobs: Sequence[Job]) -> dict[int, list[Link]]:
    """Return the links to what jobs' headers name, by the headers' identity: jobs put together mostly share them."""
    headers = {id(job.headers): job.headers for job in jobs}
    return {key: _creator(propagate.extract(each, Context())) for key, each in headers.items()}


def _with_headers(jobs: Sequence[Job], headers: Mapping[str, str], given: Mapping[int, list[Link]]) -> Sequence[Job]:
    """Return jobs with headers beside their own, which stay as they are; those that name a span get none."""
    if not headers:
        return jobs
    return [job if given[id(job.headers)] else replace(job, headers={**headers, **job.headers}) for job in jobs]


def _note(span: Span, outcome: Outcome) -> None:
    span.set_attribute("qworker.outcome", type(outcome).__name__.lower())
    match outcome:
        case Failed(failure) | RetryAsked(failure, _) | Rejected(failure):
            _note_failure(span, failure)
        case Lost():
            span.set_attribute("error.type", "LeaseLost")
            span.set_status(StatusCode.ERROR, "its lease was lost: another worker has the job")


def _note_failure(span: Span, failure: Failure) -> None:
    span.set_attribute("error.type", failure.type)
    span.set_status(StatusCode.ERROR, str(failure))
    described = {"type": failure.type, "message": failure.message, "stacktrace": failure.traceback}
    span.add_event("exception", {f"exception.{name}": text for name, text in described.items() if text})
