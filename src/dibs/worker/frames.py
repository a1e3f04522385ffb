"""What supervisor and executor say to each other, and its form on the socket between them.

A frame is four bytes of length, big-endian, and a msgpack value. Many go in one system call, both ways.
"""

from __future__ import annotations

import signal
import struct
from collections.abc import Iterable

import msgspec

from dibs.broker import Queue
from dibs.ledger.life import Note
from dibs.message import Message
from dibs.outcome import Outcome, Reason

#: From the supervisor, behind a `Cancel`: there is something to read. Where nobody waits for it, it is ignored, so
#: a stray one harms nothing.
WAKING = signal.SIGURG
_LENGTH = struct.Struct(">I")
_NO_LENGTH = bytes(4)
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


class Began(msgspec.Struct, frozen=True, tag=7, array_like=True):
    """From an executor: a run with a time limit begins. What is to follow should it have to be killed for it."""

    number: int
    #: Seconds that it may take.
    timeout: float
    #: Seconds until it is to be tried again; None: it is to be set aside.
    delay: float | None
    #: Why it is set aside then.
    reason: Reason


class Overdue(msgspec.Struct, frozen=True, tag=8, array_like=True):
    """From an executor: a run was asked to end for its time limit, and goes on."""

    number: int


class Worn(msgspec.Struct, frozen=True, tag=9, array_like=True):
    """From an executor: a thread of it was interrupted, so another one is to take its place."""


class Lost(msgspec.Struct, frozen=True, tag=10, array_like=True):
    """To an executor: which of its runs are of jobs that the broker has taken back, as of now."""

    numbers: list[int]


class Cancel(msgspec.Struct, frozen=True, tag=11, array_like=True):
    """To an executor: which of its runs are to be ended, as of now."""

    numbers: list[int]


class Said(msgspec.Struct, frozen=True, tag=12, array_like=True):
    """From an executor: what a run says of itself."""

    number: int
    note: Note


Frame = Setup | Start | Keep | Stop | Ready | Refused | Finished | Began | Overdue | Worn | Lost | Cancel | Said


class Inbox:
    """Turns the bytes of a socket back into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(Frame)

    def feed(self, data: bytes | bytearray) -> list[Frame]:
        """Return the frames that these bytes complete."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= 4:
            length = _LENGTH.unpack_from(buffer, start)[0]
            if length > _LONGEST:
                if frames:
                    break
                raise msgspec.DecodeError(f"a frame of {length} bytes")
            end = start + 4 + length
            if end > len(buffer):
                break
            try:
                frames.append(self._decoder.decode(buffer[start + 4 : end]))
            except msgspec.DecodeError:
                if not frames:
                    raise
                break  # those before it count; the next call raises
            start = end
        if start:
            del buffer[:start]
        return frames


def pack(frames: Iterable[Frame]) -> bytearray:
    """Return frames as the bytes that carry them."""
    packed = bytearray()
    for frame in frames:
        append(packed, frame)
    return packed


def append(packed: bytearray, frame: Frame) -> None:
    """Put the bytes of one more frame behind those of others."""
    start = len(packed)
    packed += _NO_LENGTH
    _ENCODER.encode_into(frame, packed, -1)
    _LENGTH.pack_into(packed, start, len(packed) - start - 4)


_ENCODER = msgspec.msgpack.Encoder()
