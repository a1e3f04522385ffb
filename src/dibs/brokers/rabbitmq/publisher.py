"""Hands messages over: pipelined, each one confirmed, returned or refused by the server, and mended where it can be.

Declaring and trying again what came back, waiting and trying again what was refused, sending again what a lost
connection left open: all of it goes on on the I/O thread, until the caller gives up waiting.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from pika import exceptions, spec

from dibs.brokers.rabbitmq import faults, fields
from dibs.brokers.rabbitmq.channel import Channel, Connection, Letter
from dibs.brokers.rabbitmq.flight import Flight, State
from dibs.brokers.rabbitmq.inbox import Inbox
from dibs.brokers.rabbitmq.ledger import control, entries
from dibs.brokers.rabbitmq.ledger.answers import Answers
from dibs.brokers.rabbitmq.ledger.entries import Entry
from dibs.brokers.rabbitmq.ledger.journal import Journal, Record
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.brokers.rabbitmq.link import Link
from dibs.brokers.rabbitmq.topology import Topology
from dibs.errors import AccessRefused, BrokerBusy, BrokerError, BrokerUnavailable, DibsError, MessageTooLarge
from dibs.url import Address

#: How many messages, and how many bytes of bodies, may be on their way unconfirmed.
_WINDOW, _WINDOW_BYTES = 2000, 16 * 1024 * 1024
#: How many messages of a flight are published before it is the next one's turn.
_TURN = 100
#: Seconds before what failed is tried again: doubles from the first to the second.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
#: Seconds after which a refusal may be a fault of the channel, so that a new one is tried.
_STALE = 1.0
#: How long the I/O thread may take to say what became of a flight that the caller gives up.
_RECALL_TIMEOUT = 1.0
#: How long closing waits for the ledger to have what was written to it.
_JOURNAL_TIMEOUT = 2.0


class Publisher:
    """The publishing side of a broker: one link, one channel in confirm mode, shared by all threads."""

    def __init__(self, address: Address, topology: Topology, streams: Streams) -> None:
        self.topology = topology
        self._streams = streams
        #: What is said to those who wait for outcomes, and what goes to the ledger.
        self.answers = Answers(topology.names.reply)
        self.journal = Journal(streams, self.answers)
        #: Flights that are not over, by their nonce.
        self._flights: dict[str, Flight] = {}
        self._ready: deque[tuple[Flight, deque[int]]] = deque()
        self._awaited: dict[int, tuple[Flight, int]] = {}
        self._channel: Channel | None = None
        #: The channel is to be replaced when all that was sent on it is answered; and when it was opened.
        self._is_stale = False
        self._opened = 0.0
        #: Why the server takes nothing now; None: it does.
        self._alarm: BrokerBusy | None = None
        #: Delivery tags of this channel: the next one, and the lowest that may be unanswered.
        self._next_tag = self._lowest_tag = 1
        self._window_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        #: The largest body that the server takes, once it has said so.
        self.body_bytes: int | None = None
        self.link = Link(address, "publisher", self)
        self._inbox = Inbox(lambda: self.link.post(self._take_in))
        atexit.register(self.close)  # before the link's own, which would not wait for the ledger

    def hand_over(self, flight: Flight, timeout: float) -> None:
        """Publish a flight, and wait until all of it is stored.

        Raises:
            BrokerError: what the contract of `Broker.send` says.
        """
        landed = threading.Lock()  # an Event takes three locks, and wakes its thread to wait for one of them
        landed.acquire()
        self._inbox.put(flight, landed.release)
        if not landed.acquire(timeout=timeout):
            recalled = threading.Event()
            self.link.post(self._recall, flight, recalled)
            recalled.wait(_RECALL_TIMEOUT)
        if not flight.is_stored:
            raise flight.failure(self.link.location, timeout, self.link.trouble or self._alarm)

    def order(self, wanted: Sequence[Entry], timeout: float, doing: str) -> None:
        """Store entries for all workers to heed, trying again while connections are lost: they do no harm twice.

        Raises:
            BrokerUnavailable, BrokerBusy: not within `timeout` seconds; they may be stored.
            LedgerUnavailable: there is no stream for them.
        """
        deadline = time.monotonic() + timeout
        work = functools.partial(control.order, streams=self._streams, wanted=wanted)
        while True:
            try:
                self.link.run(work, max(0.0, deadline - time.monotonic()), doing)
            except BrokerUnavailable as error:
                if self._alarm is not None:
                    raise self._alarm from error
                if time.monotonic() >= deadline:
                    raise
            else:
                return

    def close(self) -> None:
        """Close the connection, when the ledger has what it is to have. Who still waits for a confirm is told."""
        atexit.unregister(self.close)
        if self.link.is_alive and self.link.trouble is None and self._alarm is None:
            is_idle = threading.Event()
            with contextlib.suppress(DibsError):  # closed before
                self.link.post(self.journal.call_when_idle, is_idle.set)
                is_idle.wait(_JOURNAL_TIMEOUT)
        self.link.close()
        closed = BrokerUnavailable(f"The connection to {self.link.location} was closed meanwhile.")
        self._inbox.refuse(closed)
        for flight in tuple(self._flights.values()):  # the I/O thread has ended
            flight.error = closed
            self._finish(flight)

    # What follows runs on the I/O thread.

    def _take_in(self) -> None:
        """Begin to hand over all that other threads have for us by now, in one write."""
        for flight, on_over in self._inbox.take():
            self._accept(flight, on_over)
        self._pump()

    def submit(self, flight: Flight, on_over: Callable[[], object]) -> None:
        """Begin to hand a flight over. `on_over` is called when all is stored, or more tries make no sense."""
        self._accept(flight, on_over)
        self._pump()

    def _accept(self, flight: Flight, on_over: Callable[[], object]) -> None:
        flight.on_over = on_over
        largest = max(len(letter.body) for letter in flight.letters)
        if self.body_bytes is not None and largest > self.body_bytes:  # it would cost all others their channel
            text = f"{self.link.location} takes at most {self.body_bytes} bytes; a message has {largest}."
            self._fail(flight, MessageTooLarge(text))
            return
        self._flights[flight.nonce] = flight
        self.link.ask()
        self._advance(flight)

    def recall(self, flight: Flight) -> None:
        """Stop trying. What was sent may still be stored."""
        self._flights.pop(flight.nonce, None)
        flight.is_over = True

    def on_open(self, connection: Connection) -> None:
        """Open the confirm channel of a new connection, and send what waits."""
        self.topology.forget()
        self.body_bytes = self._alarm = None
        connection.add_on_connection_blocked_callback(lambda _, frame: self._block(frame.method.reason))
        connection.add_on_connection_unblocked_callback(lambda *_: self._unblock())
        self.answers.on_open(connection)
        self.journal.on_open(connection)
        self._spawn(self._open_channel(connection, 0))

    def on_lost(self, error: BaseException) -> None:
        """Count what is unanswered as in doubt: the next connection sends it again."""
        if self._channel is not None:
            self._on_channel_closed(error)

    def on_refused(self, error: AccessRefused) -> None:
        """Fail all that waits: no patience mends a wrong password."""
        for flight in tuple(self._flights.values()):
            self._fail(flight, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps no hold of it
        task.add_done_callback(self._tasks.discard)

    async def _open_channel(self, connection: Connection, pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            channel = await Channel.open(connection)
            await channel.confirm(self._on_confirm)
        except exceptions.AMQPError:
            if connection.is_open:  # else the next one opens its own
                self._spawn(self._open_channel(connection, _LONGEST_PAUSE))
            return
        channel.raw.add_on_return_callback(self._on_return)
        self._next_tag = self._lowest_tag = 1
        self._channel, self._is_stale, self._opened = channel, False, asyncio.get_running_loop().time()
        channel.watch(self._on_channel_closed)
        for flight in tuple(self._flights.values()):
            if not flight.is_mended:
                self._advance(flight)
        self._pump()

    async def _replace(self, channel: Channel) -> None:
        with contextlib.suppress(exceptions.AMQPError):  # the connection is lost: the next one opens its own
            await channel.close()
            await self._open_channel(channel.connection, 0)

    def _advance(self, flight: Flight) -> None:
        """Have what of a flight is not stored sent by the next `_pump`; declare first what it needs."""
        if self._channel is None or flight.is_over:
            return  # `_open_channel` comes back to it
        if not self.topology.has(flight.queues, flight.levels):
            self._begin_to_mend(flight, 0.0)
            return
        todo = deque(flight.unstored())
        flight.unanswered = len(todo)
        self._ready.append((flight, todo))

    def _pump(self) -> None:
        """Publish as much as the window has room for."""
        channel, ready = self._channel, self._ready
        if channel is None or not channel.is_open:
            return
        if self._is_stale:
            if not self._awaited:
                self._channel = None
                ready.clear()
                self._spawn(self._replace(channel))
            return
        letters: list[Letter] = []
        records: list[bytes] = []
        while ready and len(self._awaited) < _WINDOW and self._window_bytes < _WINDOW_BYTES:
            flight, todo = ready[0]
            if flight.is_over or not todo:
                ready.popleft()
            elif self._alarm is not None:
                break
            else:
                index = todo.popleft()
                letter = flight.address(index)
                flight.states[index] = State.SENT
                self._awaited[self._next_tag] = flight, index
                self._next_tag += 1
                self._window_bytes += len(letter.body)
                letters.append(letter)
                if flight.records and (record := flight.records.pop(index, None)) is not None:
                    flight.is_told = True
                    records.append(record)
                if len(letters) % _TURN == 0:
                    ready.rotate(-1)  # so that a large flight lets small ones pass
        if letters:
            told = map(Record, entries.gather(records))
            channel.publish(letters, self.journal.frames(told) if records else b"")

    def _on_confirm(self, method: Any) -> None:
        state = State.STORED if isinstance(method, spec.Basic.Ack) else State.REFUSED
        tag = method.delivery_tag
        for answered in range(self._lowest_tag, tag + 1) if method.multiple else (tag,):
            self._answer(answered, state)
        if method.multiple:
            self._lowest_tag = tag + 1
        self._pump()

    def _answer(self, tag: int, state: State) -> None:
        entry = self._awaited.pop(tag, None)
        if entry is None:
            return  # answered on its own before a "multiple" that spans it
        flight, index = entry
        self._window_bytes -= len(flight.letters[index].body)
        if flight.states[index] != State.RETURNED:  # the server confirms what it returned, too
            flight.states[index] = state
        flight.unanswered -= 1
        if not flight.unanswered:
            self._land(flight)

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        put = fields.decode(properties.data)["headers"]["dibs-put"]
        nonce, _, index = put.rpartition("-")
        if nonce in self._flights:
            self._flights[nonce].states[int(index)] = State.RETURNED

    def _land(self, flight: Flight) -> None:
        """End a round in which each letter was answered for."""
        if flight.is_over:
            return
        if flight.is_stored:
            self._finish(flight)
            return
        if State.RETURNED in flight.states:
            queues = ", ".join(sorted(flight.queues))
            text = f"{self.link.location} has no queue for a message to one of: {queues}."
            flight.trouble = BrokerError(text)
            if not self.topology.may_declare:
                self._fail(flight, BrokerError(f"{text} This user may not make it (declare=False)."))
                return
            self.topology.forget(flight.queues)
        else:
            flight.trouble = BrokerBusy(
                f"{self.link.location} refused messages for now: a queue is full or has no leader."
            )
            # RabbitMQ 3.10 asks the node that led a quorum queue when the channel first published to it, dead or not.
            if asyncio.get_running_loop().time() - self._opened > _STALE:
                self._is_stale = True
        self._begin_to_mend(flight, self._pause(flight))

    def _begin_to_mend(self, flight: Flight, pause: float) -> None:
        flight.is_mended = True  # so that a new channel leaves it to the task
        self._spawn(self._mend(flight, pause))

    async def _mend(self, flight: Flight, pause: float) -> None:
        """Wait, declare what a flight needs, and send it."""
        try:
            await asyncio.sleep(pause)
            channel = self._channel
            if channel is not None and not flight.is_over:
                await self.topology.ensure(channel.connection, flight.queues, flight.levels)
        except exceptions.AMQPError as error:
            trouble = faults.from_channel(error, self.link.location, f"declaring {', '.join(sorted(flight.queues))}")
            if not isinstance(trouble, BrokerUnavailable):
                self._fail(flight, trouble)
                return
            flight.trouble = trouble
            await asyncio.sleep(self._pause(flight))
        except DibsError as error:
            self._fail(flight, error)
            return
        finally:
            flight.is_mended = False
        self._advance(flight)
        self._pump()

    def _on_channel_closed(self, reason: BaseException) -> None:
        """Take back what is unanswered, and open the next channel if the connection lives."""
        channel, self._channel = self._channel, None
        text, code = faults.text_of(reason), faults.code_of(reason)
        limit = re.search(r"larger than configured max size (\d+)", text)
        if limit is not None:
            self.body_bytes = int(limit[1])
        hit: set[Flight] = set()
        for flight, index in self._awaited.values():
            letter = flight.letters[index]
            is_refused = code in {faults.ACCESS_REFUSED, faults.NOT_FOUND} and f"'{letter.exchange}'" in text
            if is_refused or (limit is not None and len(letter.body) > int(limit[1])):
                hit.add(flight)  # not stored, and in no doubt: the server refused this very publish
            else:
                flight.doubtful.add(index)
            flight.states[index] = State.WAITING
        self._awaited.clear()
        self._ready.clear()
        self._window_bytes = 0
        for flight in hit:
            self._on_hit(flight, code, reason)
        if channel is not None and channel.connection.is_open:
            self.topology.forget()
            self._spawn(self._open_channel(channel.connection, _FIRST_PAUSE))

    def _on_hit(self, flight: Flight, code: int, reason: BaseException) -> None:
        if code == faults.PRECONDITION_FAILED:
            self._fail(flight, MessageTooLarge(f"{self.link.location}: {faults.text_of(reason)}."))
        elif code == faults.ACCESS_REFUSED or not self.topology.may_declare:
            self._fail(flight, faults.from_channel(reason, self.link.location, "publishing"))

    def _fail(self, flight: Flight, error: DibsError) -> None:
        flight.error = error
        self._withdraw(flight)
        self._finish(flight)

    def _withdraw(self, flight: Flight) -> None:
        """Tell the ledger of what it was told is waiting, and is not: its record went out along with it."""
        if flight.is_told and (ids := flight.certainly_not_stored()):
            self.journal.withdraw(ids, min(flight.queues))

    def _finish(self, flight: Flight) -> None:
        self.recall(flight)
        flight.on_over()

    def _pause(self, flight: Flight) -> float:
        pause: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(flight.failures, 10))
        flight.failures += 1
        return pause * random.uniform(0.5, 1.0)

    def _block(self, reason: str) -> None:
        self._alarm = BrokerBusy(
            f"{self.link.location} takes no messages: it is {reason}. Free some of it; all goes on by itself then."
        )
        self.journal.block()

    def _unblock(self) -> None:
        self._alarm = None
        self.journal.unblock()
        self._pump()

    def _recall(self, flight: Flight, recalled: threading.Event) -> None:
        self._withdraw(flight)
        self.recall(flight)
        recalled.set()
