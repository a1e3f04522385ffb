"""An app whose spans go to a file, as lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from dibs import Backoff, Dibs
from dibs.current import current_job
from dibs.otel import instrument

app = Dibs("memory://", namespace=os.environ.get("DIBS_TEST_NAMESPACE", ""))
instrument(app)


class FileExporter(SpanExporter):
    """Appends a line per span."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write them down."""
        with Path(os.environ["DIBS_TEST_LOG"]).open("a") as file:
            file.writelines(json.dumps(described(span)) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def described(span: ReadableSpan) -> dict[str, object]:
    """Return what the tests look at of a span."""
    assert span.context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{span.context.trace_id:032x}",
        "id": f"{span.context.span_id:016x}",
        "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
        "links": [f"{link.context.span_id:016x}" for link in span.links],
        "status": span.status.status_code.name,
        "events": [event.name for event in span.events],
        **(span.attributes or {}),
    }


@app.on_start
def export() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter()))
    trace.set_tracer_provider(provider)


@app.task(queue="traced", backoff=Backoff(first=0.1, jitter=False))
def fail_once() -> None:
    with trace.get_tracer("user").start_as_current_span("inside"):
        if current_job().attempt == 1:
            raise ValueError("not yet")


@app.task(queue="traced")
async def pass_on() -> None:
    await fail_once.aenqueue()
