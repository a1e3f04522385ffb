"""The storage edge: what a broker is, as two protocols. `tests/conformance/` is their meaning.

    enqueue                    receive                 settle
       │      ┌──────────────┐          ┌─────────┐
       └─────►│    ready     ├─────────►│ running ├── Done ───────► done (in the ledger, for its `keep`)
       │      └─▲─────────▲──┘          └─┬──┬──┬─┴── Cancelled ──► cancelled (so does a waiting one, by `cancel`)
       │        │ due     └── Released ───┘  │  └── Dead ──► dead ── replay ──► ready, attempt 1
       │      ┌─┴───────┐                    │
       └─────►│ delayed │◄───── RetryIn ─────┘
              └─────────┘

A broker stores and hands out; it decides nothing: backoff, attempts, limits and unknown tasks are decided
above. Everything comes in batches and as values. What brokers differ in stands in `Capabilities`; no code
above this line asks which broker it has.

What is not promised: an order among jobs beyond "roughly first in, first out per priority", and exactly one
run (see "at least once" in the docs).
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from dibs.ledger.ledger import Ledger
from dibs.ledger.life import Note
from dibs.ledger.snapshot import Snapshot
from dibs.message import Delivery, Message
from dibs.outcome import DeadLetter, Outcome
from dibs.selection import EVERY, Selection

if TYPE_CHECKING:
    from dibs.facts import Facts

#: What can be purged.
State = Literal["ready", "delayed"]

#: What a broker can say of a job that it is asked to cancel. "cancelled": it waited, and is cancelled. "requested":
#: the request is stored; a worker carries it out, should the job not be over before. "over": it is done, dead or
#: cancelled already. "unknown": there is no such job.
CancelAnswer = Literal["cancelled", "requested", "over", "unknown"]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker can do, as values that tests, `dibs doctor` and the docs read."""

    #: What this is, with its version: "SQLite 3.40.1", "RabbitMQ 3.10.8".
    server: str
    #: What is handed over survives the process (and, told apart nowhere, the machine).
    is_durable: bool
    #: Other processes can reach it.
    is_shared: bool
    #: How many levels of the ten priorities are told apart.
    priorities: int
    #: Delays are rounded up to a multiple of this, in seconds.
    delay_step: float
    #: Outcome and removal are one transaction; else a crash between them runs a job again.
    has_atomic_settle: bool
    #: A second job with the same id is refused with `JobExists`.
    refuses_duplicates: bool
    #: `Delivery.returns` counts the deaths of workers and nothing else.
    counts_deaths: bool
    #: `QueueInfo.running` and `.delayed` are numbers, and purging the delayed works.
    counts_held: bool
    #: `Broker.queues` finds all of them by itself; else they must be named.
    lists_queues: bool
    #: What became of a job can be asked (`Broker.ledger`); else that raises `LedgerUnavailable`.
    has_ledger: bool
    #: `cancel` and the states that the ledger tells are those of this moment; else they follow within moments.
    is_ledger_exact: bool
    #: Largest body in bytes.
    body_bytes: int


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue is to be made, should it not exist yet."""

    name: str
    #: "quorum": replicated, for dibs' own jobs. "classic": as strangers declare theirs (durable, no arguments).
    #: Brokers other than RabbitMQ have one type and ignore it.
    type: Literal["quorum", "classic"] = "quorum"


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue holds at this moment. None: the broker can't count it."""

    name: str
    ready: int
    running: int | None
    delayed: int | None
    dead: int
    #: Consumers that are connected now.
    consumers: int
    #: Nothing of it is started, until it is resumed.
    is_paused: bool = False


