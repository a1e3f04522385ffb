"""A true broker in this process's memory, for tests and for trying things out.

Keeps every promise of `broker.py` except durability: it ends with the process that made it.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Collection, Generator, Sequence

import msgspec

from dibs.broker import Capabilities, Queue, QueueInfo, State
from dibs.errors import DibsError, JobExists, MessageTooLarge, ReceiptLost, UnknownQueue
from dibs.message import Delivery, Message, now_ms
from dibs.outcome import Dead, DeadLetter, Done, Outcome, Released, RetryIn
from dibs.selection import EVERY, Selection

_CAPABILITIES = Capabilities(
    server="memory",
    is_durable=False,
    is_shared=False,
    priorities=10,
    delay_step=0.001,
    has_atomic_settle=True,
    refuses_duplicates=True,
    counts_deaths=True,
    counts_held=True,
    lists_queues=True,
    body_bytes=512 * 1024 * 1024,
)


class _Entry:
    """A message's place: it stays one object through all states, so that a receipt is an identity."""

    __slots__ = ("dead", "hold", "message", "returns", "seq", "state")

    def __init__(self, message: Message, seq: int) -> None:
        self.message = message
        self.seq = seq
        self.state = "delayed" if message.due is not None and message.due > now_ms() else "ready"
        self.hold: tuple[MemoryConsumer, int] | None = None
        self.dead: DeadLetter | None = None
        self.returns = 0


class MemoryBroker:
    """The queues of one process. Thread-safe by one lock; a forked child has its own copy."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._queues: set[str] = set()
        self._seq = itertools.count()
        self._holds = itertools.count(1)
        self._consumers: set[MemoryConsumer] = set()

    @property
    def capabilities(self) -> Capabilities:
        """What this broker can do."""
        return _CAPABILITIES

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return "memory://"

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make these queues, where they don't exist."""
        with self._lock:
            self._queues.update(queue.name for queue in queues)

    def send(self, messages: Sequence[Message]) -> None:
        """Hand messages over, all or none. See `Broker.send`."""
        for message in messages:
            if len(message.body) > _CAPABILITIES.body_bytes:
                raise MessageTooLarge(
                    f"Message {message.id} has {len(message.body)} bytes; at most {_CAPABILITIES.body_bytes} fit."
                )
        with self._lock:
            taken = [message.id for message in messages if message.id in self._entries]
            if taken or len({message.id for message in messages}) < len(messages):
                raise JobExists(f"Job ids already in use: {', '.join(taken) or 'twice in one call'}.", ids=taken)
            for message in messages:
                self._queues.add(message.queue)
                self._entries[message.id] = _Entry(message, next(self._seq))
        self._wake()

    def consume(self, queues: Sequence[str], *, limit: int) -> MemoryConsumer:
        """Begin to receive from these queues. See `Broker.consume`."""
        del limit  # nothing is handed out before it is asked for
        consumer = MemoryConsumer(self, queues)
        with self._lock:
            self._queues.update(queues)
            self._consumers.add(consumer)
        return consumer

    def queues(self, names: Collection[str] = ()) -> list[QueueInfo]:
        """Return all queues, by name."""
        del names  # all are known
        with self._lock:
            self._promote()
            return [
                QueueInfo(
                    name=name,
                    ready=len(self._select(name, "ready")),
                    running=len(self._select(name, "running")),
                    delayed=len(self._select(name, "delayed")),
                    dead=len(self._select(name, "dead")),
                    consumers=sum(name in consumer.queues for consumer in self._consumers),
                )
                for name in sorted(self._queues)
            ]

    def dead(
        self, queue: str, selection: Selection = EVERY, *, limit: int, after: str | None = None
    ) -> list[DeadLetter]:
        """Return one page of dead letters. See `Broker.dead`."""
        return list(itertools.islice(self.each_dead(queue, selection, after=after), limit))

    def each_dead(
        self, queue: str, selection: Selection = EVERY, *, after: str | None = None
    ) -> Generator[DeadLetter]:
        """Yield dead letters of `queue`, oldest first. See `Broker.each_dead`."""
        with self._lock:
            letters = [entry.dead for entry in self._select(queue, "dead") if entry.dead is not None]
        ids = [letter.message.id for letter in letters]
        first = ids.index(after) + 1 if after in ids else 0
        yield from filter(selection.fits, letters[first:])

    def replay(self, queue: str, selection: Selection = EVERY) -> int:
        """Put dead letters back into `queue`. See `Broker.replay`."""
        with self._lock:
            chosen = self._select_dead(queue, selection)
            for entry in chosen:
                entry.message = msgspec.structs.replace(
                    entry.message,
                    attempt=1,
                    crashes=0,
                    is_suspect=False,
                    error=None,
                    unknown_since=None,
                    due=None,
                    expires=None,
                )
                entry.state, entry.dead, entry.seq, entry.returns = "ready", None, next(self._seq), 0
        self._wake()
        return len(chosen)

    def drop(self, queue: str, selection: Selection) -> int:
        """Delete dead letters for good."""
        with self._lock:
            return self._delete(self._select_dead(queue, selection))

    def purge(self, queue: str, *, state: State) -> int:
        """Delete all messages of `queue` in that state."""
        with self._lock:
            self._promote()
            return self._delete(self._select(queue, state))

    def close(self) -> None:
        """Do nothing: the queues live as long as this object."""

    def _delete(self, chosen: Sequence[_Entry]) -> int:
        for entry in chosen:
            del self._entries[entry.message.id]
        return len(chosen)

    def _select_dead(self, queue: str, selection: Selection) -> list[_Entry]:
        dead = self._select(queue, "dead")
        return [entry for entry in dead if entry.dead is not None and selection.fits(entry.dead)]

    def _select(self, queue: str, state: str) -> list[_Entry]:
        if queue not in self._queues:
            raise UnknownQueue(
                f"There is no queue {queue!r}; there are: {', '.join(sorted(self._queues)) or 'none'}."
            )
        found = [entry for entry in self._entries.values() if entry.message.queue == queue and entry.state == state]
        return sorted(found, key=lambda entry: entry.seq)

    def _promote(self) -> None:
        now = now_ms()
        for entry in self._entries.values():
            if entry.state == "delayed" and (entry.message.due or 0) <= now:
                entry.state = "ready"

    def _wake(self) -> None:
        for consumer in tuple(self._consumers):
            consumer.wake()


