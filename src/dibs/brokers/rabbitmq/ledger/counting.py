"""Counts what an index reads of jobs' ends, for the statistics by the minute.

A record that was sent twice counts twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from dibs.brokers.rabbitmq.ledger.account import Account
from dibs.brokers.rabbitmq.ledger.entries import Ended
from dibs.ledger import history
from dibs.ledger.tally import KINDS, Tally

#: What messages say of when they were handed over is rounded down to this many ms; the producer's record is not.
_SECOND = 1000


def count(connection: sqlite3.Connection, ended: Iterable[tuple[Ended, Account]], now: int) -> None:
    """Add these ends to the minutes in which they were recorded, as far as those are remembered.

    Args:
        connection: to the index, in a transaction.
        ended: each with all that is known of its job.
        now: in ms since 1970.
    """
    tally = Tally()
    for entry, account in ended:
        if entry.at < now - history.KEPT or entry.at > now + history.KEPT or entry.outcome not in KINDS:
            continue
        tally.add(
            entry.queue,
            entry.outcome,
            entry.at,
            started=entry.started,
            ended=entry.ended,
            since=_since(entry, account),
        )
    # How many jobs wait is not counted: those that run can't be told from them here, and what is read may be old.
    history.add(connection, tally, counts_depth=False)


def _since(entry: Ended, account: Account) -> int | None:
    """Return from when on a first run could have begun; None: it was none, or nobody knows to the ms."""
    if entry.attempt > 1 or entry.crashes:
        return None
    if account.due is not None:
        return account.due
    return None if account.enqueued is None or account.enqueued % _SECOND == 0 else account.enqueued
