"""Every error that dibs raises, as one tree.

    DibsError
    ├── UsageError              the call or the command was wrong; nothing was done
    │   ├── BadURL              a broker URL that can't be read
    │   ├── BadName             a queue or task name out of bounds
    │   ├── BadOption           an option with a value out of bounds
    │   ├── BadTask             a function that can't be a task as it stands
    │   ├── BadArguments        a call that doesn't fit the task, or a value without a JSON form
    │   ├── UnknownTask         no task of that name is registered
    │   ├── UnknownQueue        a queue that is neither a task's nor declared
    │   └── AppNotFound         `module:app` can't be imported or is no Dibs
    ├── ResultError             a job has no result to return
    │   ├── JobFailed           it is dead: it failed, crashed, expired, was buried …
    │   ├── ResultCancelled     it was cancelled
    │   ├── ResultNotKept       it is done, but its result was not kept, or not for so long
    │   ├── ResultPending       it is not over yet, and the time to wait is
    │   └── UnknownJob          nobody knows it: never handed over, or forgotten since
    └── BrokerError             the broker could not do it
        ├── BrokerUnavailable   not reachable, or gone: nothing was stored
        ├── BrokerBusy          reachable, but would not take it in time: nothing was stored
        ├── HandoverUncertain   nobody knows whether it was stored: hand over again with the same ids
        ├── AccessRefused       login, virtual host or permission refused
        ├── StoreUnusable       the database file can't be used as it is
        │   └── StoreGone       nor ever again by this process: removed, replaced or migrated meanwhile
        ├── QueueMismatch       the queue exists in a form that can't be used
        ├── MessageTooLarge     over a limit of the broker
        ├── JobExists           the caller's own job id is taken
        ├── LedgerUnavailable   this broker keeps no ledger, or does not let this user read it
        └── ReceiptLost         the delivery is not this worker's any more

The control signals `Retry`, `Bury` and `JobTimeout` are not among them; they stand in `outcome.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from dibs.raised import raised_in

if TYPE_CHECKING:
    from dibs.message import Delivery


class DibsError(Exception):
    """The root of all errors that dibs raises."""


class UsageError(DibsError):
    """The call or the command was wrong. Nothing was done."""


class BadURL(UsageError):
    """A broker URL could not be read, or names a broker that dibs does not have."""


class BadName(UsageError):
    """A queue or task name is empty, too long or has characters that a broker can't carry."""


class BadOption(UsageError):
    """An option has a value out of its bounds."""


class BadTask(UsageError):
    """A function can't be registered as it stands: a method, a nested function without a name, a name twice."""


class BadArguments(UsageError):
    """A call does not fit the task's signature, or a value has no JSON form. Names the parameter."""


class UnknownTask(UsageError):
    """No task of that name is registered in this app."""


class UnknownQueue(UsageError):
    """A queue is neither a task's nor declared with `app.queue` or `@app.consumer`."""


class AppNotFound(UsageError):
    """`module:app` can't be imported, or what it names is not a `Dibs`."""


class ResultError(DibsError):
    """A job has no result to return."""

    def __init__(self, text: str, *, id: str) -> None:  # noqa: A002 -- the word of the API
        super().__init__(text)
        #: The job's id.
        self.id = id


class JobFailed(ResultError):
    """The job is dead: its task failed for the last time, killed its executor, expired, was buried …"""

    def __init__(self, text: str, *, id: str, reason: str, error: str) -> None:  # noqa: A002
        name, message = raised_in(error)
        said = ": ".join(part for part in (name, message.strip()) if part)
        super().__init__(f"{text}: {said}" if said else f"{text}.", id=id)
        #: The exception's type, without its module; "" where none was raised.
        self.type_name = name
        #: What the exception said; where none was raised, what was written down instead. "" for a private task.
        self.message = message
        #: Why it was set aside: one of `Reason`.
        self.reason = reason
        #: What was kept of the error: its traceback, where a task raised it.
        self.traceback = error


class ResultCancelled(ResultError):
    """The job was cancelled."""


class ResultNotKept(ResultError):
    """The job is done, but its result is not there: the text says why."""


class ResultPending(ResultError, TimeoutError):
    """The job was not over when the time to wait for its result was."""


class UnknownJob(ResultError):
    """Nobody knows a job of that id: it was never handed over here, or it is over and forgotten."""


class BrokerError(DibsError):
    """The broker could not do what it was asked for."""


class BrokerUnavailable(BrokerError):
    """The broker is not reachable. Nothing was stored."""


class BrokerBusy(BrokerError):
    """The broker is there but did not take the messages within `handover_timeout`. Nothing was stored."""


class HandoverUncertain(BrokerError):
    """The broker went away before it confirmed: the messages may or may not be stored.

    Hand them over again with the same ids, and let the tasks be idempotent.
    """

    def __init__(self, text: str, *, ids: Sequence[str]) -> None:
        super().__init__(text)
        #: Ids of the jobs in doubt; the others of the call are stored.
        self.ids = tuple(ids)


class AccessRefused(BrokerError):
    """The broker refuses this user, virtual host or operation."""


class StoreUnusable(BrokerError):
    """The database file can't be used: not dibs', newer, read-only, full, damaged or on a network file system."""


class StoreGone(StoreUnusable):
    """The database is not the one that was opened any more: removed, replaced, or migrated by another dibs.

    Nothing was stored. Trying again does not help: a worker ends, and is to be started anew. A producer whose file
    was replaced opens the new one with its next call; in all other cases it has to be restarted too.
    """


class QueueMismatch(BrokerError):
    """A queue exists in a form that dibs can't work with."""


class MessageTooLarge(BrokerError):
    """A message is over a limit of the broker. Nothing of the call was stored."""


class JobExists(BrokerError):
    """A job with the caller's own id is already known. Nothing of the call was stored."""

    def __init__(self, text: str, *, ids: Collection[str]) -> None:
        super().__init__(text)
        #: The ids that are taken.
        self.ids = tuple(ids)


class LedgerUnavailable(BrokerError):
    """This broker keeps no ledger, or does not let this user read or write it. Everything else works."""


class ReceiptLost(BrokerError):
    """Deliveries were settled that are not this consumer's any more; the rest of the batch is settled.

    Their jobs are in other hands, or will be. Nothing was changed for them.
    """

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        ids = ", ".join(delivery.message.id for delivery in deliveries)
        super().__init__(f"No longer held by this consumer: {ids}. Their outcome was refused, nothing was changed.")
        #: The deliveries whose outcome was refused.
        self.deliveries = tuple(deliveries)
