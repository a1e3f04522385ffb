"""Messages that no client library writes and any stranger can send: strategies for their bodies and properties."""

from __future__ import annotations

import gzip
import struct
from typing import NamedTuple

from hypothesis import strategies as st

from tests.raw_amqp import FRAME_BYTES, long, properties, short, table

#: The queues and tasks of `tests/crash/strangers.py`, and names that it does not know.
QUEUES = ("jobs", "plain", "again")
TASKS = (b"nothing", b"anything", b"everything", b"choosy", b"twice", b"no such task", b"\xff\xfe", b"x" * 255)


class Strange(NamedTuple):
    """One message."""

    queue: str
    #: As a header frame has it behind its sizes.
    header: bytes
    body: bytes


_NAMES = st.sampled_from(
    [
        *(f"dibs-{name}".encode() for name in ("attempt", "crashes", "suspect", "due", "expires", "unknown-since")),
        *(f"dibs-{name}".encode() for name in ("error", "reason", "died", "worker", "put", "original", "left-out")),
        *(b"x-death", b"x-delivery-count", b"x-first-death-queue", b"x-last-death-reason", b"BCC", b"traceparent"),
        *(b"x-acquired-count", b"x-match", b"", b"n" * 128, b"n" * 255, b"\xff\xfe", "ä".encode() * 127, b"\x1b[2J"),
    ]
)


def _numbers(letter: bytes, size: int) -> st.SearchStrategy[bytes]:
    """Return values of a type with so many bytes, whatever they mean; often at the ends of its range."""
    ends = st.sampled_from(
        [b"\x00" * size, b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), b"\x80" + b"\x00" * (size - 1)]
    )
    return (ends | st.binary(min_size=size, max_size=size)).map(lambda data: letter + data)


_SIZES = {b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"l": 8, b"T": 8, b"D": 5}
#: RabbitMQ itself refuses a type that it does not know, and a float that is no finite number. It is not asked often:
#: it closes the connection each time.
_REFUSED = [b"L" + b"\xff" * 8, b"U\xff\xff", b"?", b"f" + b"\xff" * 4, b"d" + b"\x7f\xf0" + bytes(6)]

_TEXTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"expired", b"2026-01-01", b"ns.dibs.delay.03", b"-1", b"1e9", b"\xed\xa0\x80", b"\x00", b"t" * 9000]
    ),
)
_LEAVES = st.one_of(
    *(_numbers(letter, size) for letter, size in _SIZES.items()),
    _TEXTS.map(lambda data: b"S" + long(data)),
    st.binary(max_size=40).map(lambda data: b"x" + long(data)),
    st.just(b"V"),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: b"d" + struct.pack(">d", number)),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda number: b"f" + struct.pack(">f", number)),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: b"l" + struct.pack(">q", number)),
)


def _pairs(values: st.SearchStrategy[bytes], *, most: int) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    return st.lists(st.tuples(_NAMES | st.binary(max_size=20), values), max_size=most)


_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda values: b"A" + long(b"".join(values))),
        _pairs(inner, most=4).map(lambda pairs: b"F" + table(pairs)),
    ),
    max_leaves=8,
)


def _nested(letter: bytes, depth: int) -> bytes:
    """Return a value nested so deep."""
    value = b"V"
    for _ in range(depth):
        value = b"A" + long(value) if letter == b"A" else b"F" + table([(b"", value)])
    return value


#: Values of one header that fill a frame, or a reader's stack.
_LARGE = [
    *(b"S" + long(b"x" * size) for size in (40_000, 64_000, 66_000, 100_000, 126_000, 130_000)),
    b"S" + long(b"\xff" * 60_000),  # four times as long when it is written again
    *(_nested(letter, depth) for letter in (b"A", b"F") for depth in (40, 200, 400, 900, 5000)),
    b"A" + long(b"V" * 100_000),
    b"F" + table([(str(number).encode(), b"t\x01") for number in range(9000)]),
]


