"""A job's spans in real workers: one trace from who handed it over to each of its runs, on each broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dibs import Dibs
from dibs.message import new_id
from dibs.otel import instrument
from tests.crash import traced_tasks
from tests.waiting import until
from tests.workers import Worker
from tests.worlds import World


def spans_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_one_trace_holds_the_hand_over_and_every_run(shared_world: World, tmp_path: Path) -> None:
    namespace, log, exporter = f"t{new_id()[-12:]}", tmp_path / "spans.json", InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = Dibs(shared_world.url, namespace=namespace)
    instrument(app, tracer_provider=provider)
    for task in traced_tasks.app.tasks.values():
        app.task(name=task.name, queue=task.options.queue)(task.function)
    env = {"DIBS_TEST_NAMESPACE": namespace, "DIBS_TEST_LOG": str(log)}
    options = ("tests.crash.traced_tasks:app", "--url", shared_world.url, "-p", "1")

    with Worker(*options, directory=tmp_path / "logs", env=env) as worker:
        worker.wait_ready()
        job = app.get_task("tests.crash.traced_tasks.pass_on").enqueue()
        until(lambda: len([span for span in spans_in(log) if span["name"] == "process traced"]) == 3)
        app.close()
    (sent,) = [traced_tasks.described(span) for span in exporter.get_finished_spans()]
    spans = spans_in(log)

    passed_on, first, second = [span for span in spans if span["name"] == "process traced"]
    (sent_on,) = [span for span in spans if span["name"] == "send traced"]
    assert {span["trace"] for span in spans} == {sent["trace"]}
    assert [passed_on["parent"], sent_on["parent"]] == [sent["id"], passed_on["id"]]
    assert [first["parent"], second["parent"]] == [sent_on["id"]] * 2
    assert (first["links"], second["links"]) == ([], [first["id"]])
    assert [first["status"], second["status"]] == ["ERROR", "UNSET"]
    assert [first["dibs.job.attempt"], second["dibs.job.attempt"]] == [1, 2]
    assert (sent["kind"], first["kind"]) == ("PRODUCER", "CONSUMER")
    assert passed_on["messaging.message.id"] == job.id
    assert passed_on["messaging.system"] == ("dibs" if shared_world.name == "sqlite" else "rabbitmq")
    assert [span["parent"] for span in spans if span["name"] == "inside"] == [first["id"], second["id"]]
