"""What the evidence says of each job, as it comes in. Pure: knows no process and no broker."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from dibs.trial.evidence import Event


class Run(msgspec.Struct, frozen=True):
    """One run of a job."""

    job: str
    #: Number of the worker, and process id of the executor.
    worker: int
    pid: int
    start: float
    #: When it ended by itself, well or not; None: it was cut off, or goes on.
    end: float | None = None
    #: It came to its end.
    is_full: bool = False


class Account:
    """What producers were told and executors did, of one run of chaos."""

    def __init__(self, run: str) -> None:
        self._prefix = f"{run}."
        #: The beginning of the ids of jobs that come before all others, and how many runs of those have ended.
        self.first = f"{run}-first"
        self.firsts = 0
        #: When a producer had been told that the job is stored.
        self.told: dict[str, float] = {}
        #: Of these the producer was told that nobody knows.
        self.uncertain: set[str] = set()
        #: Of these the producer was told that nothing was stored.
        self.refused: set[str] = set()
        #: Each job's runs, in order of time.
        self.runs: dict[str, list[Run]] = {}
        self.done: set[str] = set()
        #: Workers of which an executor came up, and the process ids of all executors that did.
        self.ready: set[int] = set()
        self.came_up: set[int] = set()
        #: When a producer was last told that a job is stored.
        self.last_told = 0.0
        #: Grows with each job that is stored and each run that ends.
        self.progress = 0
        self._open: dict[str, Run] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Take in what was written since; jobs of other runs of chaos are left out."""
        for event in events:
            if event.kind == "ready":
                self.ready.add(event.number)
                self.came_up.add(event.pid)
            elif event.job.startswith(self.first):
                self.firsts += event.kind == "end"
            elif event.job.startswith(self._prefix):
                self._add(event)

    def _add(self, event: Event) -> None:
        match event.kind:
            case "told":
                self.told[event.job] = event.at
                self.last_told = max(self.last_told, event.at)
                self.progress += 1
            case "uncertain":
                self.uncertain.add(event.job)
            case "refused":
                self.refused.add(event.job)
            case "start":
                self._open[event.run] = Run(event.job, event.number, event.pid, event.at)
                self._put(self._open[event.run])
            case "end" | "fail":
                self._end(event)

    def _end(self, event: Event) -> None:
        begun = self._open.pop(event.run)
        self.runs[event.job].remove(begun)
        self._put(msgspec.structs.replace(begun, end=event.at, is_full=event.kind == "end"))
        self.progress += 1
        if event.kind == "end":
            self.done.add(event.job)

    def _put(self, run: Run) -> None:
        runs = self.runs.setdefault(run.job, [])
        runs.append(run)
        runs.sort(key=lambda one: one.start)  # what was begun by different processes may be read out of order

    def busy(self, pids: Collection[int]) -> set[int]:
        """Return which of these living executors are in the middle of a job."""
        return {run.pid for run in self._open.values()}.intersection(pids)

    def open_for(self, dead: Collection[str]) -> list[str]:
        """Return the jobs that are stored, and neither done nor among these dead letters."""
        return [job for job in self.told if job not in self.done and job not in dead]

    def in_doubt(self, dead: Collection[str]) -> set[str]:
        """Return the jobs that may be stored or are, without the producer's being told so."""
        seen = {job for job in (*self.runs, *dead) if job.startswith(self._prefix)}
        return self.uncertain | (seen - self.told.keys() - self.refused)

    def cuts(self, job: str) -> int:
        """Return how many runs of a job were cut off."""
        return sum(run.end is None for run in self.runs.get(job, ()))

    def story(self, job: str, begin: float) -> str:
        """Tell what is known of a job, for people; times are seconds from `begin`."""
        told = f"stored at {self.told[job] - begin:.3f} s" if job in self.told else "never said to be stored"
        parts = [f"{told}, {len(self.runs.get(job, ()))} runs"]
        for run in self.runs.get(job, ()):
            end = "cut off" if run.end is None else f"{'done' if run.is_full else 'failed'} {run.end - begin:.3f}"
            parts.append(f"worker {run.worker} pid {run.pid}: {run.start - begin:.3f}, {end}")
        return "; ".join(parts)