def _doubled(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return a table that has each name twice, with values of two types."""
    return table([*pairs, *((name, b"V") for name, _ in pairs)])


HEADERS = st.one_of(
    _pairs(_VALUES, most=8).map(table),
    _pairs(_VALUES, most=8).map(table),
    _pairs(_VALUES, most=4).map(_doubled),
    st.tuples(_NAMES, st.sampled_from([*_LARGE, *_REFUSED])).map(lambda pair: table([pair])),
)

_SHORTS = st.one_of(
    st.binary(max_size=255), st.sampled_from([b"", b"1", b"\xff" * 255, b"i" * 255, "é".encode() * 127])
)


def _maybe(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes | None]:
    return st.none() | values


PROPERTIES = st.fixed_dictionaries(
    {
        "content_type": _maybe(_SHORTS.map(short)),
        "content_encoding": _maybe(st.sampled_from([short(b"gzip"), short(b"\xff")])),
        "headers": _maybe(HEADERS),
        "delivery_mode": _maybe(st.sampled_from([b"\x01", b"\x02"])),
        "priority": _maybe(st.sampled_from([b"\x00", b"\x09", b"\xff"])),
        "correlation_id": _maybe(_SHORTS.map(short)),
        "reply_to": _maybe(_SHORTS.map(short)),
        "expiration": _maybe(st.just(short(b"86400000"))),
        "message_id": _maybe(_SHORTS.map(short)),
        "timestamp": _maybe(
            st.sampled_from([b"\x00" * 8, b"\xff" * 8, b"\x80" + b"\x00" * 7, struct.pack(">Q", 10**12)])
        ),
        "type": _maybe(st.sampled_from(TASKS).map(short)),
        "user_id": _maybe(st.just(short(b"guest"))),  # another's is refused
        "app_id": _maybe(st.sampled_from([short(b"dibs"), short(b"other")])),
        "cluster_id": _maybe(_SHORTS.map(short)),
    }
)


def _json(text: str) -> bytes:
    return b'{"args": [' + text.encode() + b"]}"


#: Bodies that a task's may be taken for, or that break readers of JSON.
BODIES = [
    *(b"", b"null", b"[]", b"{}", b"1", b'""', b"{", b"\xff\xfe", b"\x00", b"\x1b[2J", b"\xef\xbb\xbf{}"),
    *(b'{"args": 1}', b'{"args": null}', b'{"args": [1], "kwargs": []}', b'{"args": [1], "kwargs": null}'),
    *(b'{"args": [], "args": [1]}', b'{"kwargs": {"value": 1, "value": 2}}', b'{"kwargs": {"": 1}}'),
    *(b'{"args": [1], "kwargs": {"value": 2}}', b'{"arg": [1]}', b'{"args": [1, 2, 3, 4]}', b'{"kwargs": {"x": 1}}'),
    *map(_json, ("1", "NaN", "-Infinity", "1e999", '"\\u0000"', '"\\ud800"', "9" * 5001, "1." + "0" * 5000, "01")),
    *map(_json, ('1, "2026-01-01T00:00:00Z"', '1, "2026-13-01"', "1.5, 2, 3, 4", '"x", null', "1, 1e400")),
    *(_json("[" * depth + "]" * depth) for depth in (300, 900, 990, 5000, 100_000)),
    *(_json('{"a":' * depth + "1" + "}" * depth) for depth in (300, 900, 990, 5000)),
    b"[" * 200_000,
    gzip.compress(b'{"args": [1]}', mtime=0),
    '{"args": [1]}'.encode("utf-16"),
    b'{"args": ["\xff"]}',
]

BODY = st.one_of(st.sampled_from(BODIES), st.binary(max_size=60))


def _strange(queue: str, values: dict[str, bytes | None], body: bytes) -> Strange:
    return Strange(queue, properties({name: value for name, value in values.items() if value is not None}), body)


#: A larger header than a frame has room for closes the connection before anything of the message is read.
MESSAGES = st.builds(_strange, st.sampled_from(QUEUES), PROPERTIES, BODY).filter(
    lambda message: len(message.header) <= FRAME_BYTES - 8 - 12
)
