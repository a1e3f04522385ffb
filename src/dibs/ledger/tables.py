"""The ledger's tables, made and asked, on any connection to a file that has them.

The embedded broker's own file has them, and so has the index that a reader keeps of RabbitMQ's streams: both are
asked the same questions. Begins and ends no transaction; knows nothing of stores, receipts and workers. Reading never
fails for what stands in a row, whichever program wrote it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from importlib import resources
from typing import Any

import msgspec

from dibs.errors import BadOption
from dibs.ledger.life import Ending, JobInfo, JobSelection, Page, Progress, RunInfo, Status

#: The form of schema.sql.
SCHEMA_VERSION = 2
#: States, by the numbers that they are stored as. One that is delayed until a time that has come is told as ready.
_STATUSES: tuple[Status, ...] = ("ready", "delayed", "running", "dead", "done", "cancelled")
_DELAYED, _RUNNING, _DEAD = 1, 2, 3
#: The last millisecond whose year has four digits.
LAST_MS = 253_402_300_799_999
#: Behind all places in the line.
_END = 2**63 - 1
#: Behind all names, as SQLite compares them.
_LAST_CHARACTER = "\U0010ffff"
#: So many of the states that are asked for are looked at one by one; of more, enough are among the newest of all.
_FEW = 20_000

# Served by the index of the ids.
_PLACE = "SELECT seq FROM dibs_jobs WHERE id = ? AND +queue BETWEEN ? AND ?"
# Served by the primary key.
_INFO = """
SELECT id, state, due, task, queue, priority, attempt, crashes, enqueued, expires, started, ended, worker, reason,
       ifnull(death_error, error), private, iif(:is_whole, note, NULL), iif(:is_whole, result, NULL),
       iif(:is_whole, body, NULL)
FROM dibs_jobs WHERE seq = :seq
"""
# Served by dibs_runs_of, and by the primary keys.
_RUNS = "SELECT attempt, started, ended, worker, outcome, error FROM dibs_runs WHERE job = ? ORDER BY rowid"
_CANCEL_ASKED = "SELECT asked FROM dibs_cancels WHERE job = ?"
_NOTES = "SELECT job, progress, log FROM dibs_notes WHERE job IN (SELECT value FROM json_each(?))"
# In the order of the primary key. Besides those that fit it yields about one in a thousand, so that its reader comes
# to look at the clock: a prime, as the places that are left may follow a pattern.
_FITTING = """
SELECT seq,
       (:statuses IS NULL OR (1 << iif(state = 1 AND due <= :now, 0, state)) & :statuses)
       AND queue BETWEEN :low AND :high
       AND (:task IS NULL OR task = :task)
       AND (:reason IS NULL OR reason = :reason)
       AND (:since IS NULL OR max(ifnull(enqueued, 0), ifnull(started, 0), ifnull(ended, 0)) >= :since) AS fits
