"""The checks of `dibs doctor`, from facts to findings: what no test can make at will."""

from __future__ import annotations

import msgspec
import pytest

from dibs.broker import QueueInfo
from dibs.doctor.diagnosis import diagnose
from dibs.doctor.finding import count
from dibs.doctor.scene import Scene, gather
from dibs.errors import BrokerBusy
from dibs.facts import Facts, ManagementFacts, ServerFacts
from dibs.ledger.life import JobInfo

NOW = 1_800_000_000_000


def scene(server: ServerFacts | None = None, **changes: object) -> Scene:
    facts = Facts(location="amqp://h/", server="RabbitMQ 4.0.5", rabbitmq=server)
    return msgspec.structs.replace(Scene(facts=facts, now=NOW, version="1.0"), **changes)


def names(looked: Scene) -> list[str]:
    return [finding.name for finding in diagnose(looked)]


def a_job(**fields: object) -> JobInfo:
    given = {"id": "j", "task": "t", "queue": "a", "status": "ready", "priority": 0, "attempt": 1} | fields
    return msgspec.convert(given, JobInfo)


def a_queue(**fields: object) -> QueueInfo:
    given = {"name": "a", "ready": 0, "running": None, "delayed": None, "dead": 0, "consumers": 1} | fields
    return msgspec.convert(given, QueueInfo)


def a_server(**changes: object) -> ServerFacts:
    return msgspec.structs.replace(ServerFacts(version="4.0.5", user="u", virtual_host="/"), **changes)


def test_where_nothing_is_known_nothing_is_wrong() -> None:
    assert names(scene()) == names(scene(a_server())) == []


def test_a_server_that_is_too_old_is_a_problem() -> None:
    assert names(scene(a_server(version="3.9.29"))) == ["server-too-old"]


@pytest.mark.parametrize(("offset", "expected"), [(4.0, []), (60.0, ["clock-skew"]), (-60.0, ["clock-skew"])])
def test_a_clock_of_the_server_that_is_wrong_is_told(offset: float, expected: list[str]) -> None:
    assert names(scene(a_server(management=ManagementFacts(clock_offset=offset)))) == expected


@pytest.mark.parametrize(
    ("job", "queue", "expected"),
    [
        (a_job(due=NOW - 90_000), a_queue(), ["overdue"]),
        (a_job(due=NOW - 5_000), a_queue(), []),
        (a_job(due=NOW - 90_000), a_queue(ready=1), []),  # it has come
        (a_job(due=NOW - 90_000, status="delayed"), a_queue(), []),
        (a_job(due=NOW - 90_000), a_queue(delayed=0), []),  # this broker counts them itself
    ],
)
def test_delayed_jobs_that_did_not_come_are_told(job: JobInfo, queue: QueueInfo, expected: list[str]) -> None:
    told = names(scene(waiting=[job], queues=[queue]))

    assert [name for name in told if name == "overdue"] == expected


def test_a_ledger_that_takes_too_long_to_read_is_a_note() -> None:
    (told,) = diagnose(scene(unread=(10_000, 5_000_000)))

    assert (told.name, told.severity) == ("ledger-unread", "note")
    assert "10,000 of 5,000,000" in told.what


def test_the_worst_comes_first() -> None:
    looked = scene(queues=[a_queue(dead=1), a_queue(name="b", ready=1, consumers=0)], troubles=["no"])

    assert [finding.severity for finding in diagnose(looked)] == ["problem", "warning", "note", "note"]


def test_what_can_not_be_asked_for_is_told_and_the_rest_looked_at() -> None:
    class Broken:
        """A broker that answers nothing but what it stands on."""

        def examine(self, *_: object, **__: object) -> Facts:
            return Facts(location="x", server="y")

        def queues(self, *_: object) -> list[QueueInfo]:
            raise BrokerBusy("others have it")

        @property
        def ledger(self) -> object:
            raise BrokerBusy("still")

    looked = gather(Broken(), [], tasks=None, version="1")  # type: ignore[arg-type]  # as far as it is asked

    assert looked.troubles == ["others have it", "still", "still"]
    assert names(looked) == ["unreadable"] * 3


def test_numbers_have_their_noun() -> None:
    assert [count(number, "job") for number in (0, 1, 2000)] == ["0 jobs", "1 job", "2,000 jobs"]
