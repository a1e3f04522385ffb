"""What stands in the streams `dibs.ledger` and `dibs.control`: entries, many to a message, in msgpack.

A message's body is a msgpack array of entries. An entry is an array that begins with its kind; later versions may
append fields to it, so readers leave alone what they don't know. Queue names are without the namespace: each
namespace has streams of its own. All times are ms since 1970, as the clock of whoever writes says.

Entries come in any order, as producers and workers write independently: a job's end may stand before its beginning.
Whoever reads them must come to the same in whatever order (see `index.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec

from dibs.ledger.life import PRIVATE_NOTE
from dibs.message import Message, now_ms
from dibs.outcome import Cancelled, Dead, Done, Reason, RetryIn

#: Longest body of a job that is written to the ledger along with it, in bytes.
BODY_BYTES = 16 * 1024


class Enqueued(msgspec.Struct, frozen=True, tag=0, array_like=True):
    """A job was handed over."""

    id: str
    queue: str
    task: str | None
    enqueued: int
    due: int | None
    expires: int | None
    priority: int
    #: Ms for which it is remembered when it is done or cancelled.
    keep: int
    is_private: bool
    #: None: private, or longer than BODY_BYTES.
    body: bytes | None
    content_type: str | None = None
    #: Why the body is not here.
    note: str | None = None


class Ended(msgspec.Struct, frozen=True, tag=1, array_like=True):
    """A run of a job ended, or the job did without one. Says enough where the job's beginning is not known."""

    id: str
    queue: str
    task: str | None
    #: When it was handed over, as its message says: rounded down to seconds. None: it does not say.
    enqueued: int | None
    #: "done", "retry", "dead" or "cancelled".
    outcome: str
    #: When this was written.
    at: int
    #: `host:pid`.
    worker: str
    #: Which run it was; where none is over (`started` is None), which one the next would have been.
    attempt: int
    crashes: int
    keep: int
    is_private: bool
    #: Of the run that is over; None: there was none.
    started: int | None = None
    ended: int | None = None
    result: bytes | None = None
    note: str | None = None
    reason: Reason | None = None
    error: str | None = None
    #: When it comes again, after "retry".
    due: int | None = None
    log: list[str] = []
    #: Which run comes again, after "retry"; None: the one behind this one.
    again: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self.outcome != "retry"


class Noted(msgspec.Struct, frozen=True, tag=2, array_like=True):
    """A running job said something of itself."""

    id: str
    at: int
    #: As `dibs.ledger.life.Progress`, in JSON; None: nothing new.
    progress: bytes | None
    #: None: nothing new.
    log: list[str] | None


class Replayed(msgspec.Struct, frozen=True, tag=3, array_like=True):
    """Dead letters were put back into their queue."""

    ids: list[str]
    queue: str
    at: int


class Dropped(msgspec.Struct, frozen=True, tag=4, array_like=True):
    """Dead letters were deleted for good; or jobs that were told to be handed over were not stored after all."""

    #: None: all that the queue had.
    ids: list[str] | None
    queue: str
    at: int


class Purged(msgspec.Struct, frozen=True, tag=5, array_like=True):
    """All that was ready in a queue was deleted."""

    queue: str
    at: int


class Cancel(msgspec.Struct, frozen=True, tag=6, array_like=True):
    """In `dibs.control`: these jobs are to be cancelled, if they were handed over before `at`."""

    ids: list[str]
    at: int


class Pause(msgspec.Struct, frozen=True, tag=7, array_like=True):
    """In `dibs.control`: a queue is paused, or resumed. The last word counts."""

    queue: str
    is_paused: bool
    at: int


class Moved(msgspec.Struct, frozen=True, tag=8, array_like=True):
    """Jobs that `dibs move` brought here are stored, each in its queue: written behind their confirms.

    A mover that begins writes one without jobs first, so that whoever looks for its others knows where to start.
    """

    ids: list[str]
    #: Names the move.
    mark: int
    at: int