FROM dibs_jobs WHERE seq < :before AND seq >= :first AND (fits OR seq % 1021 = 0) ORDER BY seq DESC
"""
# Each is served by its state's own index alone. The plus signs keep SQLite from taking the primary key instead.
_PLACES = (
    "SELECT seq FROM dibs_jobs WHERE state = 0 AND queue BETWEEN :low AND :high AND +seq < :before LIMIT :few",
    "SELECT seq FROM dibs_jobs WHERE state = 1 AND queue BETWEEN :low AND :high AND +seq < :before LIMIT :few",
    "SELECT seq FROM dibs_jobs WHERE state = 2 AND +seq < :before LIMIT :few",
    "SELECT seq FROM dibs_jobs WHERE state = 3 AND queue BETWEEN :low AND :high AND +seq < :before LIMIT :few",
    "SELECT seq FROM dibs_jobs WHERE state = 4 AND state >= 4 AND +seq < :before LIMIT :few",
    "SELECT seq FROM dibs_jobs WHERE state = 5 AND state >= 4 AND +seq < :before LIMIT :few",
)
# Served by the index of the ids.
_ENDINGS = """
SELECT id, state, private, result, note, reason, ifnull(death_error, error) FROM dibs_jobs
WHERE id IN (SELECT value FROM json_each(?)) AND +state >= 3 AND +queue BETWEEN ? AND ?
"""
# Served by dibs_over.
_FORGETTABLE = """
SELECT seq, id FROM dibs_jobs WHERE state IN (4, 5) AND state >= 4 AND ended + keep < ? LIMIT ?
"""
_HAS_FORGETTABLE = "SELECT 1 FROM dibs_jobs WHERE state IN (4, 5) AND state >= 4 AND ended + keep < ? LIMIT 1"
# Served by the primary keys and dibs_runs_of.
_FORGET = "DELETE FROM dibs_jobs WHERE seq IN (SELECT value FROM json_each(?))"
_HAS_LIVES = "SELECT EXISTS (SELECT 1 FROM dibs_runs) OR EXISTS (SELECT 1 FROM dibs_notes)"
_FORGET_RUNS = "DELETE FROM dibs_runs WHERE job IN (SELECT value FROM json_each(?))"
_FORGET_NOTES = "DELETE FROM dibs_notes WHERE job IN (SELECT value FROM json_each(?))"

_PROGRESS = msgspec.json.Decoder(Progress)
_LOG = msgspec.json.Decoder(list[str])


def create(connection: sqlite3.Connection) -> None:
    """Make all tables, where there are none."""
    for statement in statements():
        connection.execute(statement)


def statements() -> Iterator[str]:
    """Yield the statements that make the tables."""
    statement = ""
    text = resources.files("dibs.ledger").joinpath("schema.sql").read_text("utf-8")
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def job(connection: sqlite3.Connection, id: str, *, prefix: str = "") -> JobInfo | None:  # noqa: A002
    """Return all that is known of a job; None: nobody knows it.

    Args:
        connection: to a file that has the tables.
        id: the job's.
        prefix: the namespace with its dot, or "".
    """
    place = connection.execute(_PLACE, (id, prefix, prefix + _LAST_CHARACTER)).fetchone()
    values = None if place is None else _read(connection, place[0], is_whole=True)
    if values is None:
        return None
    found = _to_info(values, _notes(connection, [id]), now=_now_ms(), prefix=prefix, is_whole=True)
    runs = [_to_run(row, is_private=found.is_private) for row in connection.execute(_RUNS, (id,))]
    if values[1] >= _DEAD and found.started is not None:
        runs.append(
            RunInfo(
                attempt=found.attempt,
                started=found.started,
                ended=found.ended,
                worker=found.worker,
                outcome=found.status,
                error=found.error if values[1] == _DEAD else None,
            )
        )
    asked = connection.execute(_CANCEL_ASKED, (id,)).fetchone() if values[1] == _RUNNING else None
    return msgspec.structs.replace(found, runs=runs, cancel_asked=asked and read_time(asked[0]))


def jobs(
    connection: sqlite3.Connection,
    selection: JobSelection,
    *,
    prefix: str = "",
    limit: int,
    after: str | None = None,
    now: int | None = None,
    budget: float = 0.07,
) -> Page:
    """Return a page of the jobs that are meant, newest first: those that were put into the line last.

    Where few jobs are in the states that are asked for, those alone are looked at; else all of them from the newest
    on, until the page is full or the budget spent.

    Args:
        connection: to a file that has the tables.
        selection: which ones.
        prefix: the namespace with its dot, or "".
        limit: how many at the most.
        after: `next` of the page before.
        now: in ms since 1970; None: the time it is.
        budget: seconds that looking may take.
    """
    deadline = time.monotonic() + budget
    now = _now_ms() if now is None else now
    wanted = {
        "statuses": None if selection.statuses is None else sum(1 << _STATUSES.index(s) for s in selection.statuses),
        "low": prefix + (selection.queue or ""),
        "high": prefix + (_LAST_CHARACTER if selection.queue is None else selection.queue),
        "task": selection.task,
        "reason": selection.reason,
        "since": selection.since,
        "now": now,
        "before": _END if after is None else _to_place(after),
        "first": -_END,
    }
    found: list[int] = []
    seq, is_cut = 0, False
    for seq, fits in _candidates(connection, wanted, selection.statuses):
        if fits:
            found.append(seq)
            if len(found) == limit:
                break
        elif time.monotonic() > deadline:
            is_cut = True
            break
    rows = [row for place in found if (row := _read(connection, place, is_whole=False)) is not None]
    notes = _notes(connection, [row[0] for row in rows])
    infos = [_to_info(row, notes, now=now, prefix=prefix, is_whole=False) for row in rows]
    return Page(infos, str(seq) if is_cut or len(found) == limit else None, is_cut)


def endings(connection: sqlite3.Connection, ids: Collection[str], *, prefix: str = "") -> dict[str, Ending]:
    """Return how those of these jobs ended that are over. `prefix`: the namespace with its dot, or ""."""
    bounds = prefix, prefix + _LAST_CHARACTER
    rows = connection.execute(_ENDINGS, (json.dumps(list(ids)), *bounds)).fetchall()
    return {row[0]: _to_ending(row) for row in rows}


def has_forgettable(connection: sqlite3.Connection, now: int) -> bool:
    """Tell whether there is anything for `prune` to do."""
    return connection.execute(_HAS_FORGETTABLE, (now,)).fetchone() is not None


def prune(connection: sqlite3.Connection, now: int, limit: int) -> int:
    """Forget at most `limit` jobs that were over longer ago than they are to be kept. Returns how many."""
    found = connection.execute(_FORGETTABLE, (now, limit)).fetchall()
    if found:
        connection.execute(_FORGET, (json.dumps([seq for seq, _ in found]),))
        forget_lives(connection, [job_id for _, job_id in found])
    return len(found)


def forget_lives(connection: sqlite3.Connection, ids: Collection[str]) -> None:
    """Forget the runs, progress and log of these jobs."""
    if connection.execute(_HAS_LIVES).fetchone() == (0,):
        return  # as where no job fails and none says anything of itself: one look for all of them
    named = json.dumps(list(ids))
    connection.execute(_FORGET_RUNS, (named,))
    connection.execute(_FORGET_NOTES, (named,))


def _candidates(
    connection: sqlite3.Connection, wanted: dict[str, Any], statuses: Collection[Status] | None
) -> Iterator[tuple[int, int]]:
    """Yield places, the last one first, each with whether it fits: some that don't are among them."""
    few = None if statuses is None else _places(connection, wanted, statuses)
    if few is None:
        yield from connection.execute(_FITTING, wanted)
        return
    for count, seq in enumerate(few):
        row = connection.execute(_FITTING, {**wanted, "before": seq + 1, "first": seq}).fetchone()
        if row is not None or count % 256 == 0:
            yield row or (seq, 0)


