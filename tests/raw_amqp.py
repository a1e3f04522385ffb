"""A publisher that writes AMQP 0-9-1 byte by byte: no client library would send what strangers can."""

from __future__ import annotations

import contextlib
import socket
import struct
from types import TracebackType

#: The properties in wire order; the first one has the highest bit of the flags.
_PROPERTIES = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)
#: What a frame may have at most, its own eight bytes included: RabbitMQ's default.
FRAME_BYTES = 131072
_FRAME_END = b"\xce"
_METHOD, _HEADER, _BODY = 1, 2, 3

_START, _TUNE, _OPEN_OK = (10, 10), (10, 30), (10, 41)
_CONNECTION_CLOSE, _CHANNEL_OPEN_OK, _CHANNEL_CLOSE, _SELECT_OK = (10, 50), (20, 11), (20, 40), (85, 11)
_RETURN, _ACK, _NACK = (60, 50), (60, 80), (60, 120)


def short(data: bytes) -> bytes:
    """Return a short string: at most 255 bytes."""
    return bytes((len(data),)) + data


def long(data: bytes) -> bytes:
    """Return a long string, or what else begins with its length in four bytes."""
    return struct.pack(">I", len(data)) + data


def table(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return a field table. Names may be there twice; a value begins with the letter of its type."""
    return long(b"".join(short(name) + value for name, value in pairs))


def properties(values: dict[str, bytes]) -> bytes:
    """Return properties whose values are in wire form already, as a header frame has them behind its sizes."""
    flags = sum(1 << 15 - bit for bit, name in enumerate(_PROPERTIES) if name in values)
    return struct.pack(">H", flags) + b"".join(values[name] for name in _PROPERTIES if name in values)


class RawPublisher:
    """One connection that publishes with confirms; what the server closes is opened anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = self._connect()

    def __enter__(self) -> RawPublisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def publish(self, queue: str, header: bytes, body: bytes) -> bool:
        """Publish to a queue and wait for the answer; tells whether it is stored, or was refused."""
        content = struct.pack(">HHQ", 60, 0, len(body)) + header
        room = FRAME_BYTES - 8
        parts = [body[start : start + room] for start in range(0, len(body), room)]
        frames = [
            _frame(_METHOD, 1, struct.pack(">HHH", 60, 40, 0) + short(b"") + short(queue.encode()) + b"\x01"),
            _frame(_HEADER, 1, content),
            *(_frame(_BODY, 1, part) for part in parts),
        ]
        is_returned = False
        try:
            self._socket.sendall(b"".join(frames))
            while True:
                method = self._method()
                if method == _ACK:
                    return not is_returned
                is_returned |= method == _RETURN
                if method in {_NACK, _CHANNEL_CLOSE, _CONNECTION_CLOSE}:
                    break
        except ConnectionError:
            pass  # it closed the socket on us
        self._socket.close()
        self._socket = self._connect()
        return False

    def _connect(self) -> socket.socket:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._await(_START)
        login = table([]) + short(b"PLAIN") + long(b"\x00guest\x00guest") + short(b"en_US")
        self._send(0, (10, 11), login)
        self._await(_TUNE)
        self._send(0, (10, 31), struct.pack(">HIH", 1, FRAME_BYTES, 0))
        self._send(0, (10, 40), short(b"/") + short(b"") + b"\x00")
        self._await(_OPEN_OK)
        self._send(1, (20, 10), short(b""))
        self._await(_CHANNEL_OPEN_OK)
        self._send(1, (85, 10), b"\x00")
        self._await(_SELECT_OK)
        return self._socket

    def _send(self, channel: int, method: tuple[int, int], arguments: bytes) -> None:
        self._socket.sendall(_frame(_METHOD, channel, struct.pack(">HH", *method) + arguments))

    def _await(self, method: tuple[int, int]) -> None:
        while (got := self._method()) != method:
            if got in {_CHANNEL_CLOSE, _CONNECTION_CLOSE}:
                raise ConnectionRefusedError(f"the server answered {got}, not {method}")

    def _method(self) -> tuple[int, int]:
        """Return the next method that the server sends."""
        while True:
            kind, _, size = struct.unpack(">BHI", self._read(7))
            payload = self._read(size + 1)
            if kind == _METHOD:
                return struct.unpack_from(">HH", payload)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            with contextlib.suppress(InterruptedError):
                part = self._socket.recv(count - len(data))
                if not part:
                    raise ConnectionResetError("the server closed the connection")
                data += part
        return data


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + _FRAME_END
