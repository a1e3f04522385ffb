"""The properties of a job as most jobs are, written and read in one go: a quarter of the time that `fields` takes.

That is a first run in its usual form: JSON, no headers of the sender's, no options that travel as headers. Bytes are
what `fields` would have written, and are read only where every one of them is what it would be; all else is not known
here, and `wire.py` goes the long way.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from dibs.message import DEFAULT_KEEP, Message

_CONTENT_TYPE = "application/json"
#: The flags (content type, headers, delivery mode, priority, message id, timestamp, type, app id; and a second form
#: with reply-to), and the content type.
_BEGIN = b"\xb8\xe8\x10application/json"
_BEGIN_ANSWERED = b"\xba\xe8\x10application/json"
_TABLE = len(_BEGIN)
#: The one header that all have, with the type of its value, and the one that quorum queues add.
_PUT = b"\x08dibs-putS"
_RETURNS = b"\x10x-delivery-countl"
_END = b"\x04dibs"

_SIZE = struct.Struct(">I")
_LONG = struct.Struct(">q")
_TIME = struct.Struct(">Q")
#: The last second that has four digits of a year, and some.
_MOST_SECONDS = 253_402_300_799
_SHORT = 255


class Plain(NamedTuple):
    """What such properties say."""

    put: str
    priority: int
    id: str
    #: In seconds since 1970.
    timestamp: int
    task: str
    reply_to: str | None
    #: How often it was given back; None: the server does not say.
    returns: int | None


def encode(message: Message, put: str, reply_to: str | None) -> bytes | None:
    """Return the properties of a message in wire form; None: it is not of this form."""
    if (
        message.headers
        or message.properties
        or message.task is None
        or message.content_type != _CONTENT_TYPE
        or message.enqueued is None
        or message.attempt != 1
        or message.crashes
        or message.is_suspect
        or message.is_private
        or message.keep != DEFAULT_KEEP
        or message.due is not None
        or message.expires is not None
        or message.unknown_since is not None
        or message.error is not None
        or not 0 <= message.priority <= _SHORT
        or message.enqueued < 0
    ):
        return None
    try:
        nonce, job, task = put.encode(), message.id.encode(), message.task.encode()
        answered = b"" if reply_to is None else reply_to.encode()
        return b"".join(
            (
                _BEGIN if reply_to is None else _BEGIN_ANSWERED,
                _SIZE.pack(len(_PUT) + 4 + len(nonce)),
                _PUT,
                _SIZE.pack(len(nonce)),
                nonce,
                bytes((2, message.priority)),
                b"" if reply_to is None else bytes((len(answered),)),
                answered,
                bytes((len(job),)),
                job,
                _TIME.pack(message.enqueued // 1000),
                bytes((len(task),)),
                task,
                _END,
            )
        )
    except (UnicodeEncodeError, ValueError):
        return None  # a text that is too long, or none


def decode(data: bytes) -> Plain | None:
    """Return what properties say; None: they are not of this form."""
    is_answered = data.startswith(_BEGIN_ANSWERED)
    if not (is_answered or data.startswith(_BEGIN)):
        return None
    try:
        start = _TABLE + 4
        table_end = start + _SIZE.unpack_from(data, _TABLE)[0]
        if not data.startswith(_PUT, start):
            return None
        start += len(_PUT)
        end = start + 4 + _SIZE.unpack_from(data, start)[0]
        put, returns = data[start + 4 : end].decode(), None
        if end != table_end:
            if end + len(_RETURNS) + 8 != table_end or not data.startswith(_RETURNS, end):
                return None
            returns = _LONG.unpack_from(data, end + len(_RETURNS))[0]
        priority, place, reply_to = data[table_end + 1], table_end + 2, None
        if is_answered:
            end = place + 1 + data[place]
            reply_to, place = data[place + 1 : end].decode(), end
        end = place + 1 + data[place]
        job = data[place + 1 : end].decode()
        timestamp = _TIME.unpack_from(data, end)[0]
        place = end + 8
        end = place + 1 + data[place]
        task = data[place + 1 : end].decode()
    except (struct.error, IndexError, UnicodeDecodeError):
        return None
    if data[end:] != _END or not job or not task or timestamp > _MOST_SECONDS:
        return None
    return Plain(put, priority, job, timestamp, task, reply_to, returns)
