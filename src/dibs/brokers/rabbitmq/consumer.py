"""One owner's line to its queues: `Consumer` for RabbitMQ. Its I/O side is `intake.py`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import assert_never

import msgspec

from dibs.brokers.rabbitmq.flight import burial_of, flight_of
from dibs.brokers.rabbitmq.intake import Intake
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.topology import LONGEST_DELAY, Names
from dibs.brokers.rabbitmq.wire import Burial
from dibs.errors import AccessRefused, BrokerError, BrokerUnavailable, DibsError, ReceiptLost
from dibs.message import Delivery, Message, now_ms
from dibs.outcome import Dead, Done, Outcome, Released, RetryIn

#: How long closing waits for the server to take the deliveries back.
_GIVE_BACK_TIMEOUT = 3.0


class RabbitConsumer:
    """See `Consumer`. Used by one thread of one process."""

    def __init__(
        self, intake: Intake, names: Names, publisher: Callable[[], Publisher], *, handover_timeout: float
    ) -> None:
        """Wait until the queues are there.

        Raises:
            BrokerUnavailable: not within `handover_timeout`.
            BrokerError: it is refused.
        """
        self._intake = intake
        self._names = names
        self._publisher = publisher
        self._timeout = handover_timeout
        self._pid = os.getpid()
        self._worker = f"{socket.gethostname()}:{self._pid}"
        self.is_closed = False
        if not intake.is_established.wait(handover_timeout) or intake.error is not None:
            error = intake.error or intake.link.trouble
            self.close()
            raise error or BrokerUnavailable(f"{intake.link.location} gave no answer within {handover_timeout:g} s.")

    def fileno(self) -> int:
        """A descriptor that is readable when `receive` has something to do."""
        return self._intake.read_end

    def timeout(self) -> float | None:
        """Return None: the I/O thread keeps the time."""
        return None

    def receive(self, limit: int) -> list[Delivery]:
        """Return at most `limit` deliveries, at once. See `Consumer.receive`."""
        self._check_process()
        intake = self._intake
        with intake.lock:
            intake.drain()
            if intake.error is not None:
                if isinstance(intake.error, AccessRefused):
                    intake.link.post(intake.link.ask)
                raise intake.error
            deliveries = [intake.arrived.popleft()[1] for _ in range(min(limit, len(intake.arrived)))]
            intake.taken.update(delivery.receipt[1] for delivery in deliveries)
            room = limit - len(deliveries)
            is_short = intake.capacity < intake.limit
        if room > 0 and is_short:
            intake.link.post(intake.want, room)
        return deliveries

    def settle(self, outcomes: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Record outcomes. See `Consumer.settle`.

        A retry or a dead letter is first published and confirmed, then its delivery is acknowledged; a crash in
        between makes two of it, never none (P2).
        """
        self._check_process()
        intake = self._intake
        acks: list[int] = []
        nacks: list[int] = []
        records: list[tuple[int, Delivery, RetryIn | Dead]] = []
        lost: list[Delivery] = []
        with intake.lock:
            generation = intake.generation
            for delivery, outcome in outcomes:
                held_in, tag = delivery.receipt
                if held_in != generation or tag not in intake.taken:
                    lost.append(delivery)
                    continue
                intake.taken.discard(tag)
                match outcome:
                    case Done():
                        acks.append(tag)
                    case Released():
                        nacks.append(tag)
                    case RetryIn() | Dead():
                        records.append((tag, delivery, outcome))
                    case _:
                        assert_never(outcome)
        for tag, delivery, record in records:
            self._record(generation, tag, delivery.message, record)
        if acks or nacks:
            intake.link.post(intake.let_go, generation, acks, nacks)
        if lost:
            raise ReceiptLost(lost)

    def lost(self) -> Sequence[Delivery]:
        """Return nothing yet."""
        return ()

    def keep_open(self) -> Sequence[int]:
        """Return nothing: the connection alone tells the server who lives."""
        return ()

    def close(self) -> None:
        """Store the outcomes that are on their way, give back what is held, and let go. Safe to call twice."""
        if self.is_closed or os.getpid() != self._pid:
            return
        self.is_closed = True
        intake = self._intake
        with intake.lock:
            intake.lock.wait_for(lambda: not intake.recording, self._timeout)
        if intake.link.trouble is None:
            try:
                intake.link.run(intake.give_back, _GIVE_BACK_TIMEOUT, "giving deliveries back")
            except BrokerError:
                pass  # then the end of the connection gives them back
        intake.link.close()
        intake.close_descriptors()

    def _record(self, generation: int, tag: int, message: Message, outcome: RetryIn | Dead) -> None:
        """Publish what is to be stored before the delivery is let go of."""
        intake, publisher = self._intake, self._publisher()

        match outcome:
            case RetryIn(delay=delay, message=again):
                due = now_ms() + round(min(delay, LONGEST_DELAY) * 1000) if delay > 0 else None
                flight = flight_of([msgspec.structs.replace(again, due=due)], self._names)
            case Dead(reason=reason, error=error, crashes=crashes):
                burial = Burial(reason, error, now_ms(), self._worker)
                if crashes is not None:
                    message = msgspec.structs.replace(message, crashes=crashes)
                flight = burial_of(message, burial, self._names)
        with intake.lock:
            if generation != intake.generation:
                return  # the channel closed just now: the job comes again, to somebody
            intake.recording[tag] = publisher, flight
        intake.record(generation, tag)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise DibsError("This consumer belongs to the parent process. Call consume() again after a fork.")
        if self.is_closed:
            raise DibsError("This consumer is closed.")