class Broker(Protocol):
    """Keeps the queues. May be shared between threads; a forked child gets connections of its own."""

    @property
    def capabilities(self) -> Capabilities:
        """What this broker can do. Connects, should that be needed to know."""
        ...

    @property
    def location(self) -> str:
        """Where it is, for people: absolute path or URL with the password masked."""
        ...

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make these queues, where they don't exist. An existing one is used as it is."""
        ...

    def send(self, messages: Sequence[Message]) -> None:
        """Hand messages over: when this returns, all of them are stored for good (P1).

        A message with `due` in the future is delayed until then. Queues that do not exist are made.

        Raises:
            BrokerUnavailable, BrokerBusy, MessageTooLarge, AccessRefused, StoreUnusable: nothing was stored;
                where that is true for a part only, it is `HandoverUncertain`.
            JobExists: an id is taken (where `refuses_duplicates`); nothing was stored.
            HandoverUncertain: names the ids that may or may not be stored.
        """
        ...

    def consume(self, queues: Sequence[str], *, limit: int) -> Consumer:
        """Begin to receive from these queues, which are made where they do not exist.

        Args:
            queues: names; earlier ones have no precedence.
            limit: the most deliveries that the owner will hold at once (its slots).
        """
        ...

    def queues(self, names: Collection[str] = ()) -> list[QueueInfo]:
        """Return all queues that this broker knows of, by name.

        Args:
            names: to be looked for too, where the broker can't find them by itself (`Capabilities.lists_queues`).
        """
        ...

    def dead(
        self, queue: str, selection: Selection = EVERY, *, limit: int, after: str | None = None
    ) -> list[DeadLetter]:
        """Return one page of what `each_dead` yields: at most `limit` letters."""
        ...

    def each_dead(
        self, queue: str, selection: Selection = EVERY, *, after: str | None = None
    ) -> Generator[DeadLetter]:
        """Yield the dead letters of `queue` that are meant, oldest first, and disturb none of them.

        Holds a few of them in memory at a time, however many there are. Close it, or run it to its end: where
        looking takes them out of others' sight (RabbitMQ), they are given back then.

        Args:
            queue: whose dead letters.
            selection: which ones.
            after: begin behind the letter with this job id; at the oldest one, should it not be there any more.

        Raises:
            UnknownQueue: there is no such queue.
            BrokerBusy: somebody else was going through them all the time (RabbitMQ).
        """
        ...

    def replay(self, queue: str, selection: Selection = EVERY) -> int:
        """Put the dead letters that are meant back into `queue`: same id, attempt 1. Returns how many.

        A job that dies again meanwhile stays dead. A crash in between leaves each of them ready, dead or, where
        `has_atomic_settle` is not given, both.
        """
        ...

    def drop(self, queue: str, selection: Selection) -> int:
        """Delete the dead letters that are meant, for good. Returns how many."""
        ...

    def purge(self, queue: str, *, state: State) -> int:
        """Delete all messages of `queue` in that state, never what is running. Returns how many.

        Raises:
            UnknownQueue: there is no such queue.
            UsageError: this broker can't purge that state (see `counts_held`).
        """
        ...

    def pause(self, queue: str) -> None:
        """Have no job of this queue started any more, by any worker, until `resume`. What runs goes on.

        Stored for good: it outlives workers and the broker. A queue that does not exist yet may be paused.
        """
        ...

    def resume(self, queue: str) -> None:
        """End a pause. Does nothing where there is none."""
        ...

    def cancel(self, ids: Collection[str]) -> dict[str, CancelAnswer]:
        """Cancel jobs: those that wait at once; those that run are ended by their worker. Stored for good.

        A cancel that comes too late changes nothing: the first outcome that is recorded counts. A job that is
        handed over later under the same id is not meant.
        """
        ...

    @property
    def ledger(self) -> Ledger:
        """The record of jobs. Connects to nothing before it is asked.

        Raises:
            LedgerUnavailable: this broker keeps none.
        """
        ...

    def examine(self, queues: Sequence[Queue] = (), *, is_deep: bool = False) -> Facts:
        """Look at what this broker stands on, and change nothing. What is wrong stands among the facts.

        Held by `tests/doctor/`.

        Args:
            queues: to be looked at too, where the broker can't find them by itself, each as it is to be made.
            is_deep: look for as long as it takes.

        Raises:
            BrokerError: it can't be reached.
        """
        ...

    def close(self) -> None:
        """Let go of all connections. Safe to call twice."""
        ...


class Consumer(Protocol):
    """One owner's line to its queues. Used by one thread of one process."""

    def fileno(self) -> int:
        """A descriptor that is readable when `receive` has something to do. The owner waits on it always."""
        ...

    def timeout(self) -> float | None:
        """Seconds until `receive` should be called though nothing was readable. None: never."""
        ...

    def receive(self, limit: int) -> list[Delivery]:
        """Return at most `limit` deliveries, at once; perhaps none.

        Makes `fileno` unreadable until there is news, so the owner calls again whenever a slot falls free.
        With `limit=0` it only does its housekeeping (a dead worker's jobs go back, say).

        Raises:
            BrokerError: the broker can't be reached in a way that waiting does not mend.
        """
        ...

    def settle(self, outcomes: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Record outcomes, all at once, then let go of the deliveries (P2).

        Returns when they are recorded, or on their way such that a delivery is let go of only behind its record.
        The outcome of one that is lost may be kept, quietly, until it comes back to this consumer; should it go to
        another one, it runs again there and nothing is recorded here.

        Raises:
            ReceiptLost: names the deliveries that are not this consumer's any more and can't come back to it, or were
                settled before; the others are settled.
        """
        ...

    def lost(self) -> Sequence[Delivery]:
        """Deliveries in the owner's hands that the broker has taken back meanwhile: others may have them by now.

        Nearly always empty. One that comes back to this very consumer is held again and no longer among them.
        `fileno` becomes readable when this changes.
        """
        ...

    def cancelled(self) -> Sequence[Delivery]:
        """Deliveries in the owner's hands that somebody has asked to be cancelled. The owner settles them so.

        Nearly always empty. May name what was only just received. `fileno` becomes readable when this changes.
        """
        ...

    def note(self, notes: Sequence[tuple[Delivery, Note]]) -> None:
        """Have the ledger show how far running jobs are. The last word counts; what is lost or late is left out.

        The owner calls this a few times a second at the most, for all of its jobs together.

        Raises:
            BrokerError: it was not stored. Nothing hangs on it.
        """
        ...

    def show(self, snapshot: Snapshot) -> None:
        """Have others see how this worker is. The owner calls it about once a second, while something changes."""
        ...

    def keep_open(self) -> Sequence[int]:
        """Descriptors that every executor holds open while it lives.

        While one is open, nobody takes this consumer's deliveries: a leftover of a run may still be at work.
        Empty where the broker has no such means.
        """
        ...

    def close(self) -> None:
        """Give back what is still held, at no cost to it, and let go. Safe to call twice."""
        ...
