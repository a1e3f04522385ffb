"""One owner's line to its queues in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dibs.brokers.memory.entry import Entry
from dibs.brokers.memory.store import Store
from dibs.errors import DibsError, ReceiptLost
from dibs.ledger.life import Note
from dibs.ledger.snapshot import Snapshot
from dibs.message import Delivery, now_ms
from dibs.outcome import Outcome


class MemoryConsumer:
    """See `Consumer`."""

    def __init__(self, store: Store, queues: Sequence[str]) -> None:
        self.queues = frozenset(queues)
        self.snapshot: Snapshot | None = None
        self._store = store
        self._held: dict[int, Entry] = {}
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
        with self._store.open() as store:
            dues = [entry.message.due or 0 for entry in store.select_all(self.queues, "delayed")]
        return max(0.0, (min(dues) - now_ms()) / 1000) if dues else None

    def receive(self, limit: int) -> list[Delivery]:
        """Return at most `limit` deliveries, at once. See `Consumer.receive`."""
        if os.getpid() != self._pid:
            raise DibsError("This consumer belongs to the parent process. Call consume() again after a fork.")
        with self._store.open() as store:
            try:
                os.read(self._read_end, 65536)
            except BlockingIOError:
                pass  # called because a slot fell free, not because there was news
            ready = store.select_all(self.queues - store.paused, "ready")
            chosen = sorted(ready, key=lambda entry: (-entry.message.priority, entry.seq))[:limit]
            # Receipts are counted over all consumers: no other one's may fit.
            taken = {next(store.numbers): entry for entry in chosen}
            self._held |= taken
            return [entry.begin(receipt) for receipt, entry in taken.items()]

    def settle(self, outcomes: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Record outcomes. See `Consumer.settle`."""
        lost: list[Delivery] = []
        with self._store.open() as store:
            store.count([each for each in outcomes if each[0].receipt in self._held])
            for delivery, outcome in outcomes:
                entry = self._held.pop(delivery.receipt, None)
                if entry is None:
                    lost.append(delivery)
                else:
                    entry.record(outcome, next(store.numbers))
                    store.changed(entry)
        self._store.wake()
        if lost:
            raise ReceiptLost(lost)

    def lost(self) -> Sequence[Delivery]:
        """Return nothing: what is held here nobody takes."""
        return ()

    def cancelled(self) -> Sequence[Delivery]:
        """Return the deliveries held here that are to be cancelled."""
        with self._store.open():
            marked = [entry for entry in self._held.values() if entry.cancel_asked is not None]
            return [entry.delivery for entry in marked if entry.delivery is not None]

    def note(self, notes: Sequence[tuple[Delivery, Note]]) -> None:
        """Have the ledger show what running jobs say of themselves."""
        with self._store.open():
            for delivery, note in notes:
                if entry := self._held.get(delivery.receipt):
                    entry.note(note)

    def show(self, snapshot: Snapshot) -> None:
        """Have others see how this worker is."""
        self.snapshot = snapshot

    def keep_open(self) -> Sequence[int]:
        """Return nothing: no other process can take over."""
        return ()

    def close(self) -> None:
        """Give back what is still held, and let go."""
        if self._is_closed:
            return
        self._is_closed = True
        with self._store.open() as store:
            store.consumers.discard(self)
            for entry in self._held.values():
                entry.let_go()
                store.changed(entry)
            self._held.clear()
        self._store.wake()
        os.close(self._read_end)
        os.close(self._write_end)
