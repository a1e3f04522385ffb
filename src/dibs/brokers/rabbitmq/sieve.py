"""Takes what is delivered on some channels out of a connection's bytes, before pika makes objects of it.

pika makes three objects of each message and copies the rest of its buffer for each frame: 8,000 messages a second are
all that gets through. Jobs and streams come faster, so they are cut out here, many at a time. What is not a delivery,
and all of the other channels, goes on to pika as it came. Knows frames, and not what is in them.
"""

from __future__ import annotations

import struct

from dibs.brokers.rabbitmq.channel import Connection

_FRAME = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY = 1, 2, 3
_DELIVER = b"\x00\x3c\x00\x3c"
_SIZE = struct.Struct(">Q")


class Tap:
    """What is cut out for one channel, which must be sent nothing but deliveries that has a body."""

    def __init__(self) -> None:
        #: The arguments of the newest delivery, whole or not: consumer tag, delivery tag and what follows.
        self.method = b""
        #: Its header frame's payload.
        self.header = b""
        #: What of its body is still to come, and what came.
        self._left = 0
        self._pieces: list[bytes] = []

    @property
    def tag(self) -> int:
        """The delivery tag of the newest message, whole or not."""
        return _SIZE.unpack_from(self.method, 1 + self.method[0])[0] if self.method else 0

    def begin(self, header: bytes) -> None:
        """Take the header frame's payload."""
        self.header = header
        self._left = _SIZE.unpack_from(header, 4)[0]
        if not self._left:
            self.take(b"")

    def add(self, piece: bytes) -> None:
        """Take a body frame's payload."""
        self._left -= len(piece)
        if self._left > 0:
            self._pieces.append(piece)
            return
        if self._pieces:
            piece = b"".join((*self._pieces, piece))
            self._pieces.clear()
        self.take(piece)

    def take(self, body: bytes) -> None:
        """Take in a message that is whole."""
        raise NotImplementedError

    def hand_on(self) -> None:
        """Hand on what was taken in since the last call. Called once for all that was received at once."""
        raise NotImplementedError


class Sieve:
    """The taps of one connection."""

    def __init__(self, connection: Connection) -> None:
        """Stand in the way of what the connection receives from now on."""
        self._connection = connection
        self._taps: dict[int, Tap] = {}
        #: The beginning of a frame whose rest has not come yet.
        self._rest = connection.take_received()
        connection.sieve = self
        connection.read_much()

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
                tap.method = buffer[offset + 11 : end - 1]
            else:
                others.append(buffer[offset:end])
            offset = end
        self._rest = buffer[offset:]
        for tap in tuple(taps.values()):
            tap.hand_on()
        if not taps:  # what is left need not come this way
            self._connection.sieve = None
            others.append(self._rest)
        return b"".join(others)
