"""The dead letters of a queue: seen, replayed, dropped. Done in small steps, so that others get their turns.

Costs by the letters that are looked at: the index is in their order and has their times, so a page behind some
letter, or of some hours, is found at once. No index has their tasks and reasons: those are read row by row.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager

from dibs.brokers.sqlite import rows
from dibs.brokers.sqlite.store import Store
from dibs.ledger import tables
from dibs.outcome import DeadLetter
from dibs.selection import Selection

#: Rows looked at per read, and changed per transaction.
BATCH = 1000
#: Beyond all times and places: the largest integer that SQLite has.
_END = 2**63 - 1

# Served by dibs_dead, in its order; task and reason are read from the rows. All have the same first parameters.
_WINDOW = """
SELECT ended, seq, id, (?2 IS NULL OR task IS ?2) AND (?3 IS NULL OR reason IS ?3)
FROM dibs_jobs
WHERE state = 3 AND queue = ?1 AND (ended, seq) > (?5, ?6) AND ended < ?4 AND seq <= ?7 ORDER BY ended, seq LIMIT ?8
"""
# Served by the index of the ids; the plus signs keep SQLite from going through all the dead instead.
_NAMED = """
SELECT ended, seq, id, (?2 IS NULL OR task IS ?2) AND (?3 IS NULL OR reason IS ?3)
FROM dibs_jobs
WHERE id IN (SELECT value FROM json_each(?7)) AND +state = 3 AND +queue = ?1
      AND (+ended, seq) > (?5, ?6) AND +ended < ?4
"""
_PLACE = "SELECT ended, seq FROM dibs_jobs WHERE id = ? AND +queue = ? AND +state = 3"
_LAST = "SELECT ifnull(max(seq), 0) FROM dibs_jobs"
# Served by the primary key. The id tells whether it is still the same job: a free seq is given again.
_LETTER = """
SELECT id, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since, keep, private, task,
       content_type, headers, properties, error, body, reason, death_error, ended, worker
FROM dibs_jobs WHERE seq = ? AND +id = ? AND +state = 3
"""
# Moves the row to the end of the line.
_REPLAY = """
UPDATE dibs_jobs SET seq = (SELECT max(seq) + 1 FROM dibs_jobs), state = 0, due = NULL, expires = NULL, returns = 0,
       attempt = 1, crashes = 0, suspect = 0, unknown_since = NULL, started = NULL, ended = NULL, worker = NULL,
       error = NULL, reason = NULL, death_error = NULL
WHERE seq = ? AND +id = ? AND +state = 3
"""
_DROP = "DELETE FROM dibs_jobs WHERE seq = ? AND +id = ? AND +state = 3"

#: A row's `seq` and its job's id.
_Place = tuple[int, str]


class DeadLetters:
    """Those of one queue."""

    def __init__(
        self, store: Store, lend: Callable[[], AbstractContextManager[sqlite3.Connection]], queue: str, *, name: str
    ) -> None:
        """Look at nothing yet.

        Args:
            store: of the file.
            lend: gives a connection into the hands of one thread.
            queue: with the namespace.
            name: without it.
        """
        self._store = store
        self._lend = lend
        self._queue = queue
        self._name = name

    def each(self, selection: Selection, *, after: str | None) -> Generator[DeadLetter]:
        """Yield those that are meant, from behind `after`; from the oldest if that is not there any more."""
        start = (-1, -1)
        if after is not None:
            with self._lend() as connection, self._store.read():
                start = connection.execute(_PLACE, (after, self._queue)).fetchone() or start
        for places in self._places(selection, start):
            for place in places:
                with self._lend() as connection, self._store.read():
                    row = connection.execute(_LETTER, place).fetchone()
                if row is not None:  # else it was replayed or dropped just now
                    yield rows.to_letter(row, self._name)

    def replay(self, selection: Selection) -> int:
        """Put those that are meant to the end of the line; returns how many."""
        return self._change(_REPLAY, selection)

    def drop(self, selection: Selection) -> int:
        """Delete those that are meant; returns how many."""
        return self._change(_DROP, selection)

    def _change(self, statement: str, selection: Selection) -> int:
        count = 0
        for places in self._places(selection, (-1, -1)):
            with self._lend() as connection, self._store.write(connection, size=BATCH * 512):
                changed = [place[1] for place in places if connection.execute(statement, place).rowcount]
                tables.forget_lives(connection, changed)
            count += len(changed)
        return count

    def _places(self, selection: Selection, start: tuple[int, int]) -> Iterator[list[_Place]]:
        """Yield where those lie that are meant, oldest first, in batches.

        Those that die meanwhile, again perhaps, are behind the last row that there is now, and not among them.
        """
        fixed = (self._queue, selection.task, selection.reason, _bounded(selection.died_before, _END))
        start = max(start, (_bounded(selection.died_since, 0) - 1, _END))
        if selection.ids is not None:
            named = self._named(fixed, start, list(selection.ids))
            yield from (named[first : first + BATCH] for first in range(0, len(named), BATCH))
            return
        with self._lend() as connection, self._store.read():
            (last,) = connection.execute(_LAST).fetchone()
        while True:
            with self._lend() as connection, self._store.read():
                found = connection.execute(_WINDOW, (*fixed, *start, last, BATCH)).fetchall()
            if places := [(seq, job_id) for _, seq, job_id, fits in found if fits]:
                yield places
            if len(found) < BATCH:
                return
            start = found[-1][:2]

    def _named(self, fixed: tuple[object, ...], start: tuple[int, int], ids: list[str]) -> list[_Place]:
        found: list[tuple[int, int, str, int]] = []
        for first in range(0, len(ids), BATCH):
            part = json.dumps(ids[first : first + BATCH])
            with self._lend() as connection, self._store.read():
                found += connection.execute(_NAMED, (*fixed, *start, part)).fetchall()
        return [(seq, job_id) for _, seq, job_id, fits in sorted(found) if fits]


def _bounded(time: int | None, default: int) -> int:
    return default if time is None else max(0, min(time, _END))
