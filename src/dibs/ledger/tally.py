"""Sums up a batch of outcomes by queue and minute, for whoever keeps the statistics. Knows no store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dibs.ledger.statistics import MINUTE, Minute
from dibs.message import Delivery
from dibs.outcome import Cancelled, Dead, Done, Outcome, RetryIn

#: The places of an outcome's count in a sum.
KINDS = {"done": 0, "retry": 1, "dead": 2, "cancelled": 3}
_OUTCOMES: dict[type, int] = {Done: 0, RetryIn: 1, Dead: 2, Cancelled: 3}
_RUNS, _RAN, _WAITS, _WAITED, _LONGEST = 4, 5, 6, 7, 8
_FIELDS = 9


class Tally:
    """What a batch comes to."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, str], list[int]] = {}

    def add(
        self, queue: str, outcome: str, at: int, *, started: int | None, ended: int | None, since: int | None
    ) -> None:
        """Count one outcome.

        Args:
            queue: its job's.
            outcome: "done", "retry", "dead" or "cancelled".
            at: when it was recorded.
            started, ended: of the run; None: there was none.
            since: from when on the job could have begun; None: it had been tried before, or nobody knows.
        """
        if outcome == "retry" and started is None:
            return  # it was put off, which is no attempt
        key = (at - at % MINUTE, queue)
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = [0] * _FIELDS
        sums[KINDS[outcome]] += 1
        if started is None or ended is None:
            return
        sums[_RUNS] += 1
        sums[_RAN] += max(ended - started, 0)
        if since is not None:
            waited = max(started - since, 0)
            sums[_WAITS] += 1
            sums[_WAITED] += waited
            sums[_LONGEST] = max(sums[_LONGEST], waited)

    def add_all(self, outcomes: Iterable[tuple[Delivery, Outcome]], *, prefix: str, now: int) -> None:
        """Count the outcomes of a batch; `prefix` is put before the names of their queues.

        It runs for every job, so it is written out: half a microsecond each.
        """
        start = now - now % MINUTE
        by_queue: dict[str, list[int]] = {}
        for delivery, outcome in outcomes:
            kind = _OUTCOMES.get(type(outcome))
            if kind is None:
                continue
            run = outcome.run  # type: ignore[union-attr]  # a release has no kind
            if run is None and kind == 1:
                continue  # it was put off, which is no attempt
            message = delivery.message
            sums = by_queue.get(message.queue)
            if sums is None:
                sums = by_queue[message.queue] = self._sums.setdefault((start, prefix + message.queue), [0] * _FIELDS)
            sums[kind] += 1
            if run is None:
                continue
            started = run.started
            sums[4] += 1
            sums[5] += run.ended - started
            if message.attempt == 1 and not message.crashes:
                since = message.due or message.enqueued
                if since is not None:
                    waited = started - since
                    sums[6] += 1
                    sums[7] += waited
                    if waited > sums[8]:  # noqa: PLR1730 -- max() is a call
                        sums[8] = waited

    def rows(self) -> Iterator[tuple[int | str, ...]]:
        """Yield minute and queue with their sums, in the order of the columns of `dibs_minutes`."""
        for (start, queue), sums in self._sums.items():
            yield (start, queue, *sums)

    def minutes(self) -> list[Minute]:
        """Return the sums as values."""
        return [
            Minute(
                start=start,
                queue=queue,
                done=sums[0],
                retried=sums[1],
                dead=sums[2],
                cancelled=sums[3],
                runs=sums[_RUNS],
                ran=sums[_RAN],
                waits=sums[_WAITS],
                waited=sums[_WAITED],
                longest=sums[_LONGEST],
            )
            for (start, queue), sums in sorted(self._sums.items())
        ]

    def forget(self, before: int) -> None:
        """Let go of the minutes before that time."""
        for key in [key for key in self._sums if key[0] < before]:
            del self._sums[key]
