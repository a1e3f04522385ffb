"""Takes what is delivered on some channels out of a connection's bytes, before pika makes objects of it.

pika makes three objects of each message and copies the rest of its buffer for each frame: 8,000 messages a second are
all that gets through. Streams are read in millions, so theirs are cut out here, many at a time. What is not a
delivery, and all of the other channels, goes on to pika as it came. Knows frames, and the one header that servers put
on what they deliver from a stream.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from dibs.brokers.rabbitmq.channel import Connection

_FRAME = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY = 1, 2, 3
_DELIVER = b"\x00\x3c\x00\x3c"
_LONG = struct.Struct(">q")
_SIZE = struct.Struct(">Q")
#: The header, with the type of its value: a signed number of eight bytes.
_OFFSET = b"\x0fx-stream-offsetl"


class Tap:
    """What is cut out for one channel."""

    def __init__(self, on_batch: Callable[[list[tuple[int, bytes]]], None]) -> None:
        """Have batches of offsets and bodies handed to `on_batch`, in the order of the stream."""
        self.on_batch = on_batch
        #: The delivery tag of the newest message, whole or not.
        self.tag = 0
        self.batch: list[tuple[int, bytes]] = []
        #: The offset of the message that is coming in, what of its body is still to come, and what came.
        self.offset = -1
        self.left = 0
        self.pieces: list[bytes] = []

    def begin(self, header: bytes) -> None:
        """Take the header frame's payload."""
        found = header.find(_OFFSET)
        # It is always there. Should it not be, the next number is the best guess.
        self.offset = _LONG.unpack_from(header, found + len(_OFFSET))[0] if found >= 0 else self.offset + 1
        self.left = _SIZE.unpack_from(header, 4)[0]
        if not self.left:
            self.batch.append((self.offset, b""))

    def add(self, piece: bytes) -> None:
        """Take a body frame's payload."""
        self.left -= len(piece)
        if self.left > 0:
            self.pieces.append(piece)
            return
        if self.pieces:
            piece = b"".join((*self.pieces, piece))
            self.pieces.clear()
        self.batch.append((self.offset, piece))


class Sieve:
    """The taps of one connection."""

    def __init__(self, connection: Connection) -> None:
        """Stand in the way of what the connection receives from now on."""
        self._connection = connection
        self._taps: dict[int, Tap] = {}
        #: The beginning of a frame whose rest has not come yet.
        self._rest = connection.take_received()
        connection.sieve = self

    @classmethod
    def of(cls, connection: Connection) -> Sieve:
        """Return the connection's, made at first use."""
        return connection.sieve if isinstance(connection.sieve, cls) else cls(connection)

    def put(self, channel: int, tap: Tap) -> None:
        """Have what is delivered on this channel go to `tap`."""
        self._taps[channel] = tap

    def remove(self, channel: int) -> None:
        """Leave the channel to pika again."""
        self._taps.pop(channel, None)

    def __call__(self, data: bytes) -> bytes:
        """Take in what was received, and return what of it is pika's: whole frames."""
        buffer = self._rest + data if self._rest else data
        taps, unpack = self._taps, _FRAME.unpack_from
        offset, size = 0, len(buffer)
        others: list[bytes] = []
        while size - offset >= 7:
            kind, channel, length = unpack(buffer, offset)
            end = offset + length + 8
            if end > size:
                break
            tap = taps.get(channel)
            if tap is None:
                others.append(buffer[offset:end])
            elif kind == _BODY:
                tap.add(buffer[offset + 7 : end - 1])
            elif kind == _HEADER:
                tap.begin(buffer[offset + 7 : end - 1])
            elif buffer[offset + 7 : offset + 11] == _DELIVER:
                tap.tag = _SIZE.unpack_from(buffer, offset + 12 + buffer[offset + 11])[0]
            else:
                others.append(buffer[offset:end])
            offset = end
        self._rest = buffer[offset:]
        for tap in tuple(taps.values()):
            if tap.batch:
                batch, tap.batch = tap.batch, []
                tap.on_batch(batch)
        if not taps:  # nothing is read any more: jobs need not come this way
            self._connection.sieve = None
            others.append(self._rest)
        return b"".join(others)
