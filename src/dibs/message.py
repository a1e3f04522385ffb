"""A message, and a message in one worker's hands.

A `Message` is a value: what the broker keeps and what travels between supervisor and executor. It knows
neither how a broker stores it nor how a task reads its body.
"""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

#: What a job gets that names no priority: the middle, so that there is room on both sides.
DEFAULT_PRIORITY = 4
#: In seconds: a year and a bit. Further ahead, RabbitMQ's delay levels end.
LONGEST_DELAY = 400 * 86400.0
#: For how many seconds the ledger keeps what became of a job, unless its task says otherwise.
DEFAULT_KEEP = 86400.0
#: Ids for which random numbers are fetched from the system at a time.
_FETCHED = 64


# No message leads back to itself, so the collector need not look at the tens of thousands that there may be.
class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A job's form on the wire, or a plain message from elsewhere."""

    #: The payload as it came. A job's is `{"args": [...], "kwargs": {...}}` in JSON.
    body: bytes
    #: The queue's name, without the namespace.
    queue: str
    #: Job id: UUIDv7 or the caller's own. A plain message without an id gets one when it is received.
    id: str
    #: Task name; None for a plain message.
    task: str | None = None
    content_type: str | None = None
    #: The sender's own headers; dibs' are fields of this class.
    headers: dict[str, Any] = {}
    #: Standard AMQP properties that have no field here (`correlation_id`, `reply_to`, `content_encoding`,
    #: `user_id`, `app_id`, `expiration`): carried, never acted on.
    properties: dict[str, Any] = {}
    #: 0 (last) to 9 (first).
    priority: int = DEFAULT_PRIORITY
    #: Which run the next one is, from 1.
    attempt: int = 1
    #: How many executors and workers this job has killed.
    crashes: int = 0
    #: It runs alone: it was there when an executor or a worker died. Should a worker die with it once more, that is
    #: put down to it.
    is_suspect: bool = False
    #: When it was handed over, in ms since 1970; None where a stranger did not say.
    enqueued: int | None = None
    #: Not before this time, in ms since 1970.
    due: int | None = None
    #: Dead with reason `expired` if it has not started by then, in ms since 1970.
    expires: int | None = None
    #: Since when workers have seen it without knowing its task, in ms since 1970.
    unknown_since: int | None = None
    #: What the last failure said.
    error: str | None = None
    #: For how many seconds the ledger keeps it once it is done or cancelled; 0: not at all.
    keep: float = DEFAULT_KEEP
    #: Its arguments, result and error stay out of the ledger.
    is_private: bool = False

    @property
    def text(self) -> str:
        """The body as UTF-8 text.

        Raises:
            UnicodeDecodeError: the body is not UTF-8.
        """
        return self.body.decode()

    def after_failure(self, error: str) -> Message:
        """Return it as it comes again after a run that failed: one attempt later, and cleared if it never killed."""
        return msgspec.structs.replace(
            self,
            attempt=self.attempt + 1,
            error=error,
            due=None,
            unknown_since=None,
            is_suspect=self.crashes > 0,
        )

    def after_crash(self, error: str) -> Message:
        """Return it as it comes again after it killed an executor or a worker: no attempt is lost."""
        return msgspec.structs.replace(
            self, crashes=self.crashes + 1, error=error, due=None, unknown_since=None, is_suspect=True
        )

    def json(self) -> Any:
        """Return the body decoded from JSON.

        Raises:
            msgspec.DecodeError: the body is not JSON.
        """
        return msgspec.json.decode(self.body)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message in one worker's hands. Only the consumer that received it can settle it."""

    message: Message
    #: Proof of this hold, made and read by the consumer alone. A later hold of the same job has another one.
    receipt: Any
    #: How often it came back without an outcome. Where `Capabilities.counts_deaths`, each time a worker died; else
    #: also when it was handed back. None: it did come back, and nobody counts how often.
    returns: int | None = 0


class _Random:
    """The random part of ids, fetched from the system many at a time.

    Each fetch lets go of the interpreter, and the thread stands behind all others for it. A forked child fetches its
    own.
    """

    def __init__(self) -> None:
        self._tails: list[str] = []
        os.register_at_fork(after_in_child=self._tails.clear)

    def take(self) -> str:
        """Return one that nobody else gets. Threads may call this at once."""
        try:
            return self._tails.pop()
        except IndexError:
            digits = os.urandom(9 * _FETCHED).hex()
        own, *others = (_tail(digits[place : place + 18]) for place in range(0, len(digits), 18))
        self._tails += others
        return own


def _tail(digits: str) -> str:
    """Return what stands behind the time in a UUID of version 7 (RFC 9562, 5.7): 72 random bits of 74 that may be."""
    return f"7{digits[:3]}-8{digits[3:6]}-{digits[6:]}"


def new_id() -> str:
    """Return a new job id: a UUID of version 7, so that ids sort by the time they were made."""
    digits = f"{time.time_ns() // 1_000_000:012x}"
    return f"{digits[:8]}-{digits[8:]}-{_RANDOM.take()}"


def now_ms() -> int:
    """Return the time in ms since 1970, the form in which stores keep times."""
    return time.time_ns() // 1_000_000


_RANDOM = _Random()
