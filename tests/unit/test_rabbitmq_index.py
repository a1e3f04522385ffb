"""The index of RabbitMQ's ledger: what entries make of it, in whatever order, and files that can't be used."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dibs.brokers.rabbitmq.ledger import entries, index
from dibs.brokers.rabbitmq.ledger.entries import Dropped, Ended, Enqueued, Entry, Purged
from dibs.brokers.rabbitmq.ledger.index import Index, Overtaken
from dibs.ledger import tables
from dibs.ledger.life import JobInfo
from dibs.message import new_id, now_ms
from tests.histories import History
from tests.indexes import content


def tell(made: Index, said: Sequence[Entry], *, at_a_time: int = 7) -> None:
    """Have an index take in entries, so many to a message and a message at a time."""
    for start in range(0, len(said), at_a_time):
        made.apply([(made.next, entries.encode(said[start : start + at_a_time]))])


def told(path: Path, history: History) -> dict[str, tuple[str, int, list[tuple[int, str]], bytes | None]]:
    """Return what an index tells of the jobs of a history, as its truth is told."""
    connection = sqlite3.connect(path)
    found: dict[str, tuple[str, int, list[tuple[int, str]], bytes | None]] = {}
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


NOW = now_ms()


def handed_over(job_id: str, *, at: int = NOW, **fields: Any) -> Enqueued:
    """Return the entry for a job that was handed over."""
    plain = Enqueued(job_id, "a", "t", at, None, None, 4, 86_400_000, False, b"{}")
    return msgspec.structs.replace(plain, **fields)


def over(job_id: str, outcome: str = "done", *, at: int = NOW + 5, **fields: Any) -> Ended:
    """Return the entry for a job that is over."""
    plain = Ended(
        job_id, "a", "t", NOW // 1000 * 1000, outcome, at, "host:1", 1, 0, 86_400_000, False, at - 3, at - 1
    )
    return msgspec.structs.replace(plain, **fields)


def info(made: Index, job_id: str) -> JobInfo | None:
    """Return what an index says of a job."""
    with closing(sqlite3.connect(made.path)) as connection:
        return tables.job(connection, job_id)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Index]:
    """An empty index."""
    with closing(Index(tmp_path / "index.db", "s")) as made:
        yield made


def test_a_job_whose_beginning_is_not_known_is_told_by_its_end(made: Index) -> None:
    tell(made, [over("1", result=b"42", log=["line"])])

    found = info(made, "1")

    assert found is not None
    assert (found.task, found.queue, found.status, found.result) == ("t", "a", "done", b"42")
    assert (found.enqueued, found.body, found.log) == (NOW // 1000 * 1000, b"", ["line"])


@pytest.mark.parametrize("is_told_first", [True, False])
def test_a_job_that_was_not_stored_is_not_told_though_it_was_to_wait(made: Index, is_told_first: bool) -> None:
    said: list[Entry] = [handed_over("1", due=NOW + 9_000_000), Dropped(["1"], "a", NOW + 5)]

    tell(made, said if is_told_first else said[::-1], at_a_time=1)

    assert info(made, "1") is None


def test_the_first_end_of_a_life_counts(made: Index) -> None:
    tell(
        made, [handed_over("1"), over("1", "cancelled"), over("1", "done", at=NOW + 6), over("1", "dead", at=NOW + 4)]
    )

    found = info(made, "1")

    assert found is not None
    assert found.status == "cancelled"


def test_a_job_that_is_handed_over_again_under_its_id_begins_anew(made: Index) -> None:
    tell(made, [handed_over("1"), over("1", result=b"1"), handed_over("1", at=NOW + 2000, body=b"new")])

    found = info(made, "1")

    assert found is not None
    assert (found.status, found.result, found.body, found.enqueued) == ("ready", None, b"new", NOW + 2000)


def test_a_stranger_that_does_not_say_when_is_understood(made: Index) -> None:
    tell(
        made,
        [over("1", "retry", enqueued=None, error="boom", again=2), over("1", at=NOW + 9, enqueued=None, attempt=2)],
    )

    found = info(made, "1")

    assert found is not None
    assert (found.status, found.enqueued, found.attempt) == ("done", None, 2)
    assert [(run.attempt, run.outcome, run.error) for run in found.runs] == [(1, "retry", "boom"), (2, "done", None)]


def test_after_a_crash_the_same_attempt_comes_again(made: Index) -> None:
    tell(made, [handed_over("1"), over("1", "retry", crashes=1, error="killed", again=1)])

    found = info(made, "1")

    assert found is not None
    assert (found.status, found.attempt, found.crashes, found.error) == ("ready", 1, 1, "killed")


def test_late_words_of_what_was_forgotten_bring_nothing_back(made: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[Entry] = [handed_over("1", keep=0), over("1", keep=0)]
    tell(made, [*forgotten, *forgotten])
    assert info(made, "1") is None

    monkeypatch.setattr(index, "_MOST_GONE", 10)
    tell(
        made,
        [
            entry
            for number in range(1000)
            for entry in (handed_over(f"n{number}", keep=0), over(f"n{number}", keep=0))
        ],
    )

    with closing(sqlite3.connect(made.path)) as connection:
        assert connection.execute("SELECT count(*) FROM dibs_jobs").fetchone() == (0,)
        (count,) = connection.execute("SELECT count(*) FROM dibs_index_beside").fetchone()
        assert count <= 10 + index._PRUNED_EVERY


def test_what_is_past_its_keep_is_forgotten_as_more_is_read(made: Index) -> None:
    day = 86_400_000
    old = [over(f"old{number}", at=NOW - 2 * day, keep=3 * day, enqueued=NOW - 2 * day) for number in range(100)]
    tell(made, old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "now_ms", lambda: NOW + 2 * day)
        tell(made, [handed_over(f"new{number}") for number in range(600)], at_a_time=600)

    with closing(sqlite3.connect(made.path)) as connection:
        ids = {job_id for (job_id,) in connection.execute("SELECT id FROM dibs_jobs")}
    assert ids == {f"new{number}" for number in range(600)}


def test_numbers_that_can_not_be_stored_cost_their_own_entry_only(made: Index) -> None:
    tell(made, [handed_over("1"), handed_over("2", due=2**63), over("3", crashes=2**64 - 1), over("1")])

    assert (info(made, "1") is not None, info(made, "2"), info(made, "3")) == (True, None, None)


@pytest.mark.parametrize("job_id", ["", "a\0b", '"quo\\te', "\u2028\U0001f600\ufffe", "x" * 100_000])
def test_an_id_may_be_any_text_and_costs_nobody_else_anything(made: Index, job_id: str) -> None:
    tell(made, [handed_over(job_id), handed_over("1")])
    tell(made, [over(job_id), over("1")])

    found, other = info(made, job_id), info(made, "1")

    assert found is None if "\0" in job_id else found is not None and found.status == "done"
    assert other is not None
    assert other.status == "done"


def test_what_is_no_entry_or_of_another_version_is_passed_over(made: Index) -> None:
    later = msgspec.msgpack.encode(
        [[99, "what"], msgspec.msgpack.decode(msgspec.msgpack.encode(handed_over("1"))), "text"]
    )

    made.apply([(0, b""), (1, b"\xff\x00"), (2, later), (3, msgspec.msgpack.encode({"no": "list"}))])

    assert info(made, "1") is not None
    assert made.next == 4


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _overwrite(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)


def _make_older(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE dibs_index SET version = 0")
        connection.commit()


def _make_foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
        connection.commit()


def _make_another(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE dibs_index SET stream = 'of another server'")
        connection.commit()


@pytest.mark.parametrize("spoil", [_cut_short, _empty, _overwrite, _make_older, _make_another])
def test_a_file_that_can_not_be_used_is_made_anew_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "index.db"
    with closing(Index(path, "s")) as first:
        tell(first, [handed_over(str(number)) for number in range(100)])
    spoil(path)

    with caplog.at_level("INFO", "dibs.rabbitmq"), closing(Index(path, "s")) as again:
        assert again.next == 0
        tell(again, [handed_over("1")])
        assert info(again, "1") is not None

    assert "made anew" in caplog.text
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    path.touch()
    _make_foreign(path)
    before = path.read_bytes()

    with pytest.raises(FileExistsError):
        Index(path, "s")

    assert path.read_bytes() == before


def test_an_index_is_opened_where_it_ended(tmp_path: Path) -> None:
    with closing(Index(tmp_path / "index.db", "s")) as first:
        first.apply([(41, entries.encode([handed_over("1", keep=0), over("1", keep=0), Purged("a", NOW - 1)]))])

    with closing(Index(tmp_path / "index.db", "s")) as again:
        assert again.next == 42
        tell(again, [handed_over("1", keep=0), handed_over("2", at=NOW - 2)])
        assert (info(again, "1"), info(again, "2")) == (None, None)


def test_who_was_overtaken_writes_nothing(tmp_path: Path) -> None:
    with closing(Index(tmp_path / "index.db", "s")) as slow, closing(Index(tmp_path / "index.db", "s")) as fast:
        tell(fast, [handed_over("1")])

        with pytest.raises(Overtaken):
            tell(slow, [handed_over("2")])

        assert info(fast, "2") is None


def test_who_lost_its_file_writes_nothing(tmp_path: Path) -> None:
    with closing(Index(tmp_path / "index.db", "s")) as slow:
        (tmp_path / "index.db").unlink()
        with closing(Index(tmp_path / "index.db", "s")), pytest.raises(Overtaken):
            tell(slow, [handed_over("1")])
