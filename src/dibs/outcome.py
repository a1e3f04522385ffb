"""What came of one run, as values, and the signals by which a task asks for one.

Outcomes carry the decision that policy took (`run.py`, the supervisor); brokers record it and decide nothing.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec

from dibs.errors import BadOption
from dibs.message import LONGEST_DELAY, Message

#: Why a message was set aside. `crashed` and `expired` are dibs' judgement, `buried` the task's own.
Reason = Literal[
    "failed",
    "crashed",
    "unknown-task",
    "bad-arguments",
    "unreadable",
    "no-consumer",
    "expired",
    "buried",
]

#: Longest error text that is stored with a message, in UTF-8 bytes.
ERROR_BYTES = 8192
#: Longest result that is kept, in bytes of JSON.
RESULT_BYTES = 1024 * 1024
#: So many of the lines that a job logged last are kept.
LOG_LINES = 100


class Run(msgspec.Struct, frozen=True, array_like=True):
    """When a run began and ended, and what was logged in it: what the ledger keeps of it beside its outcome."""

    #: In ms since 1970, as the executor's clock says.
    started: int
    ended: int
    #: The last lines that it logged, as many as LOG_LINES at most.
    log: list[str] = []


class Done(msgspec.Struct, frozen=True, tag="done", array_like=True):
    """The task returned."""

    #: What it returned, as JSON; None where there is nothing to keep.
    result: bytes | None = None
    #: Why the result is not kept, where it is not.
    note: str | None = None
    run: Run | None = None


class RetryIn(msgspec.Struct, frozen=True, tag="retry", array_like=True):
    """The job is to come again, as `message` says, after `delay` seconds (0: at once, behind those waiting)."""

    delay: float
    #: The message as it is to come: attempt, crashes and error already counted up.
    message: Message
    #: None: it did not run, so no attempt is over.
    run: Run | None = None


class Dead(msgspec.Struct, frozen=True, tag="dead", array_like=True):
    """The message is set aside. Nothing runs it until it is replayed."""

    reason: Reason
    #: Text with traceback, at most ERROR_BYTES.
    error: str
    #: How many executors and workers it has killed by now; None: as many as its message says.
    crashes: int | None = None
    run: Run | None = None


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled", array_like=True):
    """The job was cancelled, before it ran or in the middle of it. Nothing runs it again."""

    run: Run | None = None


class Released(msgspec.Struct, frozen=True, tag="release", array_like=True):
    """The job goes back to its place, unstarted or interrupted by no fault of its own. Costs no attempt."""


Outcome = Done | RetryIn | Dead | Cancelled | Released


class Retry(BaseException):
    """Raised by a task: run me again.

    A `BaseException`, so that a task's own `except Exception` does not swallow it.

    Raises:
        BadOption: the delay is below 0 or over 400 days.
    """

    def __init__(self, reason: str = "", *, delay: float | dt.timedelta | None = None) -> None:
        super().__init__(reason)
        #: Seconds until the next attempt; None lets the task's backoff decide.
        self.delay = delay.total_seconds() if isinstance(delay, dt.timedelta) else delay
        if self.delay is not None and not (isinstance(self.delay, (int, float)) and 0 <= self.delay <= LONGEST_DELAY):
            raise BadOption(f"Retry(delay={delay!r}): must be from 0 seconds to 400 days.")


class Bury(BaseException):
    """Raised by a task: set me aside now, with this reason, and don't try again."""


class JobTimeout(BaseException):
    """Raised in a task that runs longer than its `timeout`. Counts as a failure.

    A `BaseException`, so that a task's own `except Exception` does not swallow it; `finally` and `with` clean up.
    A coroutine sees `asyncio.CancelledError` instead, as it does under `asyncio.timeout`.
    """


class JobCancelled(BaseException):
    """Raised in a task whose job is cancelled while it runs.

    A `BaseException`, so that a task's own `except Exception` does not swallow it; `finally` and `with` clean up.
    A coroutine sees `asyncio.CancelledError` instead.
    """


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message set aside with its reason."""

    message: Message
    #: One of `Reason`; any text where another client put the message there.
    reason: str
    error: str
    #: When it was set aside, in ms since 1970; None where another client did it and did not say.
    died: int | None
    #: The worker that set it aside (`host:pid`), where it said so.
    worker: str | None = None


def clip_error(text: str) -> str:
    """Return `text` cut to ERROR_BYTES, its middle left out: the head says where, the tail says what."""
    data = text.encode("utf-8", "replace")
    if len(data) <= ERROR_BYTES:
        return data.decode()
    half = ERROR_BYTES // 2 - 24
    head, tail = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{head}\n[… {len(data) - 2 * half} bytes cut …]\n{tail}"


def is_reason(value: Any) -> bool:
    """Tell whether `value` is one of the reasons that dibs gives."""
    return value in Reason.__args__  # type: ignore[attr-defined]  # typing gives Literal no such attribute
