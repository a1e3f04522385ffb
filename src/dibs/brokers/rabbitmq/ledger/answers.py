"""What is said to processes that wait: a message to the reply queue of each, sent once, and nobody sees to it.

Who misses one finds what it waits for in the ledger. On the publisher's I/O thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from pika import exceptions

from dibs.brokers.rabbitmq import faults, fields
from dibs.brokers.rabbitmq.channel import Channel, Connection, Letter

_log = logging.getLogger("dibs.rabbitmq")

#: So many wait at the most while the channel is opened.
_MOST = 1000


class Answer(NamedTuple):
    """A message to one process."""

    #: Its reply queue.
    queue: str
    body: bytes
    #: What its question was marked with.
    correlation_id: str | None = None


class Answers:
    """Those of one connection at a time, by a channel of their own: what befalls it befalls nothing else."""

    def __init__(self, exchange: str) -> None:
        """Begin without a connection.

        Args:
            exchange: leads to the reply queues. Who waits has made it.
        """
        self._exchange = exchange
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._waiting: deque[Answer] = deque(maxlen=_MOST)
        self._opening: asyncio.Task[None] | None = None
        self._is_refused = False

    def on_open(self, connection: Connection) -> None:
        """Send by this connection from now on."""
        self._connection, self._channel, self._is_refused = connection, None, False

    def send(self, answers: Iterable[Answer]) -> None:
        """Send what can be sent now, or in a moment."""
        self._waiting.extend(answers)
        if not self._waiting or self._connection is None or self._is_refused:
            self._waiting.clear()
        elif self._channel is not None and self._channel.is_open:
            self._flush(self._channel)
        elif self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._open(self._connection))

    async def _open(self, connection: Connection) -> None:
        try:
            channel = await Channel.open(connection)
        except exceptions.AMQPError:
            self._waiting.clear()  # the connection is lost
            return
        channel.watch(self._on_channel_closed)
        self._channel = channel
        self._flush(channel)

    def _flush(self, channel: Channel) -> None:
        letters = []
        for answer in self._waiting:
            header = fields.encode({"app_id": "dibs", "correlation_id": answer.correlation_id})
            letters.append(Letter(self._exchange, answer.queue, header, answer.body, ""))
        self._waiting.clear()
        channel.connection.write(channel.frames(letters, is_mandatory=False))

    def _on_channel_closed(self, reason: Exception) -> None:
        self._channel = None
        if faults.code_of(reason) == faults.ACCESS_REFUSED:
            self._is_refused = True
            _log.warning(
                "Processes that wait for results are not told at once: this user may not write to %s. error=%s",
                self._exchange,
                faults.text_of(reason),
            )