class MemoryConsumer:
    """One owner's line to its queues. See `Consumer`."""

    def __init__(self, broker: MemoryBroker, queues: Sequence[str]) -> None:
        self.queues = frozenset(queues)
        self._broker = broker
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._pid = os.getpid()
        self._is_closed = False

    def wake(self) -> None:
        """Make `fileno` readable."""
        try:
            os.write(self._write_end, b"j")
        except (BlockingIOError, OSError):  # full: it is readable; closed: nobody waits
            return

    def fileno(self) -> int:
        """A descriptor that is readable when `receive` has something to do."""
        return self._read_end

    def timeout(self) -> float | None:
        """Seconds until the next delayed message of these queues is due."""
        with self._broker._lock:  # noqa: SLF001 -- broker and consumer are one store
            dues = [entry.message.due or 0 for entry in self._mine("delayed")]
        return max(0.0, (min(dues) - now_ms()) / 1000) if dues else None

    def receive(self, limit: int) -> list[Delivery]:
        """Return at most `limit` deliveries, at once. See `Consumer.receive`."""
        if os.getpid() != self._pid:
            raise DibsError("This consumer belongs to the parent process. Call consume() again after a fork.")
        with self._broker._lock:  # noqa: SLF001
            try:
                os.read(self._read_end, 65536)
            except BlockingIOError:
                pass  # called because a slot fell free, not because there was news
            self._broker._promote()  # noqa: SLF001
            chosen = sorted(self._mine("ready"), key=lambda entry: (-entry.message.priority, entry.seq))[:limit]
            return [self._hold(entry) for entry in chosen]

    def settle(self, outcomes: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Record outcomes. See `Consumer.settle`."""
        lost: list[Delivery] = []
        with self._broker._lock:  # noqa: SLF001
            for delivery, outcome in outcomes:
                entry = self._broker._entries.get(delivery.message.id)  # noqa: SLF001
                if entry is None or entry.hold is None or entry.hold != (self, delivery.receipt):
                    lost.append(delivery)
                else:
                    self._record(entry, outcome)
        self._broker._wake()  # noqa: SLF001
        if lost:
            raise ReceiptLost(lost)

    def lost(self) -> Sequence[Delivery]:
        """Return nothing: what is held here nobody takes."""
        return ()

    def keep_open(self) -> Sequence[int]:
        """Return nothing: no other process can take over."""
        return ()

    def close(self) -> None:
        """Give back what is still held, and let go."""
        if self._is_closed:
            return
        self._is_closed = True
        with self._broker._lock:  # noqa: SLF001
            self._broker._consumers.discard(self)  # noqa: SLF001
            for entry in self._broker._entries.values():  # noqa: SLF001
                if entry.hold is not None and entry.hold[0] is self:
                    entry.hold, entry.state = None, "ready"
        self._broker._wake()  # noqa: SLF001
        os.close(self._read_end)
        os.close(self._write_end)

    def _mine(self, state: str) -> list[_Entry]:
        entries = self._broker._entries.values()  # noqa: SLF001
        return [entry for entry in entries if entry.state == state and entry.message.queue in self.queues]

    def _hold(self, entry: _Entry) -> Delivery:
        receipt = next(self._broker._holds)  # noqa: SLF001 -- no other consumer's receipt may fit
        entry.state, entry.hold = "running", (self, receipt)
        return Delivery(message=entry.message, receipt=receipt, returns=entry.returns)

    def _record(self, entry: _Entry, outcome: Outcome) -> None:
        entry.hold = None
        match outcome:
            case Done():
                del self._broker._entries[entry.message.id]  # noqa: SLF001
            case Released():
                entry.state = "ready"
            case RetryIn(delay=delay, message=message):
                due = now_ms() + int(delay * 1000)
                entry.message = msgspec.structs.replace(message, due=due if delay > 0 else None)
                entry.state, entry.seq = "delayed" if delay > 0 else "ready", next(self._broker._seq)  # noqa: SLF001
                entry.returns = 0
            case Dead(reason=reason, error=error, crashes=crashes):
                entry.state, entry.seq = "dead", next(self._broker._seq)  # noqa: SLF001
                if crashes is not None:
                    entry.message = msgspec.structs.replace(entry.message, crashes=crashes)
                entry.dead = DeadLetter(
                    message=entry.message, reason=reason, error=error, died=now_ms(), worker=f"memory:{self._pid}"
                )
