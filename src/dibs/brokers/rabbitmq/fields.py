"""The AMQP 0-9-1 form of messages: properties to bytes and back, and the frames of a publish.

Why not pika's own: it raises while reading a timestamp outside datetime's range or a NaN, which kills the
connection, and the message comes back for ever; it turns every float header into an int; and it can't write
a float. Reading here never fails. It knows AMQP's types only, nothing of what dibs puts into them.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

#: The properties in wire order, each with the bit that says that it is there.
_FLAGS = {
    "content_type": 1 << 15,
    "content_encoding": 1 << 14,
    "headers": 1 << 13,
    "delivery_mode": 1 << 12,
    "priority": 1 << 11,
    "correlation_id": 1 << 10,
    "reply_to": 1 << 9,
    "expiration": 1 << 8,
    "message_id": 1 << 7,
    "timestamp": 1 << 6,
    "type": 1 << 5,
    "user_id": 1 << 4,
    "app_id": 1 << 3,
    "cluster_id": 1 << 2,
}
#: Longest text of a string property, in bytes: its length is one byte.
SHORT_STRING_BYTES = 255

#: Tables and lists are read so deep and no deeper. A frame has room for 26,000 levels, Python's stack has not; and
#: what was read is to be written again, from wherever the stack stands then.
_DEEPEST = 64

#: Type, channel and size of a frame. Its payload follows, and the byte 0xCE.
_FRAME = struct.Struct(">BHI")

#: A content header up to the properties; and the end of a frame with the beginning of the next one.
_CONTENT, _NEXT = struct.Struct(">BHIHHQ"), struct.Struct(">BBHI")
_ACK = struct.Struct(">BHIHHQ?B")

_NUMBERS = {
    b"b": ">b",
    b"B": ">B",
    b"U": ">h",
    b"s": ">h",  # RabbitMQ and the errata: 's' is a short int, not a short string
    b"u": ">H",
    b"I": ">i",
    b"i": ">I",
    b"L": ">q",
    b"l": ">q",
    b"f": ">f",
    b"d": ">d",
}


def encode(properties: Mapping[str, Any]) -> bytes:
    """Return properties as the payload of a content header frame, behind its sizes.

    `headers` is a table, `delivery_mode`, `priority` and `timestamp` are numbers, all others are text.
    """
    flags, pieces = 0, [b""]
    for name, flag in _FLAGS.items():
        value = properties.get(name)
        if value is None:
            continue
        flags |= flag
        match name:
            case "headers":
                pieces.append(_encode_table(value))
            case "delivery_mode" | "priority":
                pieces.append(bytes((value,)))
            case "timestamp":
                pieces.append(struct.pack(">Q", value))
            case _:
                pieces.append(_encode_short(value))
    pieces[0] = struct.pack(">H", flags)
    return b"".join(pieces)


def publish_frame(channel: int, exchange: str, routing_key: str, *, is_mandatory: bool) -> bytes:
    """Return the frame that begins a `basic.publish`; `content_frames` follow. All to one place begin alike.

    Args:
        channel: its number.
        exchange: its name.
        routing_key: of the message.
        is_mandatory: it comes back where it leads to no queue.
    """
    flags = b"\x01" if is_mandatory else b"\x00"
    method = b"\x00\x3c\x00\x28\x00\x00" + _encode_short(exchange) + _encode_short(routing_key) + flags
    return _FRAME.pack(1, channel, len(method)) + method + b"\xce"


def content_frames(channel: int, header: bytes, body: bytes, frame_bytes: int) -> tuple[bytes, ...]:
    """Return what follows a publish, to be written in one piece with it.

    Pika sends each frame on its own, and the server wakes up for each.

    Args:
        channel: its number.
        header: the properties, as `encode` returns them.
        body: of the message.
        frame_bytes: the largest frame that was agreed on with the server.
    """
    size, room = len(body), frame_bytes - _FRAME.size - 1
    first = _CONTENT.pack(2, channel, len(header) + 12, 60, 0, size)
    if 0 < size <= room:
        return first, header, _NEXT.pack(0xCE, 3, channel, size), body, b"\xce"
    pieces = [first, header, b"\xce"]
    for start in range(0, size, room):
        part = body[start : start + room]
        pieces += (_FRAME.pack(3, channel, len(part)), part, b"\xce")
    return tuple(pieces)


def ack_frame(channel: int, tag: int, *, is_multiple: bool = False) -> bytes:
    """Return the frame of a `basic.ack`, of all up to the tag where `is_multiple`."""
    return _ACK.pack(1, channel, 13, 60, 80, tag, is_multiple, 0xCE)


def decode(data: bytes) -> dict[str, Any]:
    """Return the properties in a content header frame's payload, those that are there. Never fails.

    Values are plain: text, numbers, truth, None, lists and dicts; times become ISO 8601 text, or the number of
    seconds where no calendar has them. A table or list that lies deeper than 64 others becomes a text that says so.
    """
    properties: dict[str, Any] = {}
    try:
        flags, offset = struct.unpack_from(">H", data)[0], 2
        for name, flag in _FLAGS.items():
            if not flags & flag:
                continue
            match name:
                case "headers":
                    properties[name], offset = _decode_table(data, offset, 0)
                case "delivery_mode" | "priority":
                    properties[name], offset = data[offset], offset + 1
                case "timestamp":
                    properties[name], offset = struct.unpack_from(">Q", data, offset)[0], offset + 8
                case _:
                    properties[name], offset = _decode_short(data, offset)
    except (struct.error, IndexError):
        pass  # cut short: what was read until there is all that can be known
    return properties


def _encode_short(text: str) -> bytes:
    data = text.encode("utf-8", "replace")[:SHORT_STRING_BYTES]
    return bytes((len(data),)) + data


def _encode_table(table: Mapping[str, Any]) -> bytes:
    data = b"".join(_encode_short(str(name)) + _encode_value(value) for name, value in table.items())
    return struct.pack(">I", len(data)) + data


def _encode_value(value: Any) -> bytes:
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    return _encode_text(str(value))  # a type that AMQP does not have: better readable than refused


def _encode_text(value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    return struct.pack(">cI", b"S", len(data)) + data


def _encode_int(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return struct.pack(">ci", b"I", value)
    if -(1 << 63) <= value < 1 << 63:
        return struct.pack(">cq", b"l", value)
    return _encode_text(str(value))


def _encode_list(values: list[Any]) -> bytes:
    data = b"".join(map(_encode_value, values))
    return struct.pack(">cI", b"A", len(data)) + data


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: _encode_text,
    bytes: lambda value: struct.pack(">cI", b"x", len(value)) + value,
    bool: lambda value: struct.pack(">c?", b"t", value),
    int: _encode_int,
    float: lambda value: struct.pack(">cd", b"d", value),
    type(None): lambda _: b"V",
    dict: lambda value: b"F" + _encode_table(value),
    list: _encode_list,
    tuple: _encode_list,
}


def _decode_short(data: bytes, offset: int) -> tuple[str, int]:
    end = offset + 1 + data[offset]
    return _text(data[offset + 1 : end]), end


def _decode_table(data: bytes, offset: int, depth: int) -> tuple[dict[str, Any], int]:
    table: dict[str, Any] = {}
    end = offset + 4 + int(struct.unpack_from(">I", data, offset)[0])
    offset += 4
    try:
        while offset < end:
            name, offset = _decode_short(data, offset)
            table[name], offset = _decode_value(data, offset, depth)
    except (struct.error, IndexError):
        pass  # the rest of it can't be read; what follows behind its end can
    return table, end


def _decode_value(data: bytes, offset: int, depth: int) -> tuple[Any, int]:
    kind, offset = data[offset : offset + 1], offset + 1
    if kind in _NUMBERS:
        form = _NUMBERS[kind]
        return struct.unpack_from(form, data, offset)[0], offset + struct.calcsize(form)
    match kind:
        case b"S" | b"x":
            end = offset + 4 + struct.unpack_from(">I", data, offset)[0]
            return _text(data[offset + 4 : end]), end
        case b"t":
            return data[offset] != 0, offset + 1
        case b"T":
            return _time(struct.unpack_from(">Q", data, offset)[0]), offset + 8
        case b"F" | b"A":
            return _decode_nested(kind, data, offset, depth + 1)
        case b"D":
            scale, number = struct.unpack_from(">Bi", data, offset)
            return str(Decimal(number).scaleb(-scale)), offset + 5
        case b"V":
            return None, offset
    raise IndexError(f"unknown field type {kind!r}")  # its length is unknown too


def _decode_nested(kind: bytes, data: bytes, offset: int, depth: int) -> tuple[Any, int]:
    if depth > _DEEPEST:
        return "(nested too deep)", offset + 4 + struct.unpack_from(">I", data, offset)[0]
    return _decode_table(data, offset, depth) if kind == b"F" else _decode_list(data, offset, depth)


def _decode_list(data: bytes, offset: int, depth: int) -> tuple[list[Any], int]:
    values: list[Any] = []
    end = offset + 4 + int(struct.unpack_from(">I", data, offset)[0])
    offset += 4
    try:
        while offset < end:
            value, offset = _decode_value(data, offset, depth)
            values.append(value)
    except (struct.error, IndexError):
        pass  # as above
    return values, end


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _time(seconds: int) -> str | int:
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return seconds
