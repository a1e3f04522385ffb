"""pika's connection and channel, with methods that can be awaited. All of it on one I/O thread.

A method whose channel closes before its answer comes raises what closed the channel; pika itself would never
call back.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pika
from pika import exceptions, frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel as PikaChannel
from pika.heartbeat import HeartbeatChecker

from dibs.brokers.rabbitmq import faults, fields

#: Bytes asked of the socket at a time.
_READ_BYTES = 64 * 1024
_HEADER_FRAME = bytes((spec.FRAME_HEADER,))


class Encoded(pika.BasicProperties):
    """A received message's properties, which pika passes on unread; `fields` decodes them."""

    def __init__(self, data: bytes) -> None:
        """Hold `data`; pika's own fields stay unset."""
        self.data = data


class Letter(msgspec.Struct, frozen=True):
    """One message, ready to be published."""

    exchange: str
    routing_key: str
    #: The properties, as `fields.encode` returns them.
    header: bytes
    body: bytes
    id: str


class _Heartbeat(HeartbeatChecker):
    """Notices a silent peer between one and a half and three heartbeats after its last word.

    pika looks every `heartbeat + 5` seconds: twelve heartbeats late where they are a second apart.
    """

    def _start_check_timer(self) -> None:
        self._check_interval = 1.5 * self._timeout  # pyright: ignore[reportAttributeAccessIssue]
        super()._start_check_timer()  # type: ignore[no-untyped-call]  # pika's


class Connection(AsyncioConnection):
    """A connection with shortcuts past pika: for messages that it can't read, for speed, and for broken networks.

    What is overridden and called here is private to pika: the tests of headers that its decoder raises on, of the
    number of writes, of every publish and of packets that vanish guard it.
    """

    #: Takes out of what is received what is not for pika, and returns the rest, in whole frames.
    sieve: Callable[[bytes], bytes] | None = None

    # pyright's stubs of pika leave out what is private.
    _frame_buffer: bytes
    _transport: Any

    def __init__(self, parameters: pika.ConnectionParameters, **callbacks: Any) -> None:
        """Begin to connect; see pika's."""
        #: Takes the confirms, by the channel's number. pika's registry of callbacks costs more than all the rest of
        #: a confirm.
        self.confirms: dict[int, Callable[[Any], None]] = {}
        super().__init__(parameters, **callbacks)

    def write(self, frames: bytes) -> None:
        """Send whole frames: at once as far as the socket takes them, the rest through pika's buffer.

        Through the buffer alone, each burst costs a round of the event loop and two system calls more.
        """
        transport = self._transport
        if self.params.ssl_options is None and transport is not None and not transport.get_write_buffer_size():
            try:
                sent = transport._sock.send(frames)  # noqa: SLF001 -- see above
            except OSError:
                sent = 0  # full, or broken: pika's own try finds out which
            self.bytes_sent += sent
            frames = frames[sent:]
        if frames:
            self._output_marshaled_frames([frames])  # pyright: ignore[reportAttributeAccessIssue]

    def read_much(self) -> None:
        """Take up to 64 KiB out of the socket at a time, where a sieve stands behind it; pika takes 4 KiB."""
        self._transport._MAX_RECV_BYTES = _READ_BYTES  # noqa: SLF001 -- see above

    def read_once(self) -> None:
        """Read once whenever there is something; pika reads until there is nothing, which costs an exception."""
        if self.params.ssl_options is None:  # TLS has a buffer of its own, of which the event loop sees nothing
            self._transport._MAX_CONSUME_BYTES = 1  # noqa: SLF001 -- see above

    def take_received(self) -> bytes:
        """Return the part of a frame that was received, for a sieve that is put in here."""
        received, self._frame_buffer = self._frame_buffer, b""
        return received

    def abort(self) -> None:
        """End it without a word to a peer that does not answer."""
        self._terminate_stream(  # pyright: ignore[reportAttributeAccessIssue]
            exceptions.ConnectionClosedByClient(0, "The server did not answer the goodbye")
        )

    def _create_heartbeat_checker(self) -> HeartbeatChecker:
        return _Heartbeat(self, self.params.heartbeat)  # type: ignore[no-untyped-call]  # pika's; `login` sets one

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        """Make pika's own abort what pika checks for: an exception, where it passes on the class of one."""
        done = conn_or_exc() if isinstance(conn_or_exc, type) else conn_or_exc
        super()._on_connection_workflow_done(done)  # pyright: ignore[reportAttributeAccessIssue]

    def _process_frame(self, frame_value: Any) -> None:
        method = getattr(frame_value, "method", None)
        if isinstance(method, spec.Basic.Ack | spec.Basic.Nack):
            self.confirms[frame_value.channel_number](method)
        else:
            super()._process_frame(frame_value)  # pyright: ignore[reportAttributeAccessIssue]

    def _on_data_available(self, data_in: bytes) -> None:
        if self.sieve is not None:
            self.bytes_received += len(
                data_in
            )  # counted twice where pika sees it too: heartbeats only ask for change
            data_in = self.sieve(data_in)
        super()._on_data_available(data_in)  # pyright: ignore[reportAttributeAccessIssue]

    def _read_frame(self) -> tuple[int, Any]:
        """Leave the decoding of message properties to who receives the message.

        pika's decoder raises on headers that any client may send. That kills the connection, and the message comes
        again to do the same.
        """
        buffer = self._frame_buffer
        if buffer[:1] != _HEADER_FRAME or len(buffer) < 7:
            return super()._read_frame()  # pyright: ignore[reportAttributeAccessIssue]
        channel, size = struct.unpack_from(">HI", buffer, 1)
        if len(buffer) < size + 8:
            return 0, None
        body_bytes = struct.unpack_from(">Q", buffer, 11)[0]
        return size + 8, frame.Header(channel, body_bytes, Encoded(buffer[19 : size + 7]))


