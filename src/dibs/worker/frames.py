"""What supervisor and executor say to each other, and its form on the socket between them.

A frame is four bytes of length, big-endian, and a msgpack value. Many go in one system call, both ways.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import msgspec

from dibs.broker import Queue
from dibs.message import Message
from dibs.outcome import Outcome

_LENGTH = struct.Struct(">I")
#: Bytes of the longest frame: the largest body that a broker takes, and some. Below what any four printable
#: characters would mean, so a task that prints to the wrong descriptor is found out.
_LONGEST = 513 * 1024 * 1024


class Setup(msgspec.Struct, frozen=True, tag=0, array_like=True):
    """To a new executor, first: what to import and how much to run at once."""

    #: `module:app`.
    app: str
    #: The broker's URL, where the command line gave one. It may hold a password, so it goes this way: everybody
    #: on the machine can read a process's arguments.
    url: str | None
    #: How many jobs run at a time.
    slots: int


class Start(msgspec.Struct, frozen=True, tag=1, array_like=True):
    """To an executor: run this."""

    #: The supervisor's number for this run, which the answer repeats.
    number: int
    #: Which permit it needs: see `line.py`.
    epoch: int
    message: Message


class Keep(msgspec.Struct, frozen=True, tag=2, array_like=True):
    """To an executor: hold the descriptors that come along open as long as you live."""


class Stop(msgspec.Struct, frozen=True, tag=3, array_like=True):
    """To an executor: no job will follow; run the stop hooks and end."""


class Ready(msgspec.Struct, frozen=True, tag=4, array_like=True):
    """From an executor: the app is imported and the start hooks have run."""

    #: Of the app's broker, with its password.
    url: str
    namespace: str
    #: Whether the app may declare queues.
    may_declare: bool
    #: Every queue that the app names.
    queues: list[Queue]
    #: Names of its tasks.
    tasks: list[str]


class Refused(msgspec.Struct, frozen=True, tag=5, array_like=True):
    """From an executor: the app can't be imported, or a start hook failed."""

    #: One line, or a traceback.
    error: str


class Finished(msgspec.Struct, frozen=True, tag=6, array_like=True):
    """From an executor: what came of a run."""

    number: int
    outcome: Outcome


Frame = Setup | Start | Keep | Stop | Ready | Refused | Finished


class Inbox:
    """Turns the bytes of a socket back into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(Frame)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that these bytes complete."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= 4:
            length = _LENGTH.unpack_from(buffer, start)[0]
            if length > _LONGEST:
                raise msgspec.DecodeError(f"a frame of {length} bytes")
            end = start + 4 + length
            if end > len(buffer):
                break
            frames.append(self._decoder.decode(buffer[start + 4 : end]))
            start = end
        if start:
            del buffer[:start]
        return frames


def pack(frames: Iterable[Frame]) -> bytes:
    """Return frames as the bytes that carry them."""
    packed = bytearray()
    for frame in frames:
        data = _ENCODER.encode(frame)
        packed += _LENGTH.pack(len(data))
        packed += data
    return bytes(packed)


_ENCODER = msgspec.msgpack.Encoder()
