"""The index of RabbitMQ's ledger: what entries make of it, in whatever order, and files that can't be used."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dibs.brokers.rabbitmq.ledger import entries, index
from dibs.brokers.rabbitmq.ledger.entries import Entry
from dibs.brokers.rabbitmq.ledger.index import Index
from dibs.ledger import tables
from dibs.message import new_id
from tests.histories import History


def tell(made: Index, said: Sequence[Entry], *, at_a_time: int = 7) -> None:
    """Have an index take in entries, so many to a message and a message at a time."""
    for start in range(0, len(said), at_a_time):
        made.apply([(made.next, entries.encode(said[start : start + at_a_time]))])


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return what stands in the tables that are asked, without places in the line."""
    connection = sqlite3.connect(path)
    found = {
        table: sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
        for table, columns in (
            (
                "dibs_jobs",
                "id, queue, state, priority, due, attempt, crashes, enqueued, keep, started, ended, worker, "
                "task, content_type, error, reason, death_error, note, result, body",
            ),
            ("dibs_runs", "job, attempt, started, ended, worker, outcome, error"),
            ("dibs_notes", "job, progress, log"),
            ("dibs_queues", "name"),
        )
    }
    connection.close()
    return found


def told(path: Path, history: History) -> dict[str, tuple[str, int, list[tuple[int, str]], bytes | None]]:
    """Return what an index tells of the jobs of a history, as its truth is told."""
    connection = sqlite3.connect(path)
    found = {}
    for job in history.jobs:
        info = tables.job(connection, job.id)
        if info is not None:
            is_delayed = info.status == "ready" and info.due is not None and info.due > history.now
            runs = sorted((run.attempt, run.error or "") for run in info.runs if run.outcome == "retry")
            row = connection.execute("SELECT progress FROM dibs_notes WHERE job = ?", (job.id,)).fetchone()
            progress = None if row is None or row[0] is None else row[0].encode()
            found[job.id] = "delayed" if is_delayed else info.status, info.attempt, runs, progress
    connection.close()
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for many files."""
    return tmp_path_factory.mktemp("index")


@given(seed=st.integers(0, 10**9), order=st.integers(0, 10**9))
@settings(max_examples=100)
def test_entries_make_the_same_of_an_index_in_whatever_order_and_however_often_they_come(
    place: Path, seed: int, order: int
) -> None:
    history, shuffle = History(seed, jobs=3, steps=70), random.Random(order)
    mixed = history.entries + shuffle.sample(history.entries, len(history.entries) // 3)
    shuffle.shuffle(mixed)
    name = new_id()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "now_ms", lambda: history.now)
        straight, crooked = Index(place / f"{name}-1", "s"), Index(place / f"{name}-2", "s")

        tell(straight, history.entries)
        tell(crooked, mixed, at_a_time=shuffle.choice((1, 5, 1000)))

    straight.close()
    crooked.close()
    first, second = content(straight.path), content(crooked.path)
    found = told(straight.path, history)
    assert found == history.truth()
    assert second == first
