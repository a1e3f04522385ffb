"""The reply queue of a process: where it is told how the jobs ended that it waits for, and how the workers are.

One queue for all that a process waits for, made when it first waits. Jobs that are handed over from then on name it.
What ended before, or while the connection was gone, is looked for in the ledger's stream. On a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

import msgspec
import pika
from pika import exceptions

from dibs.brokers.rabbitmq import faults, fields
from dibs.brokers.rabbitmq.channel import Channel, Connection, Encoded
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.entries import Ended
from dibs.brokers.rabbitmq.ledger.lookout import Lookout
from dibs.brokers.rabbitmq.ledger.streams import Streams, refusal
from dibs.brokers.rabbitmq.link import Link
from dibs.errors import AccessRefused, DibsError
from dibs.ledger.life import Ending
from dibs.ledger.snapshot import Snapshot
from dibs.message import now_ms
from dibs.url import Address

#: How many endings are remembered that nobody has asked for yet, and of how many bytes in all.
_REMEMBERED, _REMEMBERED_BYTES = 10_000, 16 * 1024 * 1024
#: Seconds after the last answer at which a roll call is over, and those that it takes at the most.
_QUIET, _LONGEST_CALL = 0.1, 1.0
_CALL_TIMEOUT = 5.0
#: For how many ms a connection may have been lost before that was noticed.
_SILENCE = 60_000

_SNAPSHOT = msgspec.json.Decoder(Snapshot)


class Replies:
    """The reply queue, and who waits by it. May be shared between threads."""

    def __init__(self, address: Address, streams: Streams, on_queue: Callable[[str], None]) -> None:
        """Begin to make it, in the background.

        Args:
            address: of the server.
            streams: of the namespace.
            on_queue: is called with the queue's name once it is there.
        """
        self._names = streams.names
        self._queue = f"{self._names.reply}.{os.urandom(9).hex()}"
        self._on_queue = on_queue
        #: What was handed over after this time (ms) was told of here, or will be. None: the queue was never there.
        self._since: int | None = None
        self._lost_at = now_ms()
        self._why_not: BaseException = exceptions.ChannelWrongStateError("The channel is closed.")
        self._channel: Channel | None = None
        self._setting_up: asyncio.Task[None] | None = None
        self._is_set_up = asyncio.Event()
        self._waiting: dict[str, list[Future[Ending | None]]] = {}
        #: What was told and nobody has asked for, oldest first.
        self._remembered: OrderedDict[str, Ended] = OrderedDict()
        self._remembered_bytes = 0
        self._lookout = Lookout(streams, self._on_ended, self._on_unreadable)
        #: The answers to roll calls that go on, by what these are marked with.
        self._calls: dict[str, tuple[list[Snapshot], asyncio.Event]] = {}
        self._link = Link(address, "replies", self)

    def watch(self, id: str, future: Future[Ending | None]) -> None:  # noqa: A002 -- the API's word
        """Have a future told how a job ends that this process has handed over. Its id is of dibs' own making."""
        self._link.post(self._watch, id, future, made_at(id))

    def watch_from(self, offset: int, id: str, future: Future[Ending | None]) -> None:  # noqa: A002
        """Have a future told how a job ends, which it had not before this entry of the ledger."""
        self._link.post(self._watch, id, future, None, offset)

    def call_roll(self) -> Callable[[], list[Snapshot]]:
        """Ask all workers how they are. Call what is returned to wait for what those said that answered soon.

        That raises BrokerError where nobody can be asked.
        """
        call = self._link.begin(self._call_roll)
        return lambda: self._link.wait(call, _CALL_TIMEOUT, "asking the workers how they are")

    def close(self) -> None:
        """Let go of the connection. Who still waits is told that."""
        self._link.close()
        for futures in self._waiting.values():  # the I/O thread has ended
            for future in futures:
                if future.set_running_or_notify_cancel():
                    future.set_exception(DibsError("The broker was closed while somebody waited for a job."))
        self._waiting.clear()

    # What follows runs on the I/O thread.

    def on_open(self, connection: Connection) -> None:
        """Make the queue anew: it went with the connection before. Look for what was missed."""
        self._is_set_up.clear()
        self._setting_up = asyncio.get_running_loop().create_task(self._set_up(connection))
        for job_id in self._waiting:
            self._lookout.look_for(job_id, since=self._lost_at)
        self._lookout.on_open(connection)

    def on_lost(self, error: BaseException) -> None:  # noqa: ARG002 -- the protocol's
        """Count as missed what is told from now on."""
        self._lost_at, self._channel = now_ms() - _SILENCE, None
        self._lookout.on_lost()

    def on_refused(self, error: AccessRefused) -> None:
        """Tell all that wait."""
        for futures in self._waiting.values():
            for future in futures:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
        self._waiting.clear()

    def _on_unreadable(self, ids: Collection[str], error: BaseException) -> None:
        """Tell those that wait for these jobs, which may be over, that nobody would ever say so."""
        why = refusal(self._link.location, self._names.ledger, error)
        for job_id in ids:
            for future in self._waiting.pop(job_id, ()):
                if future.set_running_or_notify_cancel():
                    future.set_exception(why)

    async def _set_up(self, connection: Connection) -> None:
        """Make the queue. Where that can't be, all is looked for in the stream."""
        names = self._names
        try:
            await _declare(connection, names.reply)
            channel = await Channel.open(connection)
            raw = channel.raw
            arguments = {"x-queue-type": "classic"}
            await channel.call(raw.queue_declare, queue=self._queue, exclusive=True, arguments=arguments)
            await channel.call(raw.queue_bind, queue=self._queue, exchange=names.reply, routing_key=self._queue)
            await channel.call(
                raw.basic_consume, queue=self._queue, on_message_callback=self._on_message, auto_ack=True
            )
        except exceptions.AMQPError as error:
            self._refuse_calls(error)
            return
        self._channel = channel
        self._on_queue(self._queue)
        self._since = now_ms()
        self._is_set_up.set()

    def _refuse_calls(self, error: BaseException) -> None:
        self._is_set_up.set()
        for _, is_over in self._calls.values():
            is_over.set()
        self._channel = None
        self._why_not = error

    def _watch(
        self,
        id: str,  # noqa: A002
        future: Future[Ending | None],
        made: int | None,
        offset: int | None = None,
    ) -> None:
        told = self._remembered.get(id)
        if told is not None and offset is None:
            _resolve(future, _ending_of(told))
            return
        self._waiting.setdefault(id, []).append(future)
        future.add_done_callback(
            lambda future: self._link.post(self._leave, id, future) if future.cancelled() else None
        )
        if offset is not None or self._since is None or made is None or made <= self._since:
            self._lookout.look_for(id, since=made or 0, offset=offset)

    def _leave(self, id: str, future: Future[Ending | None]) -> None:  # noqa: A002
        futures = self._waiting.get(id, [])
        if future in futures:
            futures.remove(future)
        if not futures and self._waiting.pop(id, None) is not None:
            self._lookout.forget(id)

    def _on_message(self, _channel: Any, _method: Any, properties: Encoded, body: bytes) -> None:
        call = fields.decode(properties.data).get("correlation_id")
        if call is None:
            for entry in entries.decode(body):
                if isinstance(entry, Ended) and entry.is_final:
                    self._on_ended(entry)
        elif call in self._calls:
            answers, is_news = self._calls[call]
            with contextlib.suppress(msgspec.DecodeError):  # of another version
                answers.append(_SNAPSHOT.decode(body))
            is_news.set()

    def _on_ended(self, entry: Ended) -> None:
        futures = self._waiting.pop(entry.id, None)
        if futures is None:
            self._remember(entry)
            return
        self._lookout.forget(entry.id)
        for future in futures:
            _resolve(future, _ending_of(entry))

    def _remember(self, entry: Ended) -> None:
        """Keep what nobody has asked for, as somebody may. Of what was forgotten the stream is asked."""
        before = self._remembered.pop(entry.id, None)
        if before is not None:
            self._remembered_bytes -= _bytes_of(before)
        if entry.outcome == "dead":
            self._since = now_ms()  # it may be replayed: who asks later asks the stream
            return
        self._remembered[entry.id] = entry
        self._remembered_bytes += _bytes_of(entry)
        while len(self._remembered) > _REMEMBERED or self._remembered_bytes > _REMEMBERED_BYTES:
            _, oldest = self._remembered.popitem(last=False)
            self._remembered_bytes -= _bytes_of(oldest)
            self._since = max(self._since or 0, made_at(oldest.id) or now_ms())

    async def _call_roll(self, connection: Connection) -> list[Snapshot]:
        await self._is_set_up.wait()
        if self._channel is None or not self._channel.is_open:
            raise self._why_not
        channel = await Channel.open(connection)
        channel.raw.add_on_return_callback(lambda _channel, _method, properties, _body: self._on_return(properties))
        call, is_news, answers = os.urandom(6).hex(), asyncio.Event(), list[Snapshot]()
        channel.watch(lambda _: is_news.set())
        self._calls[call] = answers, is_news
        deadline = time.monotonic() + _LONGEST_CALL
        try:
            properties = pika.BasicProperties(reply_to=self._queue, correlation_id=call)  # type: ignore[no-untyped-call]
            channel.raw.basic_publish(self._names.roll, "", b"", properties, mandatory=True)
            with contextlib.suppress(TimeoutError):
                while channel.is_open and call in self._calls and (left := deadline - time.monotonic()) > 0:
                    await asyncio.wait_for(is_news.wait(), min(left, _QUIET))
                    is_news.clear()
        finally:
            self._calls.pop(call, None)
        if channel.reason is not None and faults.code_of(channel.reason) != faults.NOT_FOUND:
            raise channel.reason
        await channel.close()
        # Where there is no exchange there never was a worker.
        return sorted({answer.worker: answer for answer in answers}.values(), key=lambda answer: answer.worker)

    def _on_return(self, properties: Any) -> None:
        """End a roll call that no worker can hear."""
        _, is_news = self._calls.pop(fields.decode(properties.data).get("correlation_id", ""), (None, None))
        if is_news is not None:
            is_news.set()


