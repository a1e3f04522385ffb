"""Looks for the ends of some jobs in the ledger's stream, without an index: in memory, while somebody waits.

One reader follows the stream live. What may have ended before is looked for in rounds: each reads once from the
earliest place that is wanted to the end, for all jobs that were named meanwhile. On a connection's I/O thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

from pika import exceptions

from dibs.brokers.rabbitmq import faults
from dibs.brokers.rabbitmq.channel import Connection
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.entries import Ended, Replayed
from dibs.brokers.rabbitmq.ledger.stream import Batch, StreamReader, end_of, offset_at
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.message import now_ms

#: Seconds that are read besides, so that no age is too young by a rounding.
_SLACK = 5
#: How long the stream is followed though nobody waits, and how long a round waits for others.
_IDLE, _GATHERED_WITHIN = 5.0, 0.01
#: How long to wait before trying again what the server did not let be done.
_PAUSE = 1.0


class Lookout:
    """What one process looks for. It comes through lost connections: the next one reads what was missed."""

    def __init__(
        self,
        streams: Streams,
        on_ended: Callable[[Ended], None],
        on_refused: Callable[[Collection[str], BaseException], None],
    ) -> None:
        """Look for nothing yet.

        Args:
            streams: of the namespace.
            on_ended: is called for each end of a job that is looked for.
            on_refused: is called with the jobs that can't be looked for: there is no stream, or this user may not
                read it.
        """
        self._streams = streams
        self._stream = streams.names.ledger
        self._on_ended = on_ended
        self._on_refused = on_refused
        #: Each with since when it may have ended, in ms since 1970, or with the offset behind which it has.
        self._wanted: dict[str, tuple[int, int | None]] = {}
        #: Those of them that the next round looks for.
        self._fresh: set[str] = set()
        self._connection: Connection | None = None
        self._live: StreamReader | None = None
        self._round: asyncio.Task[None] | None = None
        #: What a round found: it may come to a replay of it.
        self._found: dict[str, Ended] = {}
        self._idle: asyncio.TimerHandle | None = None

    def look_for(self, id: str, *, since: int, offset: int | None = None) -> None:  # noqa: A002 -- the API's word
        """Look for the end of a job, until it is found or `forget` is called.

        Args:
            id: the job's.
            since: it has not ended before this time, by this machine's clock.
            offset: nor before this entry of the stream, if that is known.
        """
        if id not in self._wanted or offset is not None:
            self._wanted[id] = since, offset
        self._fresh.add(id)
        self._begin()

    def forget(self, id: str) -> None:  # noqa: A002
        """Look for it no more."""
        self._wanted.pop(id, None)
        self._fresh.discard(id)
        self._rest()

    def on_open(self, connection: Connection) -> None:
        """Go on by this connection, from where it was not followed any more."""
        self._connection = connection
        self._fresh.update(self._wanted)
        self._begin()

    def on_lost(self) -> None:
        """Do without a connection."""
        self._connection = self._live = None
        if self._round is not None:
            self._round.cancel()
            self._round = None

    def _begin(self) -> None:
        if self._fresh and self._connection is not None and self._round is None:
            self._round = asyncio.get_running_loop().create_task(self._look(self._connection))

    async def _look(self, connection: Connection) -> None:
        """Look through what may have been missed, round after round, until nothing new is wanted."""
        pause = _GATHERED_WITHIN
        while self._fresh and connection.is_open:
            await asyncio.sleep(pause)
            looked, self._fresh = self._fresh, set()
            try:
                await self._look_through(connection, looked)
                pause = _GATHERED_WITHIN
            except exceptions.AMQPError as error:
                why = error if faults.code_of(error) == faults.ACCESS_REFUSED else self._streams.absence
                if why is not None:
                    for job_id in looked:
                        self._wanted.pop(job_id, None)
                    self._on_refused(looked, why)
                    continue
                self._fresh |= looked & self._wanted.keys()
                pause = _PAUSE
        self._round = None
        self._rest()

    async def _look_through(self, connection: Connection, looked: set[str]) -> None:
        wanted = [self._wanted[job_id] for job_id in looked if job_id in self._wanted]
        if not wanted:
            return
        end = await end_of(connection, self._stream)
        offsets = [offset for _, offset in wanted if offset is not None]
        start = min(offsets, default=end)
        if len(offsets) < len(wanted):
            # By age, as the server has a clock of its own.
            age = _SLACK + (now_ms() - min(since for since, offset in wanted if offset is None)) // 1000
            found = await offset_at(connection, self._stream, f"{max(_SLACK, age)}s")
            start = start if found is None else min(start, found)
        self._found.clear()
        reader = await StreamReader.open(connection, self._stream, start=start, on_batch=self._take_old)
        await reader.reach(end)
        for entry in tuple(self._found.values()):
            self._tell(entry)
        self._found.clear()
        if self._live is None or not self._live.is_open:
            self._live = reader
            reader.on_batch = self._take_live
        else:
            await reader.close()

    def _take_old(self, batch: Batch) -> None:
        for _, body in batch:
            for entry in entries.decode(body):
                if isinstance(entry, Ended):
                    if entry.id in self._wanted and entry.is_final:
                        self._found.setdefault(entry.id, entry)
                elif isinstance(entry, Replayed):
                    for job_id in entry.ids:
                        self._found.pop(job_id, None)

    def _take_live(self, batch: Batch) -> None:
        wanted = self._wanted
        for _, body in batch:
            for entry in entries.decode(body):
                if isinstance(entry, Ended) and entry.id in wanted and entry.is_final:
                    self._tell(entry)

    def _tell(self, entry: Ended) -> None:
        if entry.id in self._wanted:
            self.forget(entry.id)
            self._on_ended(entry)

    def _rest(self) -> None:
        """Follow the stream no more if nobody waits for a while."""
        if not self._wanted and self._idle is None and self._live is not None:
            self._idle = asyncio.get_running_loop().call_later(_IDLE, self._stop)

    def _stop(self) -> None:
        self._idle = None
        reader = self._live
        if not self._wanted and reader is not None and self._round is None:
            self._live = None
            self._round = asyncio.get_running_loop().create_task(self._close(reader))

    async def _close(self, reader: StreamReader) -> None:
        with contextlib.suppress(exceptions.AMQPError):
            await reader.close()
        self._round = None
        self._begin()
