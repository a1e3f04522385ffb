"""Looking in the ledger's stream for jobs that a mover which died had brought."""

from __future__ import annotations

from collections.abc import Sequence

from dibs.brokers.rabbitmq.channel import Connection
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.stream import Batch, StreamReader
from dibs.message import now_ms
from dibs.moving.ends import Piece, began

#: Seconds by which the clocks of server and movers may differ.
_SKEW = 600.0


class Proof:
    """What the ledger says of doubtful pieces that have a mark."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._wanted = {piece.id: piece for piece in pieces if piece.mark}
        self._marks = {piece.mark for piece in self._wanted.values()}
        self._begun: set[int] = set()
        #: Ids of those that are stored here, or were.
        self.found: set[str] = set()

    async def search(self, connection: Connection, name: str) -> None:
        """Read the stream from about the time on at which the first of these moves began.

        Raises:
            AMQPError: there is no such stream, or the connection was lost.
        """
        if not self._marks:
            return
        age = max(0.0, now_ms() / 1000 - began(min(self._marks))) + _SKEW
        reader = await StreamReader.open(connection, name, start=f"{age:.0f}s", on_batch=self._read)
        await reader.reach(await reader.end())
        await reader.close()

    def _read(self, batch: Batch) -> None:
        for _, body in batch:
            for entry in entries.decode(body):
                match entry:
                    case entries.Moved(ids, mark) if mark in self._marks:
                        self._begun.add(mark)
                        self.found |= {each for each in ids if self._has(each, mark)}
                    case entries.Ended(id=job) if job in self._wanted:
                        # A run that began behind the move; a late word of an earlier one has an earlier attempt.
                        piece = self._wanted[job]
                        if piece.mark in self._begun and entry.attempt >= piece.message.attempt:
                            self.found.add(job)
                    case _:
                        pass

    def _has(self, job: str, mark: int) -> bool:
        return job in self._wanted and self._wanted[job].mark == mark
