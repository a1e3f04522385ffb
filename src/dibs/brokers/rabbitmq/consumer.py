"""One owner's line to its queues: `Consumer` for RabbitMQ. Its I/O side is `intake.py`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, assert_never

import msgspec

from dibs.brokers.rabbitmq.channel import Connection
from dibs.brokers.rabbitmq.hold import Hold, Record
from dibs.brokers.rabbitmq.intake import Intake
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.entries import Noted
from dibs.brokers.rabbitmq.topology import LONGEST_DELAY, Names
from dibs.brokers.rabbitmq.wire import Burial
from dibs.errors import AccessRefused, BrokerError, BrokerUnavailable, DibsError, ReceiptLost
from dibs.ledger.life import Note
from dibs.ledger.snapshot import Snapshot
from dibs.message import Delivery, Message, now_ms
from dibs.outcome import Cancelled, Dead, Done, Outcome, Released, RetryIn

#: How long closing waits for the server to take the deliveries back.
_GIVE_BACK_TIMEOUT = 3.0


class RabbitConsumer:
    """See `Consumer`. Used by one thread of one process."""

    def __init__(self, intake: Intake, *, names: Names, handover_timeout: float) -> None:
        """Wait until the queues are there.

        Args:
            intake: the line.
            names: of the namespace.
            handover_timeout: seconds to wait for the server at the most.

        Raises:
            BrokerUnavailable: not within `handover_timeout`.
            BrokerError: it is refused.
        """
        self._intake = intake
        self._timeout = handover_timeout
        self._has_ledger = intake.orders is not None
        self._reply_prefix = f"{names.reply}."
        self._pid = os.getpid()
        self._worker = f"{socket.gethostname()}:{self._pid}"
        self.is_closed = False
        if not intake.is_established.wait(handover_timeout) or intake.error is not None:
            error = intake.error or intake.link.trouble
            self.close()
            raise error or BrokerUnavailable(f"{intake.link.location} gave no answer within {handover_timeout:g} s.")

    def fileno(self) -> int:
        """A descriptor that is readable when `receive` has something to do."""
        return self._intake.bell.read_end

    def timeout(self) -> float | None:
        """Return None: the I/O thread keeps the time."""
        return None

    def receive(self, limit: int) -> list[Delivery]:
        """Return at most `limit` deliveries, at once. See `Consumer.receive`."""
        self._check_process()
        intake = self._intake
        with intake.bell.lock:
            intake.bell.hush()
            if intake.error is not None:
                if isinstance(intake.error, AccessRefused):
                    intake.link.post(intake.link.ask)
                raise intake.error
            deliveries = [intake.arrived.popleft()[1] for _ in range(min(limit, len(intake.arrived)))]
            intake.holds.taken.update((delivery.receipt, delivery) for delivery in deliveries)
            if intake.orders is not None and intake.orders.cancels:
                means = intake.orders.means
                meant = {delivery.receipt: delivery for delivery in deliveries if means(delivery.message)}
                intake.holds.cancelled |= meant
            room = limit - len(deliveries)
            is_short = intake.capacity < intake.limit
        if room > 0 and is_short:
            intake.link.post(intake.want, room)
        return deliveries

    def settle(self, outcomes: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Record outcomes. See `Consumer.settle`.

        A retry or a dead letter is first published and confirmed, then its delivery is acknowledged; a crash in
        between makes two of it, never none (P2). The outcome of what is lost is kept until it comes again.
        """
        self._check_process()
        holds = self._intake.holds
        held: list[tuple[Hold, Message, Outcome]] = []
        refused: list[Delivery] = []
        with self._intake.bell.lock:
            for delivery, outcome in outcomes:
                hold = delivery.receipt
                is_lost = holds.lost.pop(hold, None) is not None
                holds.cancelled.pop(hold, None)
                if holds.taken.pop(hold, None) is None or (is_lost and hold.key is None):
                    refused.append(delivery)
                else:
                    held.append((hold, delivery.message, outcome))
        if held:
            self._settle(held)
        if refused:
            raise ReceiptLost(refused)

    def _settle(self, held: Sequence[tuple[Hold, Message, Outcome]]) -> None:
        now = now_ms()
        done: list[Hold] = []
        records: list[tuple[Hold, Record]] = []
        released: list[tuple[Hold, Message]] = []
        for hold, message, outcome in held:
            if isinstance(outcome, Released):
                released.append((hold, message))
                continue
            if self._has_ledger:
                hold.entry = entries.ended(message, outcome, self._worker, now)
                if message.properties:
                    hold.reply_to = self._reply_to(message)
            match outcome:
                case Done() | Cancelled():
                    done.append(hold)
                case RetryIn() | Dead():
                    records.append((hold, self._record(message, outcome)))
                case _:
                    assert_never(outcome)
        self._intake.link.post(self._intake.holds.settle, done, records, released)
        if released:  # room for others, which may have to be asked for: their subscriptions may have ended meanwhile
            with self._intake.bell.lock:
                self._intake.bell.ring()

    def _reply_to(self, message: Message) -> str | None:
        """Return the queue where somebody waits for what becomes of a message, if there is one of dibs' own."""
        queue = message.properties.get("reply_to")
        return queue if isinstance(queue, str) and queue.startswith(self._reply_prefix) else None

    def lost(self) -> Sequence[Delivery]:
        """Return what the owner has and the server has taken back. See `Consumer.lost`."""
        with self._intake.bell.lock:
            return tuple(self._intake.holds.lost.values())

    def cancelled(self) -> Sequence[Delivery]:
        """Return what the owner has and somebody has asked to be cancelled. See `Consumer.cancelled`."""
        with self._intake.bell.lock:
            return tuple(self._intake.holds.cancelled.values())

    def note(self, notes: Sequence[tuple[Delivery, Note]]) -> None:
        """Have the ledger show how far running jobs are. See `Consumer.note`."""
        self._check_process()
        if self._has_ledger and notes:
            now = now_ms()
            self._intake.write([_noted(delivery.message, note, now) for delivery, note in notes])

    def show(self, snapshot: Snapshot) -> None:
        """Have others see how this worker is, should they ask."""
        if self._intake.roll is not None:
            self._intake.roll.snapshot = snapshot

    def keep_open(self) -> Sequence[int]:
        """Return nothing: the connection alone tells the server who lives."""
        return ()

    def close(self) -> None:
        """Store the outcomes that are on their way, give back what is held, and let go. Safe to call twice."""
        if self.is_closed or os.getpid() != self._pid:
            return
        self.is_closed = True
        intake = self._intake
        if intake.link.trouble is None:
            self._run(intake.stop, _GIVE_BACK_TIMEOUT, "ending its subscriptions")
            self._run(intake.finish, self._timeout, "storing outcomes")
            self._run(intake.give_back, _GIVE_BACK_TIMEOUT, "giving deliveries back")
        intake.link.close()
        intake.bell.close()

    def _run(self, work: Callable[[Connection], Coroutine[Any, Any, None]], timeout: float, doing: str) -> None:
        try:
            self._intake.link.run(work, timeout, doing)
        except BrokerError:
            pass  # then the end of the connection gives back what is held

    def _record(self, message: Message, outcome: RetryIn | Dead) -> Record:
        match outcome:
            case RetryIn(delay=delay, message=again):
                due = now_ms() + round(min(delay, LONGEST_DELAY) * 1000) if delay > 0 else None
                return Record(msgspec.structs.replace(again, due=due))
            case Dead(reason=reason, error=error, crashes=crashes):
                if crashes is not None:
                    message = msgspec.structs.replace(message, crashes=crashes)
                return Record(message, Burial(reason, error, now_ms(), self._worker))

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise DibsError("This consumer belongs to the parent process. Call consume() again after a fork.")
        if self.is_closed:
            raise DibsError("This consumer is closed.")


def _noted(message: Message, note: Note, now: int) -> Noted:
    progress = None if note.progress is None else msgspec.json.encode(note.progress)
    return Noted(message.id, now, progress, None if message.is_private else note.log)
