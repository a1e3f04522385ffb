"""What a move has done so far: counts by queue and state, and the ids of those that need a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from dibs.moving.ends import Piece, State

#: In the order in which they are shown.
STATES: tuple[State, ...] = ("ready", "delayed", "dead")


class Refused(msgspec.Struct, frozen=True):
    """A message that the target can't take. It stays in the source."""

    id: str
    queue: str
    why: str


class Tally:
    """Counts what one mover does."""

    def __init__(self) -> None:
        #: Stored in the target and gone from the source, by queue and state.
        self.moved: Counter[tuple[str, State]] = Counter()
        #: Found in the target, where a mover that died had brought them; gone from the source now.
        self.arrived: Counter[tuple[str, State]] = Counter()
        #: Sent though nobody can tell whether a mover that died had sent them.
        self.possibly_twice: list[str] = []
        #: Nobody can tell whether the target has them: the next run looks.
        self.in_doubt: list[str] = []
        self.refused: dict[str, Refused] = {}

    @property
    def total(self) -> int:
        """How many were carried in all."""
        return self.moved.total() + self.arrived.total()

    def count(self, counter: Counter[tuple[str, State]], pieces: Sequence[Piece], state: State | None) -> None:
        """Count pieces of that state; None: of whatever state each has."""
        counter.update((piece.message.queue, state or state_of(piece)) for piece in pieces)

    def rows(self, queues: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a line for each of these queues and states that anything was carried of, or is left.

        Args:
            queues: how many messages of each state are in the source now, by queue.
        """
        return [
            {
                "queue": queue,
                "state": state,
                "moved": self.moved[queue, state] + self.arrived[queue, state],
                "left": left[state],
            }
            for queue, left in sorted(queues.items())
            for state in STATES
            if self.moved[queue, state] or self.arrived[queue, state] or left[state]
        ]


def state_of(piece: Piece) -> State:
    """Return the state in which a piece will be stored, but for the time that it takes."""
    if piece.letter is not None:
        return "dead"
    return "ready" if piece.message.due is None else "delayed"
