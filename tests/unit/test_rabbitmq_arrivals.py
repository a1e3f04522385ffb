"""What is delivered is cut out of a connection's bytes, in batches, however the bytes are cut."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import cast

import pytest

from dibs.brokers.rabbitmq.arrivals import REFUSED, Arrival, Arrivals
from dibs.brokers.rabbitmq.channel import Channel
from dibs.brokers.rabbitmq.sieve import Sieve

CONSUMED, OTHER = 1, 2
PROPERTIES = b"\x08\x00\x04dibs"


class Line:
    """A connection and its channel CONSUMED, as far as arrivals know them."""

    def __init__(self) -> None:
        self.sieve: Callable[[bytes], bytes] | None = None
        self.connection = self.raw = self
        self.channel_number = CONSUMED
        self.rejected: list[int] = []
        self.on_close: list[Callable[[object], None]] = []
        self.batches: list[list[Arrival]] = []
        self.arrivals = Arrivals(cast("Channel", self), self.batches.append)

    def take_received(self) -> bytes:
        return b""

    def read_much(self) -> None:
        pass

    def watch(self, on_close: Callable[[object], None]) -> None:
        self.on_close.append(on_close)

    def basic_reject(self, tag: int) -> None:
        self.rejected.append(tag)

    def feed(self, data: bytes) -> bytes:
        assert isinstance(self.sieve, Sieve)
        return self.sieve(data)


@pytest.fixture
def line() -> Line:
    line = Line()
    line.arrivals.expect("a-1", "a", 7)
    return line


def frame(kind: int, payload: bytes, channel: int = CONSUMED) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def delivery(tag: int, *pieces: bytes, consumer: bytes = b"a-1", flags: int = 0, channel: int = CONSUMED) -> bytes:
    method = bytes((len(consumer),)) + consumer + struct.pack(">QB", tag, flags) + b"\x04dibs\x01a"
    header = b"\x00\x3c\x00\x00" + struct.pack(">Q", sum(map(len, pieces))) + PROPERTIES
    parts = [(1, b"\x00\x3c\x00\x3c" + method), (2, header), *((3, piece) for piece in pieces)]
    return b"".join(frame(kind, payload, channel) for kind, payload in parts)


def test_what_is_received_at_once_is_handed_on_at_once(line: Line) -> None:
    left = line.feed(b"".join(delivery(tag, b"body") for tag in range(1, 101)))

    assert left == b""
    assert [[arrival.tag for arrival in batch] for batch in line.batches] == [list(range(1, 101))]


def test_a_delivery_says_how_it_came(line: Line) -> None:
    line.feed(delivery(300, b"bo", b"dy", flags=1) + delivery(301))

    assert line.batches == [
        [Arrival("a", 7, 300, True, PROPERTIES, b"body"), Arrival("a", 7, 301, False, PROPERTIES, b"")]
    ]


def test_bytes_may_be_cut_anywhere_and_what_is_no_delivery_is_passed_on(line: Line) -> None:
    others = [frame(1, b"\x00\x3c\x00\x15\x03a-1"), frame(8, b"", 0), delivery(9, b"theirs", channel=OTHER)]
    data = others[0] + delivery(1, b"x" * 50) + others[1] + delivery(2, b"y") + others[2]

    for cut in range(len(data) + 1):
        line.batches.clear()
        left = line.feed(data[:cut]) + line.feed(data[cut:])

        assert [arrival.body for batch in line.batches for arrival in batch] == [b"x" * 50, b"y"]
        assert left == b"".join(others)


def test_what_comes_by_a_subscription_that_is_being_cancelled_is_marked_and_then_given_back(line: Line) -> None:
    line.arrivals.expect("a-2", "a", 8)

    line.arrivals.refuse("a-1")
    line.feed(delivery(1, b"old") + delivery(2, b"new", consumer=b"a-2"))
    line.arrivals.forget("a-1")
    line.feed(delivery(3, b"old"))

    assert line.rejected == [3]
    assert [[(arrival.subscription, arrival.tag) for arrival in batch] for batch in line.batches] == [
        [(REFUSED, 1), (8, 2)]
    ]


def test_a_closed_channel_is_no_longer_listened_to(line: Line) -> None:
    for on_close in line.on_close:
        on_close(None)

    left = line.feed(delivery(1, b"body"))

    assert left == delivery(1, b"body")
    assert line.batches == []
    assert line.sieve is None