Entry = Enqueued | Ended | Noted | Replayed | Dropped | Purged | Cancel | Pause | Moved

#: Begins a msgpack array of up to 15; so many of them are written together at the most: 64 KiB, or some more.
_FEW, _MOST_FEW = 0x90, 16

_ENCODER = msgspec.msgpack.Encoder()
_MESSAGE = msgspec.msgpack.Decoder(list[msgspec.Raw])
_ENTRY = msgspec.msgpack.Decoder(Entry)
_ENTRIES = msgspec.msgpack.Decoder(list[Entry])


def encode(entries: Iterable[Entry]) -> bytes:
    """Return a message's body."""
    return _ENCODER.encode(list(entries))


def gather(bodies: Iterable[bytes]) -> list[bytes]:
    """Return all entries of these bodies in few: to write a message costs the server as much as to take a job."""
    gathered: list[bytes] = []
    few: list[bytes] = []
    for body in bodies:
        if body[0] & 0xF0 != _FEW:
            gathered.append(body)
            continue
        few.append(body)
        if len(few) == _MOST_FEW:
            gathered.append(_joined(few))
            few = []
    return [*gathered, _joined(few)] if few else gathered


def _joined(few: Sequence[bytes]) -> bytes:
    if len(few) == 1:
        return few[0]
    count = sum(body[0] & 0x0F for body in few)
    return b"".join((b"\xdc", count.to_bytes(2, "big"), *(body[1:] for body in few)))


def decode(body: bytes) -> list[Entry]:
    """Return the entries of a message that this version knows. Never fails, whoever wrote it."""
    try:
        return _ENTRIES.decode(body)
    except msgspec.DecodeError:
        pass  # one of them, perhaps, is of a later version
    try:
        raws = _MESSAGE.decode(body)
    except msgspec.DecodeError:
        return []
    found: list[Entry] = []
    for raw in raws:
        try:
            found.append(_ENTRY.decode(raw))
        except msgspec.DecodeError:
            continue
    return found


def enqueued(message: Message) -> Enqueued:
    """Return the entry for a message that is handed over now."""
    body, note = None if message.is_private else message.body, None
    if body is not None and len(body) > BODY_BYTES:
        note = f"The body has {len(body)} bytes; the ledger keeps those of up to {BODY_BYTES}."
        body = None
    return Enqueued(
        message.id,
        message.queue,
        message.task,
        now_ms() if message.enqueued is None else message.enqueued,
        message.due,
        message.expires,
        message.priority,
        round(message.keep * 1000),
        message.is_private,
        body,
        message.content_type,
        note,
    )


def ended(message: Message, outcome: Done | RetryIn | Dead | Cancelled, worker: str, at: int) -> Ended:
    """Return the entry for what came of a message.

    Args:
        message: as it was delivered.
        outcome: what came of it.
        worker: `host:pid`.
        at: now.
    """
    run, crashes, due, next_attempt = outcome.run, message.crashes, None, None
    result = note = reason = error = None
    match outcome:
        case Done():
            word, result, note = "done", outcome.result, outcome.note
        case Cancelled():
            word = "cancelled"
        case RetryIn(delay=delay, message=again):
            word, error, crashes = "retry", again.error, again.crashes
            due, next_attempt = at + round(delay * 1000) if delay > 0 else None, again.attempt
        case Dead():
            word, reason, error = "dead", outcome.reason, outcome.error
            crashes = crashes if outcome.crashes is None else outcome.crashes
        case _:
            assert_never(outcome)
    if message.is_private:
        result = error = None
        note = PRIVATE_NOTE if word == "done" else None
    return Ended(
        message.id,
        message.queue,
        message.task,
        message.enqueued,
        word,
        at,
        worker,
        message.attempt,
        crashes,
        round(message.keep * 1000),
        message.is_private,
        None if run is None else run.started,
        None if run is None else run.ended,
        result,
        note,
        reason,
        error,
        due,
        [] if run is None or message.is_private else run.log,
        next_attempt,
    )
