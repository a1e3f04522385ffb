"""What a supervisor holds: its line to its queues, one connection and one membership among the workers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from dibs.brokers.sqlite import cancels, claims
from dibs.brokers.sqlite.liveness import CLAIM_BITS, Membership, receipts_of, snapshot_path
from dibs.brokers.sqlite.store import Store
from dibs.brokers.sqlite.waiting import Waiters
from dibs.brokers.sqlite.wake import Board, mask_of
from dibs.errors import BrokerError, DibsError, ReceiptLost
from dibs.ledger import tables
from dibs.ledger.life import Note
from dibs.ledger.snapshot import Snapshot
from dibs.message import Delivery, now_ms
from dibs.outcome import Done, Outcome, Released, RetryIn

#: Seconds between looks for jobs whose sender woke nobody: it died first, or is no dibs.
_LOOK_EVERY = 1.0
#: Seconds that a claim or a settle waits for other writers. Its owner tries again and loses nothing; it must not keep
#: him from his signals, his executors and his clock for long. More than one waits for a line that is stuck.
_PATIENCE = 2.0
#: How many due jobs a claim makes ready, which takes 1 ms; the next claim goes on with it. A million that are due
#: together, made ready at once, would hold up every writer for more than a second.
_PROMOTED_AT_ONCE = 1000
#: How many jobs are forgotten at once, which takes a few ms, and seconds between.
_PRUNED_AT_ONCE, _PRUNE_EVERY = 500, 1.0


class SqliteConsumer:
    """One owner's line to its queues. Used by one thread of one process. See `dibs.broker.Consumer`."""

    def __init__(self, store: Store, board: Board, waiters: Waiters, queues: Sequence[str], *, prefix: str) -> None:
        """Join the workers.

        Args:
            store: where the jobs are. The connection made here commits without an fsync: a claim or a settle that
                a power cut undoes means that a job runs again, never that it is lost.
            board: where it says that it waits.
            waiters: who waits for jobs to end.
            queues: names without the namespace.
            prefix: the namespace with its dot, or "".
        """
        self._pid = os.getpid()
        self._store = store
        self._board = board
        self._waiters = waiters
        self._prefix = prefix
        # Turns by one queue per receive, so that none has precedence.
        self._queues = [prefix + name for name in dict.fromkeys(queues)]
        self._queues_json = json.dumps(self._queues)
        self._mask = mask_of(self._queues)
        self._claims = 0
        self._has_room = True
        #: More may be ready, of which nobody tells: the owner is to look again before he waits.
        self._is_unsure = False
        self._due: int | None = None
        #: By receipt, what the owner has in his hands, and what of it he is to cancel.
        self._held: dict[claims.Receipt, Delivery] = {}
        self._asked: dict[claims.Receipt, Delivery] = {}
        self._next_pruning = 0.0
        #: Jobs that have ended since the last pruning, where that left some over.
        self._ended = 0
        self._is_behind = False
        #: Not closed yet.
        self.is_open = True
        with store.read():
            self._connection = store.connect(synchronous="NORMAL")
        try:
            self._membership = Membership(store, self._connection, board, waiters, self._queues)
        except BrokerError:
            store.disconnect(self._connection)
            raise
        store.limit_waiting(self._connection, _PATIENCE)

    def fileno(self) -> int:
        """Readable when there may be something to do."""
        return self._membership.fileno()

    def timeout(self) -> float:
        """Seconds until `receive` should be called though nothing was readable."""
        if self._is_unsure:
            return 0.0
        wait = self._membership.timeout()
        if self._has_room:
            wait = min(wait, _LOOK_EVERY)
            if self._due is not None:
                wait = min(wait, max(0.0, self._due / 1000 - time.time()))
        return wait

    def receive(self, limit: int) -> list[Delivery]:
        """Return at most `limit` deliveries, at once. See `Consumer.receive`."""
        self._check_owner()
        if self._membership.tend():
            self._look_for_cancels()
        self._prune()
        slot = self._membership.slot
        if self._is_unsure and limit > 0:
            self._board.wait(slot, self._membership.id, self._mask)
        is_told = self._board.is_waiting(slot)  # of all that the look does not find
        got = self._claim(limit) if limit > 0 else []
        if not got and limit > 0 and not is_told:
            self._board.wait(slot, self._membership.id, self._mask)
            # Once more: what was stored between the look and the word on the board woke nobody.
            is_told, got = True, self._claim(limit)
        self._has_room = len(got) < limit
        # What was got is begun before anything else is looked for.
        self._is_unsure = self._has_room and not is_told
        if not self._has_room:
            self._board.clear(slot)
        return got

    def settle(self, outcomes: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Record outcomes in one transaction. See `Consumer.settle`."""
        self._check_owner()
        mine = [each for each in outcomes if self._made(each[0])]
        lost = []
        if len(mine) < len(outcomes):
            lost = [delivery for delivery, _ in outcomes if not self._made(delivery)]
        if mine:
            name = self._membership.name
            with self._store.write(self._connection, size=_size(mine)):
                lost += claims.settle(self._connection, mine, prefix=self._prefix, worker=name)
            self._waiters.wake(each.message.id for each, _ in mine)
            self._let_go(mine)
        again = [
            self._prefix + each.message.queue for each, outcome in mine if isinstance(outcome, RetryIn | Released)
        ]
        if again:  # this worker may have no room for them
            self._board.wake(again, len(again))
        if lost:
            raise ReceiptLost(lost)

    def lost(self) -> Sequence[Delivery]:
        """Return nothing: while this worker lives, nobody takes what it holds."""
        return ()

    def cancelled(self) -> Sequence[Delivery]:
        """Deliveries in the owner's hands that somebody has asked to be cancelled."""
        return list(self._asked.values())

    def note(self, notes: Sequence[tuple[Delivery, Note]]) -> None:
        """Have the ledger show how far running jobs are. See `Consumer.note`."""
        self._check_owner()
        mine = [(delivery, note) for delivery, note in notes if self._made(delivery)]
        if mine:
            with self._store.write(self._connection, size=len(mine) * 512):
                claims.note(self._connection, mine)

    def show(self, snapshot: Snapshot) -> None:
        """Have others see how this worker is: in a file beside the database."""
        self._check_owner()
        path = snapshot_path(self._store.directory, self._membership.id)
        unfinished = path.with_suffix(".new")
        with suppress(OSError):  # it is for people to see, and the next one comes in a second
            unfinished.write_bytes(msgspec.json.encode(snapshot))
            unfinished.replace(path)

    def keep_open(self) -> Sequence[int]:
        """Descriptors that every executor holds open while it lives: the lock, and the FIFO that others watch."""
        return self._membership.keep_open()

    def close(self) -> None:
        """Give back what is held, and go. Safe to call twice."""
        if not self.is_open:
            return
        self._check_owner()
        self.is_open = False
        try:
            self._membership.leave()
        finally:
            self._store.disconnect(self._connection)

    def _let_go(self, settled: claims.Settled) -> None:
        for delivery, _ in settled:
            self._held.pop(delivery.receipt, None)
        for receipt in list(self._asked):
            if receipt not in self._held:
                del self._asked[receipt]
        self._ended += len(settled)

    def _look_for_cancels(self) -> None:
        with self._store.read():
            found = cancels.held(self._connection, *receipts_of(self._membership.id))
        self._asked = {receipt: self._held[receipt] for receipt in found if receipt in self._held}

    def _prune(self) -> None:
        """Forget jobs that are over and past their time: a few a second, and two for each one that ended here.

        So it costs little and keeps up. What can't be forgotten now is forgotten later.
        """
        now = time.monotonic()
        if now < self._next_pruning and not (self._is_behind and self._ended * 2 >= _PRUNED_AT_ONCE):
            return
        self._next_pruning = now + _PRUNE_EVERY
        self._ended = 0
        with self._store.read():
            self._is_behind = tables.has_forgettable(self._connection, now_ms())
        if self._is_behind:
            with self._store.write(self._connection, size=_PRUNED_AT_ONCE * 256):
                self._is_behind = tables.prune(self._connection, now_ms(), _PRUNED_AT_ONCE) == _PRUNED_AT_ONCE

    def _claim(self, limit: int) -> list[Delivery]:
        with self._store.read():
            glances = claims.peek(self._connection, self._queues_json)
        now = now_ms()
        due = [glance.queue for glance in glances if glance.due is not None and glance.due <= now]
        full = [glance.queue for glance in glances if glance.has_ready or glance.queue in due]
        self._due = min(
            (glance.due for glance in glances if glance.due is not None and glance.due > now), default=None
        )
        if not full:
            return []
        with self._store.write(self._connection, size=limit * 256):
            for queue in due:
                claims.promote(self._connection, queue, now, limit=max(limit, _PROMOTED_AT_ONCE))
            got = self._share(full, limit)
        self._held |= {each.receipt: each for each in got}
        return got

    def _share(self, queues: list[str], limit: int) -> list[Delivery]:
        """Take from each of these queues as much as from the others, as far as they have it."""
        self._claims += 1
        receipt = self._membership.id << CLAIM_BITS | self._claims
        start = self._claims % len(queues)
        queues = queues[start:] + queues[:start]
        got: list[Delivery] = []
        while queues and len(got) < limit:
            share = -(-(limit - len(got)) // len(queues))
            for queue in list(queues):
                room = min(share, limit - len(got))
                name = queue.removeprefix(self._prefix)
                taken = claims.claim(self._connection, queue, name=name, receipt=receipt, limit=room)
                got += taken
                if len(taken) < share:
                    queues.remove(queue)
        return got

    def _made(self, delivery: Delivery) -> bool:
        """Tell whether this consumer made the receipt; a guess at another one's would fit the row."""
        return bool(delivery.receipt[1] >> CLAIM_BITS == self._membership.id)

    def _check_owner(self) -> None:
        if os.getpid() != self._pid:
            raise DibsError(
                f"This consumer belongs to process {self._pid}; a forked child can't use it. Let the child call "
                "consume() itself."
            )
        if not self.is_open:
            raise DibsError("This consumer is closed.")


def _size(outcomes: Sequence[tuple[Delivery, Outcome]]) -> int:
    results = [len(outcome.result) for _, outcome in outcomes if isinstance(outcome, Done) and outcome.result]
    return sum([512 + len(each.message.body) for each, _ in outcomes]) + sum(results)
