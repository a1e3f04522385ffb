"""What is counted of outcomes, and the text that Prometheus reads."""

from __future__ import annotations

import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dibs.broker import QueueInfo
from dibs.ledger.snapshot import ExecutorInfo, Snapshot
from dibs.message import Delivery, Message
from dibs.metrics.exposition import Family, Sample, render
from dibs.metrics.families import of_queues, of_workers
from dibs.metrics.tally import Tally
from dibs.outcome import Cancelled, Dead, Done, Outcome, Released, RetryIn, Run


def make(task: str | None = "shop.add", **fields: object) -> Delivery:
    fields = {"body": b"", "queue": "mail", "id": "1", "enqueued": 10_000, **fields}
    return Delivery(message=Message(task=task, **fields), receipt=None)  # type: ignore[arg-type]


def read(families: list[Family]) -> dict[str, float]:
    """Return what a real parser makes of it: `name{labels}` and the value."""
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(families))
        for sample in family.samples
    }


def counted(*outcomes: tuple[Delivery, Outcome]) -> dict[str, float]:
    tally = Tally(["shop.add"])
    tally.count(outcomes)
    return read(tally.families())


def test_each_kind_of_outcome_is_counted() -> None:
    delivery, run = make(), Run(10_100, 10_200)

    samples = counted(
        (delivery, Done(None, None, run)),
        (delivery, Done(None, None, run)),
        (delivery, RetryIn(1.0, delivery.message, run)),
        (delivery, Dead("failed", "boom", None, run)),
        (delivery, Cancelled(None)),
    )

    def total(outcome: str) -> float:
        return samples[f"dibs_jobs_total outcome={outcome} queue=mail task=shop.add"]

    assert [total(kind) for kind in ("done", "retry", "dead", "cancelled")] == [2, 1, 1, 1]
    assert samples["dibs_job_duration_seconds_count queue=mail task=shop.add"] == 4


def test_what_was_put_off_or_given_back_is_not_counted() -> None:
    delivery = make()

    assert counted((delivery, RetryIn(1.0, delivery.message)), (delivery, Released())) == {}


def test_durations_fall_into_the_bucket_that_ends_above_them() -> None:
    samples = counted(*((make(), Done(None, None, Run(10_000, 10_000 + took))) for took in (0, 1, 3, 4, 7_000_000)))

    def below(seconds: str) -> float:
        return samples[f"dibs_job_duration_seconds_bucket le={seconds} queue=mail task=shop.add"]

    assert [below(end) for end in ("0.001", "0.002", "0.004", "0.008", "4194.304", "+Inf")] == [1, 2, 3, 4, 4, 5]
    assert samples["dibs_job_duration_seconds_sum queue=mail task=shop.add"] == pytest.approx(7000.008)


def test_waiting_is_that_of_the_first_run_from_when_it_was_due() -> None:
    run = Run(10_500, 10_600)

    samples = counted(
        (make(), Done(None, None, run)),
        (make(due=10_400), Done(None, None, run)),
        (make(attempt=2), Done(None, None, run)),
        (make(enqueued=None), Done(None, None, run)),
        (make(enqueued=11_000), Done(None, None, run)),  # by a clock that is ahead
    )

    assert samples["dibs_job_wait_seconds_count queue=mail task=shop.add"] == 3
    assert samples["dibs_job_wait_seconds_sum queue=mail task=shop.add"] == pytest.approx(0.6)


def test_tasks_that_strangers_name_are_counted_as_one() -> None:
    error = Dead("unknown-task", "nobody knows it")

    samples = counted(*((make(f"stranger.{number}"), error) for number in range(500)), (make(None), error))

    assert samples["dibs_jobs_total outcome=dead queue=mail task=(unknown)"] == 500
    assert samples["dibs_jobs_total outcome=dead queue=mail task=(plain)"] == 1
    assert len([name for name in samples if name.startswith("dibs_jobs_total")]) == 2


def test_counting_a_job_makes_nothing_that_is_kept() -> None:
    tally, batch = Tally(["shop.add"]), [(make(), Done(None, None, Run(10_000, 10_100))) for _ in range(100)]
    tally.count(batch)
    before = sys.getallocatedblocks()

    for _ in range(100):
        tally.count(batch)

    assert sys.getallocatedblocks() - before < 100


def test_labels_come_back_as_they_were() -> None:
    name = 'a"b\\c\nd{},=\t\x1b é \ud800'

    (family,) = text_string_to_metric_families(
        render([Family("x", "gauge", "one\\two\nthree", [Sample({"l": name}, 1)])])
    )

    assert family.samples[0].labels["l"] == name.replace("\ud800", "\\ud800")
    assert family.documentation == "one\\two\nthree"


def test_what_a_broker_cant_count_is_left_out() -> None:
    samples = read(
        of_queues([QueueInfo(name="mail", ready=3, running=None, delayed=None, dead=1, consumers=2, is_paused=True)])
    )

    assert samples == {
        "dibs_queue_ready queue=mail": 3,
        "dibs_queue_dead queue=mail": 1,
        "dibs_queue_consumers queue=mail": 2,
        "dibs_queue_paused queue=mail": 1,
    }


def test_workers_of_a_fleet_are_told_apart() -> None:
    executor = ExecutorInfo(pid=8, started=1, memory_bytes=500, finished=1, state="ready", held=30)
    shots = [
        Snapshot(
            worker=f"host:{pid}",
            host="host",
            pid=pid,
            version="1",
            app="shop:app",
            started=1500,
            at=1,
            queues=["mail"],
            slots=2,
            executors=[executor],
        )
        for pid in (1, 2)
    ]

    samples = read(of_workers(shots))

    assert samples["dibs_jobs_running worker=host:2"] == 2  # the rest waits in the executor
    assert samples["dibs_executor_memory_bytes executor=0 worker=host:1"] == 500
    assert samples["dibs_worker_start_time_seconds worker=host:1"] == 1.5
    assert "dibs_slots" in read(of_workers(shots[:1], is_own=True))
