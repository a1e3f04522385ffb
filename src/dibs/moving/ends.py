"""The two ends of a move, as protocols, and what travels between them. `tests/crash/test_moving.py` is their meaning.

    source                                   target
    take: held, and marked for good ───────► store: on disk, with a proof that it came by this move
    let_go: gone from here          ◄─────── (only then)
                                    ───────► forget: the proof is no longer needed

A mover that dies leaves its last batch marked, or has it go back to where it was. Whoever moves next meets these
pieces as doubtful, and asks the target for the proof before it sends them.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from dibs.message import Message, now_ms
from dibs.outcome import DeadLetter

#: What is carried. Running jobs stay with their worker.
State = Literal["ready", "delayed", "dead"]


#: The most messages of a batch, and about how many bytes it has at the most.
BATCH, BATCH_BYTES = 500, 8 * 1024 * 1024
#: A message over this size is a batch of its own: should the target's own limit be lower than we know, it closes what
#: it comes by, and leaves others in doubt.
_LARGE_BYTES = 1024 * 1024
#: A mark is a time in this many ms, so that it has 38 bits.
_MARK_MS = 10


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way."""

    message: Message
    #: What is said of it, if it is dead.
    letter: DeadLetter | None = None
    #: How the source holds it. Made and read there alone.
    hold: Any
    #: Names the move that took it first; 0: the source has no marks.
    mark: int = 0
    #: It was in somebody's hands before, who may have been a mover: it may be in the target already.
    is_doubtful: bool = False
    #: Its sender gave it no id, so it has another one each time that it is taken.
    is_nameless: bool = False

    @property
    def id(self) -> str:
        """The job's."""
        return self.message.id


def new_mark() -> int:
    """Return what names a move that begins now."""
    return now_ms() // _MARK_MS


def began(mark: int) -> float:
    """Return when the move of this mark began, in seconds since 1970."""
    return mark * _MARK_MS / 1000


def apart(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces in order, the large ones alone."""
    batch: list[Piece] = []
    for piece in pieces:
        if len(piece.message.body) > _LARGE_BYTES:
            if batch:
                yield batch
            yield [piece]
            batch = []
        else:
            batch.append(piece)
    if batch:
        yield batch


class Arrivals(msgspec.Struct, frozen=True):
    """What a target knows of doubtful pieces."""

    #: Ids of those that are stored there, or were.
    ids: frozenset[str]
    #: The others are certainly not there; else nobody can tell.
    is_sure: bool


class Source(Protocol):
    """Where jobs are taken from. Used by one thread."""

    @property
    def place(self) -> str:
        """What `Sink.is_at` recognises this very store by, however its URL is spelled."""
        ...

    @property
    def mark(self) -> int:
        """What this move marks pieces with; 0: it has no marks."""
        ...

    def begin(self) -> None:
        """Keep other movers out until `close`.

        Raises:
            BrokerBusy: there is one.
        """
        ...

    def queues(self, names: Collection[str]) -> dict[str, dict[State, int | None]]:
        """Return how many messages each queue has to carry, by state; None: can't be counted.

        Args:
            names: those that are meant; empty: all that can be found.

        Raises:
            UnknownQueue: one of `names` does not exist.
        """
        ...

    def running(self, queues: Collection[str]) -> dict[str, int | None]:
        """Return how many jobs of these queues workers have in hand; None: can't be counted."""
        ...

    def doubtful(self, queues: Collection[str]) -> Generator[list[Piece]]:
        """Yield, in batches, what movers that died had marked. Empty where marks don't outlive them."""
        ...

    def take(self, queues: Sequence[str], state: State) -> Generator[list[Piece]]:
        """Yield batches of what is in that state, out of others' sight, until there is no more, or stragglers only.

        When it ends or is closed, what was neither let go of nor left in doubt goes back to where it was.
        """
        ...

    def let_go(self, pieces: Sequence[Piece]) -> Collection[str]:
        """Remove pieces for good: they are stored in the target. Returns ids of those that were cancelled here."""
        ...

    def give_back(self, pieces: Sequence[Piece]) -> None:
        """Have pieces that can't be stored in the target be as they were, not before the present walk ends."""
        ...

    def leave_in_doubt(self, pieces: Sequence[Piece]) -> None:
        """Leave pieces to whoever moves next: nobody can tell whether they are stored in the target."""
        ...

    def close(self) -> None:
        """Give everything back that is still held, and let go. Safe to call twice."""
        ...


class Sink(Protocol):
    """Where jobs are brought. Used by one thread."""

    def is_at(self, place: str) -> bool:
        """Tell whether this is the store that has this `Source.place`."""
        ...

    def begin(self, mark: int) -> None:
        """Be ready to prove what comes by the move of this mark; 0: there will be no need."""
        ...

    def arrived(self, pieces: Sequence[Piece]) -> Arrivals:
        """Return which of these doubtful pieces are stored here."""
        ...

    def store(self, pieces: Sequence[Piece]) -> dict[str, str]:
        """Store pieces as they are: ready, delayed until they are due, or dead. Those that are here already stay.

        Returns why pieces can't be stored here, by id; those are not, and all others are, on disk.

        Raises:
            BrokerError: nothing was stored, or `HandoverUncertain`: names those that may be; the others are.
        """
        ...

    def forget(self, pieces: Sequence[Piece]) -> None:
        """Drop the proof that these came: the source has let go of them."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@runtime_checkable
class Movable(Protocol):
    """A broker that jobs can be carried from and to."""

    def source(self) -> Source:
        """Return it as the source of a move."""
        ...

    def sink(self) -> Sink:
        """Return it as the target of a move."""
        ...
