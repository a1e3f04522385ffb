"""The spans of an instrumented app, in one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dibs import Bury, Dead, Dibs, Done, Message, Retry, RetryIn, UnknownQueue
from dibs.otel import instrument


class Traced:
    """An app on a broker of its own, and the spans that it made."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")
        self.app = Dibs("memory://")
        instrument(self.app, tracer_provider=provider)

    def spans(self, start: str) -> list[ReadableSpan]:
        """Return the spans whose name begins so."""
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(start)]

    def run(self, function: Any, **options: Any) -> ReadableSpan:
        """Run a job of that function once, and return the run's span."""
        self.app.task(name="shop.job", **options)(function).enqueue()
        self.app.drain()
        (span,) = self.spans("process")
        return span


@pytest.fixture
def traced() -> Iterator[Traced]:
    made = Traced()
    yield made
    made.app.close()


def test_spans_are_named_as_the_conventions_say(traced: Traced) -> None:
    span = traced.run(lambda: None, queue="mail")
    (sent,) = traced.spans("send")

    assert (sent.name, sent.kind, span.name, span.kind) == (
        "send mail",
        SpanKind.PRODUCER,
        "process mail",
        SpanKind.CONSUMER,
    )
    assert span.attributes is not None
    assert dict(span.attributes) == {
        "messaging.system": "dibs",
        "messaging.destination.name": "mail",
        "messaging.message.id": (sent.attributes or {})["messaging.message.id"],
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "dibs.task": "shop.job",
        "dibs.job.attempt": 1,
    }
    assert span.parent is not None
    assert sent.context is not None
    assert span.parent.span_id == sent.context.span_id


def test_who_hands_over_within_a_span_is_the_parent(traced: Traced) -> None:
    task = traced.app.task(name="shop.job")(lambda: None)

    with traced.tracer.start_as_current_span("request") as request:
        traced.app.enqueue_many([task.prepare(), task.prepare()])

    parents = [span.parent.span_id for span in traced.spans("send") if span.parent is not None]
    assert parents == [request.get_span_context().span_id] * 2


def test_a_failure_is_recorded(traced: Traced) -> None:
    def fail() -> None:
        raise ValueError("boom")

    span = traced.run(fail, retries=0)

    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError: boom")
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert [event.name for event in span.events] == ["exception"]


def test_of_a_private_job_nothing_but_the_kind_of_error_is_recorded(traced: Traced) -> None:
    def fail() -> None:
        raise ValueError("secret")

    span = traced.run(fail, retries=0, private=True)

    assert span.status.status_code == StatusCode.ERROR
    assert "secret" not in span.to_json()


def test_asking_for_another_run_is_no_error(traced: Traced) -> None:
    def ask() -> None:
        raise Retry("not there yet", delay=60)

    span = traced.run(ask)

    assert span.status.status_code == StatusCode.UNSET
    assert [event.name for event in span.events] == ["retry"]


def test_burying_is_an_error(traced: Traced) -> None:
    def bury() -> None:
        raise Bury("customer is gone")

    span = traced.run(bury)

    assert (span.attributes or {})["error.type"] == "Bury"


def test_outcomes_are_the_same_as_without_spans() -> None:
    def outcomes(*, is_traced: bool) -> list[object]:
        app = Traced().app if is_traced else Dibs("memory://")

        @app.task(name="good")
        async def good() -> int:
            return 3

        @app.task(name="bad", retries=0)
        def bad() -> None:
            raise ValueError("boom")

        @app.task(name="again")
        def again() -> None:
            raise Retry(delay=60)

        for task in (good, bad):
            task.enqueue()
        again.enqueue()
        return list(app.drain())

    done, dead, again = outcomes(is_traced=True)
    assert [done, dead] == outcomes(is_traced=False)[:2]  # the traceback begins at the task's own frame
    assert isinstance(done, Done)
    assert isinstance(dead, Dead)
    assert isinstance(again, RetryIn)


def test_a_hand_over_that_fails_is_an_error(traced: Traced) -> None:
    traced.app.consumer("plain")(lambda message: None)
    traced.app.broker.close()

    def refuse(messages: object) -> None:
        raise OSError("no")

    traced.app.broker.send = refuse  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no"):
        traced.app.send("plain", "x")

    (span,) = traced.spans("send")
    assert span.status.status_code == StatusCode.ERROR


def test_a_queue_that_nobody_knows_makes_no_span(traced: Traced) -> None:
    with pytest.raises(UnknownQueue):
        traced.app.send("nowhere", "x")

    assert traced.spans("send") == []


def test_strangers_headers_make_no_trouble(traced: Traced) -> None:
    heard: list[Message] = []
    traced.app.consumer("plain")(heard.append)
    broken = {"tracestate": "dibs=zz, =,,", "number": 3}
    traced.app.send("plain", "x", headers=broken)
    sent = traced.app.tracing
    traced.app.tracing = None
    for state in ("dibs=zz", "dibs=-1", "dibs=" + "f" * 40, "=,"):
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        traced.app.send("plain", "x", headers={"traceparent": parent, "tracestate": state})
    traced.app.send("plain", "x", headers={"traceparent": "nonsense"})
    traced.app.send("plain", "x", headers={"traceparent": ["00"]})
    traced.app.tracing = sent

    traced.app.drain()

    assert len(heard) == 7
    assert len(traced.spans("process")) == 7
    assert all(not span.links for span in traced.spans("process"))


def test_an_app_that_is_not_instrumented_imports_nothing_of_it() -> None:
    code = "import sys, dibs; app = dibs.Dibs('memory://'); app.queue('q'); app.send('q', 'x'); app.drain()"

    ran = subprocess.run(
        [sys.executable, "-c", f"{code}; print('opentelemetry' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.strip() == "False"
