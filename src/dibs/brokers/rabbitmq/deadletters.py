"""The dead letters of a queue: looked at, put back, deleted. They lie in a queue of the server like any other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

from dibs.brokers.rabbitmq import wire
from dibs.brokers.rabbitmq.flight import flight_of
from dibs.brokers.rabbitmq.ledger.entries import Dropped, Entry, Replayed
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.topology import Names
from dibs.brokers.rabbitmq.walk import Hold, Walk
from dibs.message import now_ms
from dibs.outcome import DeadLetter
from dibs.selection import Selection


class DeadLetters:
    """Those of one queue."""

    def __init__(
        self,
        walk: Callable[..., Walk],
        names: Names,
        publisher: Callable[[], Publisher],
        record: Callable[[Entry], None],
        timeout: float,
    ) -> None:
        """Look at nothing yet.

        Args:
            walk: begins a walk along them; `deletes=` says what for.
            names: of the namespace.
            publisher: puts back what is replayed.
            record: tells the ledger.
            timeout: seconds that handing a batch over may take.
        """
        self._walk = walk
        self._names = names
        self._publisher = publisher
        self._record = record
        self._timeout = timeout

    def each(self, selection: Selection, *, after: str | None) -> Generator[DeadLetter]:
        """Yield those that are meant, from behind `after`; from the oldest if that is not there any more.

        An id may be there twice (see `replay`). Behind `after` an id that stands before it is left out, or going
        on page by page could turn in a circle.
        """
        passed: set[str] = set()
        with self._walk(deletes=False) as walk:
            for batch in walk.batches():
                for _, received in batch:
                    job_id = received.message.id
                    if after is not None and after not in passed:
                        passed.add(job_id)
                    elif job_id not in passed and selection.fits(received.letter):
                        yield received.letter
        if after is not None and after not in passed:
            yield from self.each(selection, after=None)

    def replay(self, selection: Selection) -> int:
        """Publish those that are meant to their queue, batch by batch, and delete each batch behind its confirm.

        A crash in between leaves some both ready and dead; none is lost.
        """
        replayed: set[str] = set()  # a job that dies again at once is met again, and stays
        with self._walk(deletes=True) as walk:
            for batch in walk.batches():
                chosen: dict[str, tuple[Hold, wire.Received]] = {}
                for hold, received in batch:
                    if received.message.id not in replayed and selection.fits(received.letter):
                        chosen.setdefault(received.message.id, (hold, received))
                if chosen:
                    messages = [wire.without_history(received.message) for _, received in chosen.values()]
                    self._publisher().hand_over(flight_of(messages, self._names), self._timeout)
                    for queue, ids in _by_queue(received for _, received in chosen.values()):
                        self._record(Replayed(ids, queue, now_ms()))
                    walk.delete([hold for hold, _ in chosen.values()])
                    replayed.update(chosen)
        return len(replayed)

    def drop(self, selection: Selection) -> int:
        """Delete those that are meant."""
        count = 0
        with self._walk(deletes=True) as walk:
            for batch in walk.batches():
                chosen = [(hold, received) for hold, received in batch if selection.fits(received.letter)]
                walk.delete([hold for hold, _ in chosen])
                for queue, ids in _by_queue(received for _, received in chosen):
                    self._record(Dropped(ids, queue, now_ms()))
                count += len(chosen)
        return count


def _by_queue(letters: Iterable[wire.Received]) -> Iterable[tuple[str, list[str]]]:
    """Return ids by their queues: those that a delay could not bring to theirs lie together."""
    found: dict[str, list[str]] = {}
    for received in letters:
        found.setdefault(received.message.queue, []).append(received.message.id)
    return found.items()
