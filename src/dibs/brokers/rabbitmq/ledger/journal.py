"""What one process writes to the ledger: sent along with jobs, or at once, and seen to until it is stored.

By a channel of its own on the publisher's connection, so that nothing that befalls it befalls jobs. It never raises
and never holds anybody up for long: whoever waits for a record is called when it is stored, or when that will take
its time; the record itself is kept, within bounds, and stored later. On the publisher's I/O thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import re
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from pika import exceptions, spec

from dibs.brokers.rabbitmq import faults, fields
from dibs.brokers.rabbitmq.channel import Channel, Connection, Letter
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.answers import Answer, Answers
from dibs.brokers.rabbitmq.ledger.entries import Dropped
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.message import now_ms

_log = logging.getLogger("dibs.rabbitmq")

#: How many bytes of records are kept until they are stored.
MOST_BYTES = 16 * 1024 * 1024
#: So many jobs that were taken back are remembered.
_MOST_WITHDRAWN = 10_000
#: Seconds before what failed is tried again.
_PAUSE = 1.0
#: How often the streams are made before anything was stored in them. A server that has just started takes seconds
#: to bring them up.
_TRIES = 10
#: Seconds before a stream is tried again that cost the connection: doubles from the first to the second.
_REST, _LONGEST_REST = 60.0, 600.0


class Record:
    """One message to the ledger."""

    __slots__ = ("answers", "body", "is_returned", "number", "on_over")

    def __init__(
        self, body: bytes, on_over: Callable[[], object] | None = None, answers: Sequence[Answer] = ()
    ) -> None:
        """Prepare it.

        Args:
            body: entries.
            on_over: is called once, when it is stored or need not be waited for.
            answers: are sent behind it.
        """
        self.body = body
        self.on_over = on_over
        self.answers = answers
        #: Tells it from the others of this process.
        self.number = 0
        self.is_returned = False

    def release(self) -> None:
        """Let whoever waits for it go on."""
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over()


class Journal:
    """The records of one process."""

    def __init__(self, streams: Streams, answers: Answers) -> None:
        self._streams = streams
        self._answers = answers
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_opening = False
        self._is_blocked = False
        #: There is no ledger to be reached by this connection.
        self._is_missing = False
        #: Nor by any other one, for now or for ever: trying costs the connection.
        self._is_hopeless = False
        #: Seconds before it is tried all the same, where that may help.
        self._rest = _REST
        #: How often the streams were made since something was stored.
        self._declares = 0
        self._numbers = itertools.count(1)
        #: Not sent, or to be sent again.
        self._waiting: deque[Record] = deque()
        #: By their delivery tags.
        self._sent: dict[int, Record] = {}
        self._next_tag = self._lowest_tag = 1
        self._bytes = 0
        self._lost = 0
        #: Jobs that were taken back, those handed over last: the same message may come again.
        self.withdrawn: dict[str, None] = {}
        #: Who is told as soon as nothing waits.
        self._on_idle: list[Callable[[], object]] = []

    def on_open(self, connection: Connection) -> None:
        """Write by this connection from now on, should there be something to write."""
        self._connection, self._channel = connection, None
        self._is_missing, self._is_blocked = self._is_hopeless, False
        self._declares = 0
        if self._waiting:
            self._open_soon()

    def write(self, record: Record) -> None:
        """Have a record stored."""
        if frames := self.frames([record]):
            self._write(frames)

    def frames(self, records: Iterable[Record] = ()) -> bytes:
        """Take on records; return what sends all that can be sent now, for whoever writes something anyway."""
        for record in records:
            self._take(record)
        if self._channel is None or not self._channel.is_open:
            self._open_soon()
            return b""
        if self._is_blocked or not self._waiting:
            return b""
        letters = []
        exchange = self._streams.names.ledger
        for record in self._waiting:
            self._sent[self._next_tag] = record
            self._next_tag += 1
            header = fields.encode({"app_id": "dibs", "message_id": str(record.number)})
            letters.append(Letter(exchange, "", header, record.body, ""))
        self._waiting.clear()
        return self._channel.frames(letters)

    def withdraw(self, ids: Sequence[str], queue: str) -> None:
        """Say that these jobs, of which records went out, were not stored after all.

        Args:
            ids: the jobs'.
            queue: of one of them; nothing hangs on it.
        """
        self.withdrawn.update(dict.fromkeys(ids))
        while len(self.withdrawn) > _MOST_WITHDRAWN:
            del self.withdrawn[next(iter(self.withdrawn))]
        self.write(Record(entries.encode([Dropped(list(ids), queue, now_ms())])))

    def block(self) -> None:
        """Keep all until the server takes messages again, and nobody waiting for it."""
        self._is_blocked = True
        for record in (*self._sent.values(), *self._waiting):
            record.release()

    def unblock(self) -> None:
        """Go on."""
        self._is_blocked = False
        self._write(self.frames())

    def call_when_idle(self, on_idle: Callable[[], object]) -> None:
        """Call `on_idle` as soon as nothing waits to be stored."""
        self._on_idle.append(on_idle)
        self._look_if_idle()

    def _write(self, frames: bytes) -> None:
        if frames and self._channel is not None:
            self._channel.connection.write(frames)

    def _take(self, record: Record) -> None:
        if self._is_missing:
            self._pass(record)
            return
        while self._waiting and self._bytes + len(record.body) > MOST_BYTES:
            self._lose(self._waiting.popleft())
        if self._bytes + len(record.body) > MOST_BYTES:
            self._lose(record)
            return
        self._bytes += len(record.body)
        record.number = next(self._numbers)
        self._waiting.append(record)
        if self._is_blocked:
            record.release()

    def _lose(self, record: Record) -> None:
        if record.number:
            self._bytes -= len(record.body)
        if not self._lost:
            _log.warning("The ledger takes nothing for so long that what happens now is missing in it.")
        self._lost += 1
        self._pass(record)

    def _pass(self, record: Record) -> None:
        """Go on without a record's being stored."""
        record.release()
        self._answers.send(record.answers)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps no hold of it
        task.add_done_callback(self._tasks.discard)

    def _open_soon(self, pause: float = 0.0, *, declares: bool = False) -> None:
        connection = self._connection
        if connection is not None and connection.is_open and not (self._is_opening or self._is_missing):
            self._is_opening = True
            self._spawn(self._open(connection, pause, declares=declares))

    async def _open(self, connection: Connection, pause: float, *, declares: bool) -> None:
        """Open the channel; a stream that is not there tells itself by what is written to it."""
        is_down = False
        try:
            await asyncio.sleep(pause)
            if declares and self._streams.may_declare:
                await self._streams.declare(connection)
            channel = await Channel.open(connection)
            await channel.confirm(functools.partial(self._on_confirm, channel))
        except exceptions.ChannelClosedByBroker as error:
            is_down = faults.is_down(error)
            if self._connection is connection and not is_down:
                self._miss(faults.text_of(error))
        except exceptions.AMQPError as error:  # the connection is lost: the next one opens its own
            if declares and faults.code_of(error) >= faults.NOT_IMPLEMENTED:
                self._is_hopeless = True
                self._miss(faults.text_of(error))
                if faults.has_no_streams(error):
                    self._streams.absence = error
                else:
                    asyncio.get_running_loop().call_later(self._rest, self._hope)
                    self._rest = min(2 * self._rest, _LONGEST_REST)
        else:
            if self._connection is connection and channel.is_open:
                self._use(channel)
        finally:
            self._is_opening = False
        if self._waiting and self._channel is None:
            self._open_soon(_PAUSE if is_down else 0.0, declares=is_down)

    def _hope(self) -> None:
        """Write again from now on: the server may have mended what was wrong with its stream."""
        self._is_hopeless = self._is_missing = False

    def _use(self, channel: Channel) -> None:
        channel.raw.add_on_return_callback(self._on_return)
        channel.watch(self._on_channel_closed)
        self._channel, self._next_tag, self._lowest_tag = channel, 1, 1
        self._write(self.frames())

    def _miss(self, reason: str) -> None:
        """Do without a ledger, until the next connection."""
        self._is_missing = True
        self._streams.tell("What becomes of jobs is not recorded here", reason)
        missed = (*self._sent.values(), *self._waiting)
        self._sent.clear()
        self._waiting.clear()
        self._bytes = 0
        for record in missed:
            self._pass(record)
        self._look_if_idle()

    def _on_confirm(self, channel: Channel, method: Any) -> None:
        if channel is not self._channel:
            return  # what it had is sent again by another one
        is_stored = isinstance(method, spec.Basic.Ack)
        tag = method.delivery_tag
        for answered in range(self._lowest_tag, tag + 1) if method.multiple else (tag,):
            record = self._sent.pop(answered, None)
            if record is not None:
                self._answer(record, is_stored=is_stored)
        if method.multiple:
            self._lowest_tag = tag + 1
        self._look_if_idle()

    def _answer(self, record: Record, *, is_stored: bool) -> None:
        if record.is_returned:  # the server confirms what it returned, too
            record.is_returned = False
            self._waiting.append(record)
            self._mend("it leads to no stream")
        elif not is_stored:  # the stream has no leader now
            self._waiting.append(record)
            asyncio.get_running_loop().call_later(_PAUSE, lambda: self._write(self.frames()))
        else:
            self._declares, self._rest = 0, _REST
            self._bytes -= len(record.body)
            if self._lost:
                _log.warning("The ledger takes records again. lost=%d", self._lost)
                self._lost = 0
            self._pass(record)

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        number = fields.decode(properties.data).get("message_id")
        for record in self._sent.values():
            if str(record.number) == number:
                record.is_returned = True

    def _mend(self, why: str) -> None:
        """Make the streams, and send all again by a new channel."""
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            self._spawn(_close(channel))
        self._take_back()
        self._declares += 1
        if self._declares > _TRIES:
            self._miss(why)
        else:
            self._open_soon(0.0 if self._declares == 1 else _PAUSE, declares=True)

    def _take_back(self) -> None:
        self._waiting.extendleft(reversed(self._sent.values()))
        self._sent.clear()

    def _on_channel_closed(self, reason: Exception) -> None:
        self._channel = None
        match faults.code_of(reason):
            case faults.NOT_FOUND:
                self._mend(faults.text_of(reason))
            case faults.ACCESS_REFUSED:
                self._miss(faults.text_of(reason))
            case faults.PRECONDITION_FAILED:
                self._on_too_large(faults.text_of(reason))
            case _:
                self._take_back()
                self._open_soon(_PAUSE)

    def _on_too_large(self, text: str) -> None:
        """Do without what this server does not take: it would close the next channel too."""
        found = re.search(r"larger than configured max size (\d+)", text)
        limit = int(found[1]) if found is not None else 0
        for tag, record in tuple(self._sent.items()):
            if len(record.body) > limit:
                del self._sent[tag]
                self._lose(record)
        self._take_back()
        self._open_soon()

    def _look_if_idle(self) -> None:
        if self._on_idle and not (self._sent or self._waiting):
            on_idle, self._on_idle = self._on_idle, []
            for call in on_idle:
                call()


async def _close(channel: Channel) -> None:
    with contextlib.suppress(exceptions.AMQPError):
        await channel.close()
