"""What happened, as one value, and the figures that follow from it. Pure: knows no process and no broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from dibs.trial.evidence import Event


class Sent(msgspec.Struct, frozen=True):
    """A job as it was handed over."""

    job: str
    #: How long it takes.
    seconds: float
    #: When the broker had taken it.
    at: float


class Kill(msgspec.Struct, frozen=True):
    """The end of a worker."""

    worker: int
    at: float


class Run(msgspec.Struct, frozen=True):
    """One run of a job."""

    job: str
    worker: int
    start: float
    #: None: it was cut off.
    end: float | None


class History(msgspec.Struct, frozen=True):
    """All that is known in the end."""

    sent: Sequence[Sent]
    #: When each worker's executor was there, by the worker's number.
    ready: dict[int, float]
    runs: Sequence[Run]
    kill: Kill

    @property
    def begin(self) -> float:
        """When the first worker was there."""
        return min(self.ready.values())

    @property
    def end(self) -> float:
        """When the last run ended."""
        return max((run.end for run in self.runs if run.end is not None), default=self.begin)

    @property
    def makespan(self) -> float:
        """Seconds from the first worker to the last end."""
        return self.end - self.begin

    @property
    def done(self) -> list[str]:
        """Jobs that were run to their end."""
        ended = {run.job for run in self.runs if run.end is not None}
        return [sent.job for sent in self.sent if sent.job in ended]

    @property
    def lost(self) -> list[str]:
        """Jobs that were handed over and never ended."""
        return [sent.job for sent in self.sent if sent.job not in set(self.done)]

    @property
    def twice(self) -> list[str]:
        """Jobs that were started more than once."""
        return [job for job, count in Counter(run.job for run in self.runs).items() if count > 1]

    @property
    def cut(self) -> Run | None:
        """The run that the kill cut off."""
        return next((run for run in self.runs if run.worker == self.kill.worker and run.end is None), None)

    @property
    def again(self) -> Run | None:
        """The next run of the job that was cut off."""
        cut = self.cut
        return (
            None if cut is None else next((run for run in self.runs if run.job == cut.job and run is not cut), None)
        )

    @property
    def free_at(self) -> float:
        """When, from the kill on, another worker first had nothing to do."""
        others = [worker for worker in self.ready if worker != self.kill.worker]
        return min((self._free_from(worker, self.kill.at) for worker in others), default=self.kill.at)

    @property
    def restart(self) -> float | None:
        """Seconds from the kill to the job's next start."""
        return None if self.again is None else self.again.start - self.kill.at

    @property
    def handover(self) -> float | None:
        """The part of `restart` that no busy slot explains: what the broker and the workers took."""
        return None if self.again is None else max(0.0, self.again.start - self.free_at)

    @property
    def neglect(self) -> float:
        """The longest time for which a slot lay idle between two jobs while a job was there to be had."""
        waits = self._waits()
        return max(
            (
                min(gap[1], wait[1]) - max(gap[0], wait[0])
                for gap in self._gaps()
                for wait in waits
                if wait[0] < gap[1] and gap[0] < wait[1]
            ),
            default=0.0,
        )

    @property
    def ideal(self) -> float:
        """A lower bound of the makespan, given these jobs, these workers and this kill.

        No schedule can end before (a) the slots together, each counted from when its worker was there to when
        it was killed, have had time for all the work, what the kill wasted included, without a gap; nor
        before (b) any one job could have ended that began when it was sent, or the one that was cut off,
        which began again at the kill. Both may be out of reach even for a perfect queue: (a) ignores that
        jobs can't be split, and that some were sent later.
        """
        cut = self.cut
        wasted = self.kill.at - cut.start if cut else 0.0
        work = sum(sent.seconds for sent in self.sent) + wasted
        ends = [max(sent.at, self.begin) + sent.seconds for sent in self.sent]
        ends += [self.kill.at + sent.seconds for sent in self.sent if cut and sent.job == cut.job]
        return max(self._time_for(work), *ends) - self.begin

    def runs_of(self, worker: int) -> list[Run]:
        """Return a worker's runs, in order."""
        return [run for run in self.runs if run.worker == worker]

    def _free_from(self, worker: int, moment: float) -> float:
        busy = [run.end for run in self.runs_of(worker) if run.start <= moment and run.end and run.end > moment]
        return max(busy, default=max(moment, self.ready[worker]))

    def _gaps(self) -> list[tuple[float, float]]:
        """Return when slots lay idle, from each worker's first job on."""
        gaps = []
        for worker in self.ready:
            runs = self.runs_of(worker)
            gaps += [(one.end, two.start) for one, two in pairwise(runs) if one.end is not None]
        return gaps

    def _waits(self) -> list[tuple[float, float]]:
        """Return when jobs were ready, from being sent to their start, and from the kill to the next start."""
        sent_at = {sent.job: sent.at for sent in self.sent}
        starts: dict[str, float] = {}
        for run in self.runs:
            starts.setdefault(run.job, run.start)
        waits = [(sent_at[job], start) for job, start in starts.items() if job in sent_at]
        return waits + ([(self.kill.at, self.again.start)] if self.again else [])

    def _time_for(self, work: float) -> float:
        """Return when the slots have had `work` seconds together; by bisection, as the sum only grows."""
        low, high = self.begin, max(self.ready.values()) + self.kill.at + work
        for _ in range(60):
            middle = (low + high) / 2
            had = sum(
                max(0.0, min(middle, self.kill.at if worker == self.kill.worker else middle) - ready)
                for worker, ready in self.ready.items()
            )
            low, high = (middle, high) if had < work else (low, middle)
        return high


def collect(sent: Sequence[Sent], events: Sequence[Event], kill: Kill) -> History:
    """Return the history that the evidence tells; `events` are in order of time."""
    ready: dict[int, float] = {}
    runs: list[Run] = []
    for event in events:
        match event.kind:
            case "ready":
                ready.setdefault(event.number, event.at)
            case "start":
                runs.append(Run(event.job, event.number, event.at, None))
            case "end":
                index = _find(runs, event)
                runs[index] = msgspec.structs.replace(runs[index], end=event.at)
    return History(sent, ready, runs, kill)


def _find(runs: Sequence[Run], event: Event) -> int:
    """Return the place of the run that an end belongs to: the last one of that job in that worker."""
    return max(
        index for index, run in enumerate(runs) if (run.job, run.worker, run.end) == (event.job, event.number, None)
    )
