"""The statistics' statements are served by indexes, whatever else the file holds; old minutes are forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from dibs.ledger import history, tables
from dibs.ledger.statistics import MINUTE
from dibs.ledger.tally import Tally

_NAMES = {"since": 1, "now": 2, "limit": 3, "low": "", "high": "x", "keep": 4, "state": 4, "queue": "a", "minute": 5}


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A file's tables, in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        tables.create(made)
        yield made


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (history._OVER, "SEARCH dibs_jobs USING INDEX dibs_over (state=? AND <expr>>? AND <expr><?)"),
        (history._DEAD, "SEARCH dibs_jobs USING INDEX dibs_dead (state=? AND queue=? AND ended>?)"),
        (history._RUNS, "SEARCH dibs_jobs USING INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (history._SET_DEPTH, "SEARCH dibs_jobs USING COVERING INDEX dibs_ready (state=? AND queue=?)"),
        (history._SET_DEPTH, "SEARCH dibs_jobs USING COVERING INDEX dibs_delayed (state=? AND queue=?)"),
        (history._SET_DEPTH, "SEARCH dibs_minutes USING PRIMARY KEY (minute=? AND queue=?)"),
    ],
)
def test_a_statement_is_served_by_its_index(connection: sqlite3.Connection, statement: str, index: str) -> None:
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", _NAMES)]

    assert index in plan
    assert not any(step.startswith("SCAN dibs_jobs") for step in plan)


def test_minutes_are_forgotten_after_some_hours(connection: sqlite3.Connection) -> None:
    old, new = 100 * MINUTE, 100 * MINUTE + history.KEPT + MINUTE
    for start in (old, new):
        tally = Tally()
        tally.add("a", "done", start, started=start, ended=start + 5, since=start - 7)
        history.add(connection, tally)

    assert [minute.start for minute in history.minutes(connection, 0)] == [new]


def test_a_batch_adds_to_what_others_added(connection: sqlite3.Connection) -> None:
    for waited in (7, 3):
        tally = Tally()
        tally.add("n.a", "done", MINUTE, started=MINUTE, ended=MINUTE + 5, since=MINUTE - waited)
        history.add(connection, tally)

    (found,) = history.minutes(connection, MINUTE, prefix="n.")
    assert (found.queue, found.done, found.ran, found.waited, found.longest) == ("a", 2, 10, 10, 7)
    assert history.minutes(connection, MINUTE, prefix="m.") == []
