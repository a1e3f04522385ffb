"""The ledger's tables, asked without a broker: pages, budgets, and rows that another program wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dibs.errors import BadOption
from dibs.ledger import tables
from dibs.ledger.life import STATUSES, JobInfo, JobSelection, Page

_NOW = 1_000_000
_ADD = """
INSERT INTO dibs_jobs (seq, id, queue, state, priority, due, attempt, crashes, suspect, enqueued, keep, private,
                       started, ended, task, body)
VALUES (?, ?, ?, ?, 4, ?, 1, 0, 0, ?, 1000, 0, ?, ?, ?, x'')
"""


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """The tables, in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        tables.create(made)
        yield made


def fill(connection: sqlite3.Connection, count: int) -> None:
    """Add so many jobs, of all states in turn, of three queues and five tasks; the even places are left free."""
    connection.executemany(
        _ADD,
        [
            (
                2 * number + 1,
                str(number),
                f"n.q{number % 3}",
                number % 6,
                _NOW + (1 if number % 4 else -1) if number % 6 == 1 else None,
                number,
                number + 1 if number % 6 >= 2 else None,
                number + 2 if number % 6 >= 3 else None,
                f"t{number % 5}",
            )
            for number in range(count)
        ],
    )


def follow(connection: sqlite3.Connection, selection: JobSelection, **options: Any) -> tuple[list[str], list[Page]]:
    """Go through all pages; return the ids, and the pages."""
    pages = [tables.jobs(connection, selection, prefix="n.", now=_NOW, **options)]
    while pages[-1].next is not None:
        pages.append(tables.jobs(connection, selection, prefix="n.", now=_NOW, after=pages[-1].next, **options))
    return [job.id for page in pages for job in page.jobs], pages


def fits(job: JobInfo, selection: JobSelection) -> bool:
    """Tell whether a job is meant, as the words of `JobSelection` say it."""
    times = [time for time in (job.enqueued, job.started, job.ended) if time is not None]
    return (
        (selection.statuses is None or job.status in selection.statuses)
        and (selection.queue is None or job.queue == selection.queue)
        and (selection.task is None or job.task == selection.task)
        and (selection.since is None or max(times) >= selection.since)
    )


_SELECTIONS = [
    JobSelection(),
    *(JobSelection(statuses=frozenset({status})) for status in STATUSES),
    JobSelection(statuses=frozenset({"ready", "done"}), queue="q0"),
    JobSelection(statuses=frozenset({"dead", "cancelled", "running"}), task="t2", since=50),
    JobSelection(queue="q1", task="t3"),
    JobSelection(since=90),
    JobSelection(queue="nowhere"),
    JobSelection(statuses=frozenset()),
]


@pytest.mark.parametrize("few", [0, 20_000], ids=["all from the newest on", "those of the states"])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_every_way_to_look_finds_the_same_jobs_newest_first(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, few: int, limit: int
) -> None:
    fill(connection, 120)
    everything = tables.jobs(connection, JobSelection(), prefix="n.", now=_NOW, limit=1000).jobs
    assert [job.id for job in everything] == [str(number) for number in reversed(range(120))]
    assert {job.status for job in everything} == set(STATUSES)
    monkeypatch.setattr(tables, "_FEW", few)

    for selection in _SELECTIONS:
        found, pages = follow(connection, selection, limit=limit)

        assert found == [job.id for job in everything if fits(job, selection)], selection
        assert not any(page.is_cut for page in pages)


@pytest.mark.parametrize("few", [0, 20_000], ids=["all from the newest on", "those of the states"])
def test_a_look_that_takes_too_long_is_cut_and_goes_on_where_it_was(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    fill(connection, 12_000)
    monkeypatch.setattr(tables, "_FEW", few)
    selection = JobSelection(statuses=frozenset({"done"}), task="t0", queue="q1")
    whole, pages = follow(connection, selection, limit=100_000, budget=3600.0)
    assert len(pages) == 1

    found, pages = follow(connection, selection, limit=100_000, budget=0.0)

    assert found == whole
    assert len(pages) > 3
    assert all(page.is_cut for page in pages[:-1])
    assert not pages[-1].is_cut


def test_another_namespaces_jobs_are_not_told(connection: sqlite3.Connection) -> None:
    fill(connection, 6)

    assert tables.jobs(connection, JobSelection(), prefix="m.", limit=10).jobs == []
    assert tables.job(connection, "1", prefix="m.") is None
    assert len(tables.jobs(connection, JobSelection(), limit=10).jobs) == 6
    found = tables.job(connection, "1")
    assert found is not None
    assert found.queue == "n.q1"


def test_a_page_that_never_was_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(BadOption, match="after='x'"):
        tables.jobs(connection, JobSelection(), limit=1, after="x")


def test_what_another_program_wrote_is_told_as_far_as_it_can_be_read(connection: sqlite3.Connection) -> None:
    connection.execute(_ADD, (1, "a", "q", 9, None, -5, None, None, None))
    connection.execute("INSERT INTO dibs_notes VALUES ('a', '{\"done\": []}', 'no JSON')")

    found = tables.job(connection, "a")

    assert found is not None
    assert (found.status, found.enqueued, found.progress, found.log) == ("cancelled", 0, None, [])
    assert len(tables.jobs(connection, JobSelection(), limit=1).jobs) == 1


def test_pruning_forgets_what_is_due_and_nothing_else(connection: sqlite3.Connection) -> None:
    fill(connection, 60)  # each is kept for a second
    connection.execute("INSERT INTO dibs_runs (job, attempt, outcome) VALUES ('4', 1, 'retry'), ('58', 1, 'retry')")
    connection.execute("INSERT INTO dibs_notes (job) VALUES ('5'), ('59')")

    assert tables.prune(connection, 1030, 3) == 3
    assert tables.prune(connection, 1030, 100) == 5
    assert tables.prune(connection, 1030, 100) == 0

    left = {int(job.id) for job in tables.jobs(connection, JobSelection(), limit=100).jobs}
    assert left == {number for number in range(60) if number % 6 < 4 or number + 1002 >= 1030}
    assert connection.execute("SELECT job FROM dibs_runs").fetchall() == [("58",)]
    assert connection.execute("SELECT job FROM dibs_notes").fetchall() == [("59",)]


def test_endings_are_of_what_is_over(connection: sqlite3.Connection) -> None:
    fill(connection, 6)

    endings = tables.endings(connection, [*map(str, range(6)), "nobody's"])

    assert {job_id: ending.status for job_id, ending in endings.items()} == {
        "3": "dead",
        "4": "done",
        "5": "cancelled",
    }
