"""Reading streams: all of them, from anywhere, to the end that they have when asked, on each release."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from typing import Any, TypeVar

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.brokers.rabbitmq.ledger.stream import Batch, StreamReader, end_of, offset_at
from dibs.brokers.rabbitmq.link import Link
from dibs.errors import AccessRefused, BrokerError
from dibs.url import parse
from tests.rabbit_node import Node
from tests.waiting import PATIENCE, until

_T = TypeVar("_T")

SMALL_SEGMENT = 50_000


class Nobody:
    """Owns a link and wants nothing of it."""

    def on_open(self, connection: Connection) -> None:
        """Do nothing."""

    def on_lost(self, error: BaseException) -> None:
        """Do nothing."""

    def on_refused(self, error: AccessRefused) -> None:
        """Do nothing."""


class Stream:
    """A stream of the test's own, written by a stranger and read by ours."""

    def __init__(self, node: Node) -> None:
        self.name = f"s{secrets.token_hex(4)}"
        self._stranger = pika.BlockingConnection(pika.URLParameters(f"{node.url}%2f"))
        self.channel: BlockingChannel = self._stranger.channel()
        self.link = Link(parse(node.url), "test", Nobody())

    def make(self, **arguments: Any) -> None:
        """Declare it."""
        self.channel.queue_declare(self.name, durable=True, arguments={"x-queue-type": "stream", **arguments})

    def write(self, *bodies: bytes) -> None:
        """Append entries, and wait until they are there."""
        channel = self._stranger.channel()
        channel.confirm_delivery()
        for body in bodies[:-1]:
            self.channel.basic_publish("", self.name, body)
        # Of two channels' messages neither need come first: this one goes when the others were taken.
        self.channel.queue_declare(self.name, passive=True)
        channel.basic_publish("", self.name, bodies[-1])
        channel.close()

    def run(self, work: Callable[[Connection], Coroutine[Any, Any, _T]]) -> _T:
        """Run on the I/O thread."""
        return self.link.run(work, PATIENCE, "testing")

    def end(self) -> int:
        """Return where it ends."""
        return self.run(lambda connection: end_of(connection, self.name))

    def read(self, start: int | str = "first") -> list[tuple[int, bytes]]:
        """Return all that is there from some place on."""
        got: Batch = []

        async def read(connection: Connection) -> None:
            end = await end_of(connection, self.name)
            reader = await StreamReader.open(connection, self.name, start=start, on_batch=got.extend)
            await reader.reach(end)
            await reader.close()

        self.run(read)
        return got

    def close(self) -> None:
        """Delete it."""
        self.link.close()
        self.channel.queue_delete(self.name)
        self._stranger.close()


@pytest.fixture
def stream(each_rabbit_node: Node) -> Iterator[Stream]:
    """A stream in each release in turn."""
    with closing(Stream(each_rabbit_node)) as made:
        made.make()
        yield made


def test_an_empty_stream_has_its_end_at_once(stream: Stream) -> None:
    assert stream.end() == 0
    assert stream.read() == []


def test_all_is_read_in_order_and_the_end_is_that_of_the_moment(stream: Stream) -> None:
    bodies = [b"%d" % number for number in range(30_000)]

    stream.write(*bodies)

    assert stream.end() == len(bodies)
    got = stream.read()
    assert [offset for offset, _ in got] == list(range(len(bodies)))
    assert sorted(body for _, body in got) == sorted(bodies)
    assert [offset for offset, _ in stream.read(29_990)] == list(range(29_990, 30_000))


@pytest.mark.parametrize("size", [0, 1, 131_063, 131_064, 131_065, 600_000])
def test_a_body_comes_whole_however_long_it_is(stream: Stream, size: int) -> None:
    body = secrets.token_bytes(size)

    stream.write(body, b"next")

    assert stream.read() == [(0, body), (1, b"next")]


def test_a_reader_goes_on_live_while_other_channels_of_its_connection_work(stream: Stream) -> None:
    got: Batch = []
    stream.write(b"first")

    async def begin(connection: Connection) -> StreamReader:
        return await StreamReader.open(connection, stream.name, start="first", on_batch=got.extend)

    async def work(connection: Connection) -> tuple[int, bytes]:
        channel = await Channel.open(connection)
        queue = (await channel.call(channel.raw.queue_declare, queue="", exclusive=True)).queue
        channel.raw.basic_publish("", queue, b"for the other channel")
        while (message := await channel.get(queue)) is None:
            await asyncio.sleep(0.01)
        await channel.close()
        return 0, message[2]

    reader = stream.run(begin)
    for number in range(5):
        stream.write(b"%d" % number * 1000)
        assert stream.run(work) == (0, b"for the other channel")

    until(lambda: len(got) == 6)
    assert [offset for offset, _ in got] == list(range(6))
    stream.run(lambda _: reader.close())


def test_reading_begins_where_the_server_still_has_entries_and_says_what_it_missed(each_rabbit_node: Node) -> None:
    with closing(Stream(each_rabbit_node)) as stream:
        stream.make(**{"x-max-length-bytes": 2 * SMALL_SEGMENT, "x-stream-max-segment-size-bytes": SMALL_SEGMENT})
        for _ in range(12):
            stream.write(*[b"x" * 500] * 100)

        def first() -> int:
            return stream.run(lambda connection: offset_at(connection, stream.name, "first")) or 0

        until(lambda: first() > 100)
        end, got = stream.end(), list[tuple[int, bytes]]()

        async def read(connection: Connection) -> int:
            reader = await StreamReader.open(connection, stream.name, start=50, on_batch=got.extend)
            await reader.reach(end)
            await reader.close()
            return reader.missed

        missed = stream.run(read)

    assert got[-1][0] == end - 1
    assert len(got) < 1200 <= end
    assert missed == got[0][0] - 50 > 0


def test_what_was_said_before_a_time_is_passed_over(stream: Stream) -> None:
    stream.write(b"old")

    assert stream.run(lambda connection: offset_at(connection, stream.name, "3600s")) == 0
    until(lambda: stream.run(lambda connection: offset_at(connection, stream.name, "1s")) is None)
    stream.write(b"new")
    assert stream.run(lambda connection: offset_at(connection, stream.name, "1s")) == 1


def test_a_stream_that_is_deleted_under_its_reader_ends_it(stream: Stream) -> None:
    ended: list[BaseException] = []

    async def begin(connection: Connection) -> StreamReader:
        return await StreamReader.open(
            connection, stream.name, start="first", on_batch=lambda _: None, on_closed=ended.append
        )

    reader = stream.run(begin)

    stream.channel.queue_delete(stream.name)

    until(lambda: len(ended) == 1)
    assert not reader.is_open


def test_a_stream_that_does_not_exist_is_an_error_and_costs_others_nothing(stream: Stream) -> None:
    stream.write(b"here")

    with pytest.raises(BrokerError, match="nothing of that name"):
        stream.run(lambda connection: end_of(connection, "no such stream"))

    assert stream.read() == [(0, b"here")]