def _places(connection: sqlite3.Connection, wanted: dict[str, Any], statuses: Iterable[Status]) -> list[int] | None:
    """Return all places of jobs in these states, the last one first; None: there are more than a few."""
    states = {_STATUSES.index(status) for status in statuses}
    if 0 in states:
        states.add(_DELAYED)  # their time may have come
    places: list[int] = []
    for state in states:
        room = {**wanted, "few": _FEW + 1 - len(places)}
        places += [seq for (seq,) in connection.execute(_PLACES[state], room)]
        if len(places) > _FEW:
            return None
    return sorted(places, reverse=True)


def _read(connection: sqlite3.Connection, seq: int, *, is_whole: bool) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = connection.execute(_INFO, {"seq": seq, "is_whole": is_whole}).fetchone()
    return row


def _notes(connection: sqlite3.Connection, ids: Collection[str]) -> dict[str, tuple[Progress | None, list[str]]]:
    """Return progress and log of those of these jobs that said something."""
    rows = connection.execute(_NOTES, (json.dumps(list(ids)),)) if ids else ()
    return {job_id: (_decode(_PROGRESS, progress), _decode(_LOG, log) or []) for job_id, progress, log in rows}


def _to_info(
    values: tuple[Any, ...],
    notes: dict[str, tuple[Progress | None, list[str]]],
    *,
    now: int,
    prefix: str,
    is_whole: bool,
) -> JobInfo:
    """Return what a row of `_INFO` and the job's notes say."""
    job_id, state, due, task, queue, priority, attempt, crashes, enqueued, expires = values[:10]
    started, ended, worker, reason, error, private, note, result, body = values[10:]
    is_due = state == _DELAYED and (due is None or due <= now)
    progress, log = notes.get(job_id, (None, []))
    return JobInfo(
        id=job_id,
        task=task,
        queue=queue.removeprefix(prefix),
        status="ready" if is_due else _STATUSES[state] if 0 <= state < len(_STATUSES) else "cancelled",
        priority=priority,
        attempt=max(1, attempt),
        crashes=max(0, crashes),
        enqueued=read_time(enqueued),
        due=read_time(due),
        expires=read_time(expires),
        started=read_time(started),
        ended=read_time(ended),
        worker=worker,
        reason=reason,
        error=None if private else error,
        progress=progress,
        is_private=bool(private),
        body=None if private else body,
        result=None if private else result,
        note=note,
        log=log if is_whole else [],
    )


def _to_run(values: tuple[Any, ...], *, is_private: bool) -> RunInfo:
    attempt, started, ended, worker, outcome, error = values
    return RunInfo(
        attempt=attempt,
        started=read_time(started),
        ended=read_time(ended),
        worker=worker,
        outcome=outcome,
        error=None if is_private else error,
    )


def _to_ending(values: tuple[Any, ...]) -> Ending:
    _, state, private, result, note, reason, error = values
    if state == _DEAD:
        return Ending(status="dead", reason=reason, error=None if private else error)
    if state == _STATUSES.index("done"):
        return Ending(status="done", result=None if private else result, note=note)
    return Ending(status="cancelled")


def _decode(decoder: msgspec.json.Decoder[Any], text: str | None) -> Any:
    try:
        return None if text is None else decoder.decode(text)
    except msgspec.DecodeError:
        return None


def read_time(ms: int | None) -> int | None:
    """Return a time as it is stored, moved to the nearest one that a calendar has."""
    return None if ms is None else max(0, min(ms, LAST_MS))


def _to_place(after: str) -> int:
    try:
        return int(after)
    except ValueError:
        raise BadOption(f"after={after!r}: give `next` of a page of jobs, as it is.") from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
