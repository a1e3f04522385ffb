"""Counts what came of jobs, how long they ran and how long they waited.

Fed by one thread, a batch at a time; any thread may read it meanwhile. What it keeps is bounded by what the app
names: tasks that it does not have, as strangers may send them, are counted as one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dibs.message import Delivery
from dibs.metrics.exposition import Family, Sample
from dibs.outcome import Cancelled, Dead, Done, Outcome, RetryIn

#: The outcomes that are counted, by the name that the label has.
_NAMES: dict[type[Outcome], str] = {Done: "done", RetryIn: "retry", Dead: "dead", Cancelled: "cancelled"}
#: The `task` of plain messages, and of jobs whose task the app does not have. No function is named so.
PLAIN, UNKNOWN = "(plain)", "(unknown)"
#: Buckets end at powers of two milliseconds, 1 ms to 2^22 ms (70 minutes): a number's place is its length in bits.
_BUCKETS = 23
_MOST = 1 << (_BUCKETS - 1)


class Spread:
    """How some durations are spread."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        #: By the number of bits of the duration in ms; the last one has all that are longer.
        self.counts = [0] * (_BUCKETS + 1)
        #: In ms.
        self.total = 0

    def add(self, duration: int) -> None:
        """Count one, in ms. Clocks of several hosts may differ: what began before it was handed over waited 0."""
        if duration > 0:
            self.counts[duration.bit_length() if duration < _MOST else _BUCKETS] += 1
            self.total += duration
        else:
            self.counts[0] += 1

    def samples(self, labels: dict[str, str]) -> list[Sample]:
        """Return it as a histogram has it, in seconds."""
        samples, below = [], 0
        for bits, count in enumerate(self.counts[:-1]):
            below += count
            samples.append(Sample({**labels, "le": repr((1 << bits) / 1000)}, below, "_bucket"))
        below += self.counts[-1]
        samples.append(Sample({**labels, "le": "+Inf"}, below, "_bucket"))
        return [*samples, Sample(labels, self.total / 1000, "_sum"), Sample(labels, below, "_count")]


class _Series:
    """The jobs of one task in one queue that ended in one way."""

    __slots__ = ("count", "duration", "wait")

    def __init__(self, duration: Spread, wait: Spread) -> None:
        self.count = 0
        self.duration = duration
        self.wait = wait


class Tally:
    """Counts outcomes."""

    def __init__(self, tasks: Collection[str]) -> None:
        self._tasks = frozenset(tasks)
        self._series: dict[tuple[str, str | None, type[Outcome]], _Series] = {}
        self._spreads: dict[tuple[str, str], tuple[Spread, Spread]] = {}

    def count(self, outcomes: Iterable[tuple[Delivery, Outcome]]) -> None:
        """Count a batch: what was put off without a run, or given back, came to nothing."""
        series = self._series
        for delivery, outcome in outcomes:
            kind = type(outcome)
            message = delivery.message
            found = series.get((message.queue, message.task, kind))
            if found is None:
                if kind not in _NAMES or (isinstance(outcome, RetryIn) and outcome.run is None):
                    continue
                found = self._new(message.queue, message.task, kind)
            run = outcome.run  # type: ignore[union-attr]  # `Released`, which has none, is not in `_NAMES`
            if run is None:
                if kind is not RetryIn:
                    found.count += 1
                continue
            found.count += 1
            started = run.started
            found.duration.add(run.ended - started)
            if message.attempt == 1 and message.enqueued is not None:
                found.wait.add(started - (message.due or message.enqueued))

    def _new(self, queue: str, task: str | None, kind: type[Outcome]) -> _Series:
        """Return a series that is kept under its own name, or the one of all unknown tasks."""
        label = _label(task) if task is None or task in self._tasks else UNKNOWN
        key = queue, task if label != UNKNOWN else UNKNOWN, kind
        if (found := self._series.get(key)) is None:
            duration, wait = self._spreads.setdefault((queue, label), (Spread(), Spread()))
            found = self._series[key] = _Series(duration, wait)
        return found

    def families(self) -> list[Family]:
        """Return what was counted."""
        series = list(self._series.items())
        spreads = [({"queue": queue, "task": task}, both) for (queue, task), both in list(self._spreads.items())]
        return [
            Family(
                "dibs_jobs_total",
                "counter",
                "Runs that ended, and jobs that were set aside or cancelled without one, by what came of them.",
                [
                    Sample({"queue": queue, "task": _label(task), "outcome": _NAMES[kind]}, one.count)
                    for (queue, task, kind), one in series
                ],
            ),
            Family(
                "dibs_job_duration_seconds",
                "histogram",
                "How long runs took.",
                [sample for labels, (duration, _) in spreads for sample in duration.samples(labels)],
            ),
            Family(
                "dibs_job_wait_seconds",
                "histogram",
                "From when a job was handed over, or due, until its first run began.",
                [sample for labels, (_, wait) in spreads for sample in wait.samples(labels)],
            ),
        ]


def _label(task: str | None) -> str:
    return PLAIN if task is None else task
