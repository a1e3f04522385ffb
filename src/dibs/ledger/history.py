"""What happened of late, in the ledger's tables: the statistics by the minute, and runs in the order of their ends.

Written by the batch, as outcomes are recorded; asked on any connection to a file that has the tables. Begins and ends
no transaction.
"""

from __future__ import annotations

import sqlite3
from heapq import merge
from itertools import islice
from typing import Any

from dibs.ledger.statistics import MINUTE, Minute, PastRun, PastRuns
from dibs.ledger.tally import Tally

#: In ms: for how long a minute is remembered.
KEPT = 6 * 3_600_000
#: Jobs that are over are looked for by how long they are kept; so many lengths of time are thought of at the most.
_KEEPS = 8
#: Behind all names, as SQLite compares them.
_LAST_CHARACTER = "\U0010ffff"

# Served by the primary key. SQLite 3.40 says 0 to `RETURNING depth IS NULL` of a depth that is.
_ADD = """
INSERT INTO dibs_minutes (minute, queue, done, retried, dead, cancelled, runs, ran, waits, waited, longest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (minute, queue) DO UPDATE SET
    done = done + excluded.done, retried = retried + excluded.retried, dead = dead + excluded.dead,
    cancelled = cancelled + excluded.cancelled, runs = runs + excluded.runs, ran = ran + excluded.ran,
    waits = waits + excluded.waits, waited = waited + excluded.waited, longest = max(longest, excluded.longest)
RETURNING depth
"""
# Once a minute and queue. Each count is served by its state's own index.
_SET_DEPTH = """
UPDATE dibs_minutes SET depth = (SELECT count(*) FROM dibs_jobs WHERE state = 0 AND queue = :queue)
                              + (SELECT count(*) FROM dibs_jobs WHERE state = 1 AND queue = :queue)
WHERE minute = :minute AND queue = :queue
"""
_PRUNE = "DELETE FROM dibs_minutes WHERE minute < ?"
_MINUTES = """
SELECT minute, queue, done, retried, dead, cancelled, runs, ran, waits, waited, longest, depth FROM dibs_minutes
WHERE minute >= ? AND queue BETWEEN ? AND ? ORDER BY minute
"""
# The lengths of time for which the newest jobs are kept.
_RECENT_KEEPS = "SELECT DISTINCT keep FROM (SELECT keep FROM dibs_jobs ORDER BY seq DESC LIMIT 500) LIMIT ?"
# Served by dibs_over: whoever ended in this time and is kept for so long stands between these. Others that stand
# there too are left out by the outer look.
_OVER = """
SELECT * FROM (
    SELECT id, task, queue, attempt, started, ended, worker, state FROM dibs_jobs
    WHERE state = :state AND state >= 4 AND ended + keep BETWEEN :since + :keep AND :now + :keep
    ORDER BY ended + keep DESC LIMIT :limit)
WHERE ended >= :since AND started IS NOT NULL AND queue BETWEEN :low AND :high
"""
# Served by dibs_dead, a look into it per queue. Read only as far as those of all queues are wanted.
_DEAD = """
SELECT id, task, queue, attempt, started, ended, worker, state FROM dibs_jobs
WHERE state = 3 AND queue = :queue AND ended >= :since AND started IS NOT NULL ORDER BY ended DESC LIMIT :limit
"""
_QUEUES = "SELECT name FROM dibs_queues WHERE name BETWEEN ? AND ?"
# Newest first by the row's number. A job that is forgotten took its runs along.
_RUNS = """
SELECT job, task, queue, past.attempt, past.started, past.ended, past.worker, outcome
FROM (SELECT * FROM dibs_runs ORDER BY rowid DESC LIMIT :limit) AS past JOIN dibs_jobs ON dibs_jobs.id = job
WHERE past.ended >= :since AND past.started IS NOT NULL AND queue BETWEEN :low AND :high
"""
_OUTCOMES = {3: "dead", 4: "done", 5: "cancelled"}


def add(connection: sqlite3.Connection, tally: Tally, *, counts_depth: bool = True) -> None:
    """Add a batch's sums.

    Args:
        connection: in a write transaction.
        tally: what the batch comes to.
        counts_depth: have the first batch of a minute and queue count how many jobs wait.
    """
    for row in tally.rows():
        ((depth,),) = connection.execute(_ADD, row).fetchall()
        if depth is None:
            minute, queue = row[:2]
            if counts_depth:
                connection.execute(_SET_DEPTH, {"minute": minute, "queue": queue})
            connection.execute(_PRUNE, (int(minute) - KEPT,))


def minutes(connection: sqlite3.Connection, since: int, *, prefix: str = "") -> list[Minute]:
    """Return what was recorded by minute and queue. See `Ledger.minutes`."""
    low, high = prefix, prefix + _LAST_CHARACTER
    return [
        Minute(
            start=row[0],
            queue=row[1].removeprefix(prefix),
            done=row[2],
            retried=row[3],
            dead=row[4],
            cancelled=row[5],
            runs=row[6],
            ran=row[7],
            waits=row[8],
            waited=row[9],
            longest=row[10],
            depth=row[11],
        )
        for row in connection.execute(_MINUTES, (since - since % MINUTE, low, high))
    ]


def runs(connection: sqlite3.Connection, since: int, *, now: int, limit: int, prefix: str = "") -> PastRuns:
    """Return the runs that ended since then, the latest first. See `Ledger.runs`.

    Where jobs are kept for many different lengths of time, some runs may be left out.
    """
    wanted = {"since": since, "now": now, "limit": limit, "low": prefix, "high": prefix + _LAST_CHARACTER}
    queues = connection.execute(_QUEUES, (wanted["low"], wanted["high"])).fetchall()
    dead = [connection.execute(_DEAD, {**wanted, "queue": queue}) for (queue,) in queues]
    failed = connection.execute(_RUNS, wanted).fetchall()
    failed += islice(merge(*dead, key=_latest), limit)
    failed = sorted(failed, key=_latest)[:limit]
    ended, whole_since = [], since
    for (keep,) in connection.execute(_RECENT_KEEPS, (_KEEPS,)).fetchall():
        for state in (4, 5):
            rows = connection.execute(_OVER, {**wanted, "keep": keep, "state": state}).fetchall()
            if len(rows) == limit:
                whole_since = max(whole_since, min(row[5] for row in rows))
            ended += rows
    ended.sort(key=_latest)
    if len(ended) > limit:
        whole_since = max(whole_since, ended[limit - 1][5])
    found = {(row[0], row[3], row[4]): _to_run(row, prefix) for row in failed}
    found |= {(row[0], row[3], row[4]): _to_run(row, prefix) for row in ended[:limit] if row[5] >= whole_since}
    return PastRuns(sorted(found.values(), key=lambda run: -run.ended), whole_since)


def _latest(row: tuple[Any, ...]) -> int:
    """Return by what rows are in the order of their ends, the latest first."""
    return -int(row[5])


def _to_run(row: tuple[str, str | None, str, int, int, int, str | None, int | str], prefix: str) -> PastRun:
    job_id, task, queue, attempt, started, ended, worker, outcome = row
    return PastRun(
        id=job_id,
        task=task,
        queue=queue.removeprefix(prefix),
        attempt=attempt,
        started=started,
        ended=ended,
        worker=worker,
        outcome=outcome if isinstance(outcome, str) else _OUTCOMES.get(outcome, "done"),
    )