async def _declare(connection: Connection, exchange: str) -> None:
    """Make the exchange that leads to reply queues. Who may not does with the one that others have made.

    Also where nothing else may be declared: a reply queue has to be in any case.
    """
    channel = await Channel.open(connection)
    try:
        await channel.call(channel.raw.exchange_declare, exchange=exchange, durable=True)
    except exceptions.ChannelClosedByBroker as error:
        if faults.code_of(error) != faults.ACCESS_REFUSED:
            raise
    await channel.close()


def made_at(id: str) -> int | None:  # noqa: A002
    """Return when an id of dibs' own was made, in ms since 1970; None: it is the caller's own."""
    try:
        number = uuid.UUID(id)
    except ValueError:
        return None
    return number.int >> 80 if number.version == 7 else None


def _resolve(future: Future[Ending | None], ending: Ending | None) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(ending)


def _ending_of(entry: Ended) -> Ending:
    match entry.outcome:
        case "done":
            return Ending(status="done", result=entry.result, note=entry.note)
        case "dead":
            return Ending(status="dead", reason=entry.reason, error=entry.error)
        case _:
            return Ending(status="cancelled")


def _bytes_of(entry: Ended) -> int:
    return 500 + len(entry.result or b"") + len(entry.error or "") + sum(map(len, entry.log))