async def connect(parameters: pika.ConnectionParameters, on_lost: Callable[[BaseException], None]) -> Connection:
    """Open a connection.

    Args:
        parameters: where and how.
        on_lost: is called once, when it ends after it was open.

    Raises:
        AMQPError, ConnectionError: it could not be opened.
    """
    opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_error(_: Any, error: object) -> None:
        if not opened.done():
            # Some of pika's are no AMQPError: a name that can't be resolved, a certificate that is refused.
            opened.set_exception(error if isinstance(error, exceptions.AMQPError) else ConnectionError(repr(error)))

    connection = Connection(
        parameters,
        on_open_callback=lambda _: _answer(opened, None),
        on_open_error_callback=on_error,
        on_close_callback=lambda _, error: on_lost(error),
    )
    try:
        await opened
    except asyncio.CancelledError:
        if not (connection.is_closed or connection.is_closing):
            connection.close()
        raise
    connection.read_once()
    return connection


class Channel:
    """One AMQP channel."""

    def __init__(self, connection: Connection, raw: PikaChannel) -> None:
        self.connection = connection
        #: pika's own, for the methods that `call` takes and those that have no answer.
        self.raw = raw
        #: What closed it, once it is closed.
        self.reason: Exception | None = None
        self._answers: set[asyncio.Future[Any]] = set()
        self._watchers: list[Callable[[Exception], None]] = []
        raw.add_on_close_callback(self._on_close)

    @classmethod
    async def open(cls, connection: Connection) -> Channel:
        """Open a channel on `connection`."""
        opened: asyncio.Future[PikaChannel] = asyncio.get_running_loop().create_future()
        raw = connection.channel(on_open_callback=lambda raw: _answer(opened, raw))
        channel = cls(connection, raw)
        channel._answers.add(opened)
        await opened
        channel._answers.discard(opened)
        return channel

    @property
    def is_open(self) -> bool:
        """Whether methods may still be called."""
        return self.reason is None and bool(self.raw.is_open)

    def watch(self, on_close: Callable[[Exception], None]) -> None:
        """Have `on_close` called with the reason when the channel ends, unless `close` ended it."""
        self._watchers.append(on_close)

    async def call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Call a method of `raw` that takes a callback, and return the server's answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)
        try:
            method(**arguments, callback=lambda frame: _answer(answer, frame.method))
            return await answer
        finally:
            self._answers.discard(answer)

    async def look(self, queue: str) -> Any | None:
        """Return what the server counts in `queue`; None: there is none of that name, and the channel is closed."""
        try:
            return await self.call(self.raw.queue_declare, queue=queue, passive=True)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code == faults.NOT_FOUND:
                return None
            raise

    async def get(self, queue: str) -> tuple[Any, Any, bytes] | None:
        """Return the next message of `queue` (method, properties, body), unacknowledged; None: it is empty."""
        answer: asyncio.Future[tuple[Any, Any, bytes] | None] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)
        self.raw.add_callback(lambda _: _answer(answer, None), [spec.Basic.GetEmpty])

        def on_message(_: Any, method: Any, properties: Any, body: bytes) -> None:
            _answer(answer, (method, properties, body))

        try:
            self.raw.basic_get(queue, callback=on_message)
            return await answer
        finally:
            self._answers.discard(answer)
            self.raw.connection.callbacks.remove(str(self.raw.channel_number), spec.Basic.GetEmpty)

    async def confirm(self, on_confirm: Callable[[Any], None]) -> None:
        """Have the server answer for each message that is published here, from now on."""
        self.connection.confirms[self.raw.channel_number] = on_confirm
        await self.call(self.raw.confirm_delivery, ack_nack_callback=on_confirm)

    def frames(self, letters: Sequence[Letter], *, is_mandatory: bool = True) -> bytes:
        """Return what publishes letters, to be written as it is."""
        number, frame_bytes = self.raw.channel_number, self.connection.params.frame_max
        frames: list[bytes] = []
        beginnings: dict[tuple[str, str], bytes] = {}
        for letter in letters:
            place = letter.exchange, letter.routing_key
            beginning = beginnings.get(place)
            if beginning is None:
                beginning = fields.publish_frame(number, *place, is_mandatory=is_mandatory)
                beginnings[place] = beginning
            frames.append(beginning)
            frames += fields.content_frames(number, letter.header, letter.body, frame_bytes)
        return b"".join(frames)

    def publish(self, letters: Sequence[Letter], behind: bytes = b"") -> None:
        """Publish letters, mandatory, in one write: pika makes three of each, and the server wakes up for each.

        Args:
            letters: which ones.
            behind: frames of another channel that go along.
        """
        self.connection.write(self.frames(letters) + behind)

    def acknowledge(self, span: int, tags: Sequence[int]) -> None:
        """Let go of deliveries, in one write: pika's way takes a turn of the loop and three system calls.

        Args:
            span: the tag up to which all are acknowledged; 0: none.
            tags: those that are acknowledged on their own.
        """
        number = self.raw.channel_number
        frames = [fields.ack_frame(number, span, is_multiple=True)] if span else []
        frames += [fields.ack_frame(number, tag) for tag in tags]
        self.connection.write(b"".join(frames))

    async def close(self) -> None:
        """Close it. All that was sent on it before has then been done by the server."""
        self._watchers.clear()
        if not self.is_open:
            return
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.append(lambda _: _answer(closed, None))
        self.raw.close()
        await closed

    def _on_close(self, _: Any, reason: Exception) -> None:
        self.reason = reason
        for answer in tuple(self._answers):
            if not answer.done():
                answer.set_exception(reason)
        for watcher in tuple(self._watchers):
            watcher(reason)


def _answer(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():  # whoever waited for it may have given up
        future.set_result(value)
