"""An account in the form in which the index keeps it: the columns of its job, and what those have no room for."""

from __future__ import annotations

from typing import Any

import msgspec

from dibs.brokers.rabbitmq.ledger.account import CANCELLED, DELAYED, DONE, READY, Account
from dibs.brokers.rabbitmq.ledger.entries import Ended

#: Those of `dibs_jobs` that an index fills, in the order of `to_columns`.
COLUMNS = (
    "id, queue, priority, due, expires, attempt, crashes, enqueued, keep, private, started, ended, worker, task, "
    "content_type, error, reason, death_error, note, result, body, state"
)


class Beside(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a job beside its columns."""

    replayed: int = 0
    dropped: int = 0
    retry: Ended | None = None
    ends: list[Ended] = []
    progress: tuple[int, bytes] | None = None
    log: tuple[int, list[str]] | None = None
    #: Its columns, where it is told no more.
    columns: tuple[Any, ...] | None = None


_ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(Beside)


def from_columns(row: tuple[Any, ...], seq: int | None) -> Account:
    account = Account(str(row[0]))
    (
        account.id,
        account.queue,
        account.priority,
        account.due,
        account.expires,
        account.attempt,
        account.crashes,
        account.enqueued,
        account.keep,
        account.is_private,
        account.started,
        account.ended,
        account.worker,
        account.task,
        account.content_type,
        account.error,
        account.reason,
        account.death_error,
        account.note,
        account.result,
        account.body,
        account.state,
    ) = row[:22]
    if account.state == DELAYED:
        account.state = READY
    account.seq = seq
    return account


def to_columns(a: Account, now: int) -> tuple[str | int | bytes | None, ...]:
    state = DELAYED if a.state == READY and a.due is not None and a.due > now else a.state
    return (
        a.id,
        a.queue,
        a.priority,
        a.due,
        a.expires,
        a.attempt,
        a.crashes,
        a.enqueued,
        a.keep,
        a.is_private,
        a.started,
        a.ended,
        a.worker,
        a.task,
        a.content_type,
        a.error,
        a.reason,
        a.death_error,
        a.note,
        a.result,
        a.body,
        state,
    )


def add_beside(account: Account, beside: Beside) -> None:
    account.has_beside = True
    account.replayed, account.dropped = beside.replayed, beside.dropped
    account.retry, account.ends = beside.retry, list(beside.ends)
    account.progress, account.log = beside.progress, beside.log


def to_beside(account: Account, *, is_gone: bool) -> bytes:
    columns = None
    if is_gone:
        columns = to_columns(account, 2**62)
        if account.state in {DONE, CANCELLED}:  # for good, so only its times are of use
            account.body, account.result, account.error, account.death_error = b"", None, None, None
            columns = to_columns(account, 2**62)
    return _ENCODER.encode(
        Beside(
            account.replayed,
            account.dropped,
            account.retry,
            account.ends,
            account.progress,
            account.log,
            columns,
        )
    )
