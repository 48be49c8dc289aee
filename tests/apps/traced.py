"""Tasks whose handlers make spans of their own, in each executor; their process exports to a file."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from qworker import App


class ToFile(SpanExporter):
    """Appends a line for each span."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._file.open("a") as lines:
            for span in spans:
                context = span.get_span_context()
                assert context is not None
                parent = span.parent.span_id if span.parent else None
                line = {"name": span.name, "trace": context.trace_id, "span": context.span_id, "parent": parent}
                lines.write(json.dumps(line | {"pid": os.getpid()}) + "\n")
        return SpanExportResult.SUCCESS


if file := os.environ.get("SPANS"):
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(ToFile(Path(file))))
    trace.set_tracer_provider(provider)

app = App()
tracer = trace.get_tracer("the application")


@app.task(executor="process")
def in_child(n: int) -> None:
    with tracer.start_as_current_span(f"work {n}"):
        pass
