"""The mover: batch by batch from one broker to the other, each job in the one, in the other, or in doubt and said so.

It holds one batch at a time. Killed at any moment it leaves that batch doubtful for the next one, who asks the target
which of it came; what the target can't tell is sent again, and named before it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing

from dibs.broker import Broker, Queue
from dibs.errors import BrokerError, HandoverUncertain, UsageError
from dibs.moving.ends import Movable, Piece, Sink, Source, State
from dibs.moving.tally import Refused, Tally

#: Ready ones a second time: what was delayed may have become ready while the delayed were on their way.
_ORDER: tuple[State, ...] = ("ready", "delayed", "ready", "dead")
#: Seconds between looks at the source, where it is waited for.
_PAUSE = 0.5


class Mover:
    """Carries jobs between two brokers, once."""

    def __init__(
        self,
        origin: Broker,
        target: Broker,
        *,
        types: Mapping[str, Queue],
        on_doubt: Callable[[Sequence[Piece]], None],
        on_progress: Callable[[Tally], None],
    ) -> None:
        """Touch nothing yet.

        Args:
            origin: where the jobs are.
            target: where they are to be.
            types: how queues are to be made in the target, where that is known.
            on_doubt: is called with pieces before they are sent, perhaps a second time.
            on_progress: is called after each batch.

        Raises:
            UsageError: one of the two is no place that other processes see.
        """
        for broker in (origin, target):
            if not isinstance(broker, Movable):
                raise UsageError(f"{broker.location} is in one process alone: there is nothing to move from or to.")
        self._origin, self._target = origin, target
        self._types = types
        self._on_doubt, self._on_progress = on_doubt, on_progress
        self._made: set[str] = set()
        self._stopped = threading.Event()
        self.tally = Tally()

    def stop(self) -> None:
        """End after the batch that is under way. May be called from a signal handler."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def look(self, names: Collection[str]) -> tuple[dict[str, dict[State, int | None]], dict[str, int | None]]:
        """Return what there is to carry, by queue and state, and how many jobs of each queue are running.

        Raises:
            UnknownQueue: one of `names` does not exist.
            UsageError: source and target are the same.
        """
        with closing(_source(self._origin)) as source, closing(_sink(self._target)) as sink:
            _check_apart(self._origin, source, sink)
            queues = source.queues(names)
            return queues, source.running(queues)

    def run(self, names: Collection[str], *, waits: bool = False, follows: bool = False) -> None:
        """Carry all that waits, is delayed or is dead.

        Args:
            names: of the queues that are meant; empty: all that the source can list.
            waits: go on until nothing of these queues is running in the source.
            follows: go on until `stop`.

        Raises:
            BrokerError: it can't go on. All that was not carried is in the source, or in `Tally.in_doubt`.
            UnknownQueue, UsageError: as `look` does; and what runs is to be waited for but can't be counted.
        """
        with closing(_source(self._origin)) as source, closing(_sink(self._target)) as sink:
            _check_apart(self._origin, source, sink)
            source.begin()
            queues = sorted(source.queues(names))
            if waits and None in source.running(queues).values():
                raise UsageError(
                    f"{self._origin.location} can't tell what is running, so that can't be waited for. Stop its "
                    "workers, then run this again without --wait."
                )
            sink.begin(source.mark)
            self._pause_alike(queues)
            for pieces in source.doubtful(queues):
                self._carry(source, sink, pieces, None)
                if self.is_stopped:
                    return
            while not self._round(source, sink, queues):
                if not (follows or (waits and any(source.running(queues).values()))):
                    return
                self._stopped.wait(_PAUSE)
                queues = sorted(source.queues(names))

    def _round(self, source: Source, sink: Sink, queues: Sequence[str]) -> bool:
        """Carry what is there now; tell whether to stop."""
        for state in _ORDER:
            with closing(source.take(queues, state)) as batches:
                for pieces in batches:
                    self._carry(source, sink, pieces, state)
                    if self.is_stopped:
                        return True
        return self.is_stopped

    def _pause_alike(self, queues: Sequence[str]) -> None:
        """Pause in the target what is paused in the source, before anything of it can start there."""
        for info in self._origin.queues(queues):
            if info.is_paused and info.name in queues:
                self._target.pause(info.name)

    def _carry(self, source: Source, sink: Sink, pieces: Sequence[Piece], state: State | None) -> None:
        self._make_queues(pieces)
        rest = self._settle_doubts(source, sink, pieces, state)
        if rest:
            self._store(source, sink, rest, state)
        self._on_progress(self.tally)

    def _settle_doubts(
        self, source: Source, sink: Sink, pieces: Sequence[Piece], state: State | None
    ) -> Sequence[Piece]:
        """Let go of those that are in the target already; return the others, and name those that may be."""
        doubtful = [piece for piece in pieces if piece.is_doubtful]
        if not doubtful:
            return pieces
        known = sink.arrived(doubtful)
        there = [piece for piece in doubtful if piece.id in known.ids]
        if there:
            self._let_go(source, sink, there)
            self.tally.count(self.tally.arrived, there, state)
        rest = [piece for piece in pieces if not (piece.is_doubtful and piece.id in known.ids)]
        unknown = [piece for piece in rest if piece.is_doubtful and (piece.is_nameless or not known.is_sure)]
        if unknown:
            self._on_doubt(unknown)
            self.tally.possibly_twice += [piece.id for piece in unknown]
        return rest

    def _store(self, source: Source, sink: Sink, pieces: Sequence[Piece], state: State | None) -> None:
        try:
            refused = sink.store(pieces)
        except HandoverUncertain as error:
            uncertain = [piece for piece in pieces if piece.id in error.ids]
            self._leave(source, uncertain)
            self._finish(source, sink, [piece for piece in pieces if piece.id not in error.ids], state)
            raise
        except BrokerError:
            raise  # nothing was stored: it goes back
        except BaseException:
            self._leave(source, pieces)
            raise
        for piece in pieces:
            if piece.id in refused:
                self.tally.refused[piece.id] = Refused(piece.id, piece.message.queue, refused[piece.id])
        source.give_back([piece for piece in pieces if piece.id in refused])
        self._finish(source, sink, [piece for piece in pieces if piece.id not in refused], state)

    def _finish(self, source: Source, sink: Sink, stored: Sequence[Piece], state: State | None) -> None:
        if not stored:
            return
        try:
            self._let_go(source, sink, stored)
        except BaseException:
            self._leave(source, stored)
            raise
        self.tally.count(self.tally.moved, stored, state)

    def _let_go(self, source: Source, sink: Sink, stored: Sequence[Piece]) -> None:
        """Remove from the source what the target has, and carry along that it was cancelled meanwhile."""
        if cancelled := source.let_go(stored):
            self._target.cancel(cancelled)
        sink.forget(stored)

    def _leave(self, source: Source, pieces: Sequence[Piece]) -> None:
        source.leave_in_doubt(pieces)
        self.tally.in_doubt += [piece.id for piece in pieces]

    def _make_queues(self, pieces: Sequence[Piece]) -> None:
        """Make the queues that pieces go to; one of plain messages as strangers make theirs."""
        for piece in pieces:
            name = piece.message.queue
            if name not in self._made:
                made = Queue(name=name, type="classic" if piece.message.task is None else "quorum")
                self._target.declare([self._types.get(name, made)])
                self._made.add(name)


def _check_apart(origin: Broker, source: Source, sink: Sink) -> None:
    if sink.is_at(source.place):
        raise UsageError(f"Both URLs lead to {origin.location}: there is nothing to move.")


def _source(broker: Broker) -> Source:
    assert isinstance(broker, Movable)  # checked when the mover was made
    return broker.source()


def _sink(broker: Broker) -> Sink:
    assert isinstance(broker, Movable)
    return broker.sink()
