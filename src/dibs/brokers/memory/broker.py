"""A true broker in this process's memory, for tests and for trying things out.

Keeps every promise of `dibs.broker` except durability: it ends with the process that made it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Generator, Sequence

from dibs.broker import CancelAnswer, Capabilities, Queue, QueueInfo, State
from dibs.brokers.memory.consumer import MemoryConsumer
from dibs.brokers.memory.entry import Entry
from dibs.brokers.memory.ledger import MemoryLedger
from dibs.brokers.memory.store import Store
from dibs.errors import JobExists, MessageTooLarge
from dibs.facts import Facts
from dibs.message import Message, now_ms
from dibs.outcome import DeadLetter
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
    has_ledger=True,
    is_ledger_exact=True,
    body_bytes=512 * 1024 * 1024,
)


class MemoryBroker:
    """The queues of one process. Thread-safe by one lock; a forked child has its own copy."""

    def __init__(self) -> None:
        self._store = Store()
        self._ledger = MemoryLedger(self._store)

    @property
    def capabilities(self) -> Capabilities:
        """What this broker can do."""
        return _CAPABILITIES

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return "memory://"

    @property
    def ledger(self) -> MemoryLedger:
        """The record of jobs."""
        return self._ledger

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make these queues, where they don't exist."""
        with self._store.open() as store:
            store.queues.update(queue.name for queue in queues)

    def send(self, messages: Sequence[Message]) -> None:
        """Hand messages over, all or none. See `Broker.send`."""
        for message in messages:
            if len(message.body) > _CAPABILITIES.body_bytes:
                raise MessageTooLarge(
                    f"Message {message.id} has {len(message.body)} bytes; at most {_CAPABILITIES.body_bytes} fit."
                )
        with self._store.open() as store:
            taken = [message.id for message in messages if store.find(message.id)]
            if taken or len({message.id for message in messages}) < len(messages):
                raise JobExists(f"Job ids already in use: {', '.join(taken) or 'twice in one call'}.", ids=taken)
            for message in messages:
                store.add(Entry(message, next(store.numbers)))
        self._store.wake()

    def consume(self, queues: Sequence[str], *, limit: int) -> MemoryConsumer:
        """Begin to receive from these queues. See `Broker.consume`."""
        del limit  # nothing is handed out before it is asked for
        consumer = MemoryConsumer(self._store, queues)
        with self._store.open() as store:
            store.queues.update(queues)
            store.consumers.add(consumer)
        return consumer

    def queues(self, names: Collection[str] = ()) -> list[QueueInfo]:
        """Return all queues, by name."""
        del names  # all are known
        with self._store.open() as store:
            return [
                QueueInfo(
                    name=name,
                    ready=len(store.select(name, "ready")),
                    running=len(store.select(name, "running")),
                    delayed=len(store.select(name, "delayed")),
                    dead=len(store.select(name, "dead")),
                    consumers=sum(name in consumer.queues for consumer in store.consumers),
                    is_paused=name in store.paused,
                )
                for name in sorted(store.queues)
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
        with self._store.open() as store:
            letters = [entry.dead for entry in store.select(queue, "dead") if entry.dead is not None]
        ids = [letter.message.id for letter in letters]
        first = ids.index(after) + 1 if after in ids else 0
        yield from filter(selection.fits, letters[first:])

    def replay(self, queue: str, selection: Selection = EVERY) -> int:
        """Put dead letters back into `queue`. See `Broker.replay`."""
        with self._store.open() as store:
            chosen = _select_dead(store, queue, selection)
            for entry in chosen:
                entry.replay(next(store.numbers))
        self._store.wake()
        return len(chosen)

    def drop(self, queue: str, selection: Selection) -> int:
        """Delete dead letters for good."""
        with self._store.open() as store:
            return store.delete(_select_dead(store, queue, selection))

    def purge(self, queue: str, *, state: State) -> int:
        """Delete all messages of `queue` in that state."""
        with self._store.open() as store:
            return store.delete(store.select(queue, state))

    def pause(self, queue: str) -> None:
        """Have no job of this queue started any more. See `Broker.pause`."""
        with self._store.open() as store:
            store.queues.add(queue)
            store.paused.add(queue)

    def resume(self, queue: str) -> None:
        """End a pause."""
        with self._store.open() as store:
            store.paused.discard(queue)
        self._store.wake()

    def cancel(self, ids: Collection[str]) -> dict[str, CancelAnswer]:
        """Cancel jobs. See `Broker.cancel`."""
        with self._store.open() as store:
            answers: dict[str, CancelAnswer] = {one: _cancel(store, one) for one in ids}
        self._store.wake()
        return answers

    def examine(self, queues: Sequence[Queue] = (), *, is_deep: bool = False) -> Facts:
        """Say that all is as it should be: it stands on nothing."""
        del queues, is_deep
        return Facts(location=self.location, server=_CAPABILITIES.server)

    def close(self) -> None:
        """Do nothing: the queues live as long as this object."""


def _select_dead(store: Store, queue: str, selection: Selection) -> list[Entry]:
    dead = store.select(queue, "dead")
    return [entry for entry in dead if entry.dead is not None and selection.fits(entry.dead)]


def _cancel(store: Store, job_id: str) -> CancelAnswer:
    entry = store.find(job_id)
    if entry is None:
        return "unknown"
    if entry.is_over:
        return "over"
    if entry.status == "running":
        entry.cancel_asked = now_ms()
        return "requested"
    entry.cancel()
    store.changed(entry)
    return "cancelled"
