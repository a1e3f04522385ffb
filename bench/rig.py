"""One system in an empty place, ready to be measured: what a scenario is handed.

A scenario opens one for each thing that it measures, so that nothing of the measurement before is left.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.job import WARM_UP
from bench.processes import Tree
from bench.records import Record, Records
from bench.servers import Servers
from bench.system import Load, Store, System

#: The checkout: where `bench` is imported from.
ROOT = Path(__file__).resolve().parent.parent
_READY_WITHIN = 30.0
#: How long the two jobs take that show two slots to be ready.
_TRIAL_SECONDS = 0.3


class MeasurementFailed(Exception):
    """A system did not do what was asked of it; the text says what, and its last words."""


@dataclass(frozen=True, slots=True)
class Produced:
    """What a producer did."""

    count: int
    seconds: float
    #: When each call began, where that was asked for.
    sent: list[int]

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return self.count / self.seconds if self.seconds else 0.0


class Rig:
    """A system, its empty store, its producers and workers."""

    def __init__(self, system: System, python: Path, servers: Servers, directory: Path, records: Path) -> None:
        self.system = system
        self.records = Records(records)
        self.directory = directory
        #: The file or URL of the store.
        self.url = servers.get(system.store).fresh(directory)
        self._python = python
        self._trees: list[Tree] = []
        self._names = (f"{system.name}-{number}" for number in itertools.count(1))
        self._trial_numbers = itertools.count(WARM_UP + 100, 100)

    def produce(
        self,
        mode: str,
        count: int,
        *,
        limit: float = 600.0,
        padding: int = 0,
        seconds: Sequence[float] = (0.0,),
        first: int = 0,
    ) -> Produced:
        """Hand jobs over from a process of its own, which times it.

        Args:
            mode: one, threads, bulk or spaced; see `bench/producer.py`.
            count: how many.
            limit: seconds after which to stop handing over.
            padding: bytes in each job's arguments.
            seconds: how long jobs take, used in turn.
            first: the number of the first job.
        """
        options = ["--count", count, "--limit", limit, "--padding", padding, "--first", first, "--seconds", *seconds]
        command = [str(self._python), "-m", "bench.producer", self.system.app, mode, *map(str, options)]
        try:
            ran = subprocess.run(
                command,
                env=self._environment("producer"),
                cwd=self.directory,
                capture_output=True,
                text=True,
                timeout=limit * 2 + 60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementFailed(f"The producer did not end within {limit * 2 + 60:.0f} s.") from None
        if ran.returncode:
            raise MeasurementFailed(f"The producer failed: {' / '.join(ran.stderr.strip().splitlines()[-3:])[-400:]}")
        return Produced(**json.loads(ran.stdout.splitlines()[-1]))

    def start(self, *, slots: int = 1, executors: int = 1) -> Tree:
        """Start a worker."""
        load = Load(slots=slots, executors=executors, name=next(self._names), url=self.url)
        tree = Tree(
            [self.command(words) for words in self.system.worker(load)],
            environment={**self._environment("worker"), "BENCH_SLOTS": str(slots)},
            directory=self.directory,
            log=self.directory / f"{load.name}.log",
        )
        self._trees.append(tree)
        return tree

    def wait_ready(self, *trees: Tree) -> None:
        """Wait until a worker runs jobs.

        Raises:
            MeasurementFailed: none did within half a minute.
        """
        for first in self._trials("ran no job", trees):
            self.produce("one", 1, first=first)
            if self.records.wait(lambda: bool(self.records.warm_ups()), 2.0):
                return

    def wait_two_slots(self, *trees: Tree) -> None:
        """Wait until two jobs are seen to run at the same time.

        Raises:
            MeasurementFailed: that wasn't seen within half a minute.
        """
        for first in self._trials("did not run two jobs at a time", trees):
            pair = {first, first + 1}
            self.produce("one", 2, first=first, seconds=(_TRIAL_SECONDS,))
            self.records.wait(lambda pair=pair: len(self._done(pair)) == 2, 2.0)  # type: ignore[misc]
            if _overlap(self._done(pair)):
                return

    def _trials(self, failing: str, trees: Sequence[Tree]) -> Iterator[int]:
        """Yield numbers for trial jobs until the time is up or a worker has ended."""
        deadline = time.monotonic() + _READY_WITHIN
        while time.monotonic() < deadline and not any(tree.has_ended for tree in trees):
            yield next(self._trial_numbers)
        said = " | ".join(tree.output for tree in trees)
        raise MeasurementFailed(f"The worker {failing} within {_READY_WITHIN:.0f} s. It said: {said or 'nothing'}")

    def command(self, words: Sequence[str]) -> list[str]:
        """Return a command with its program's full path, in the system's own environment."""
        program = self._python if words[0] == "python" else self._python.parent / words[0]
        return [str(program), *words[1:]]

    def stored_bytes(self) -> int:
        """Return the size of the store's files; 0 where a server keeps them."""
        if self.system.store is not Store.SQLITE:
            return 0
        return sum(
            path.stat().st_size for path in Path(self.url).parent.glob(f"{Path(self.url).name}*") if path.is_file()
        )

    def close(self) -> None:
        """Kill what runs."""
        for tree in self._trees:
            tree.kill()

    def _done(self, numbers: set[int]) -> list[Record]:
        return [record for record in self.records.warm_ups() if record.number in numbers and record.end]

    def _environment(self, role: str) -> dict[str, str]:
        """Return the environment of a producer or worker: nothing of the bench's own but what it is to know."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("DIBS_", "PYTHON", "BENCH_"))}
        return own | {
            "PATH": f"{self._python.parent}:{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(ROOT),
            "BENCH_RECORDS": str(self.records.path),
            "BENCH_ROLE": role,
            "BENCH_URL": self.url,
            **self.system.environment,
        }


def _overlap(records: Sequence[Record]) -> bool:
    """Tell whether of two jobs one began before the other one ended."""
    done = sorted((record.start, record.end) for record in records)
    return len(done) == 2 and done[1][0] < done[0][1]


@contextlib.contextmanager
def open_rig(system: System, python: Path, servers: Servers, folder: Path) -> Iterator[Rig]:
    """Have a system in an empty place; all of it is gone afterwards.

    The store lies in `folder`, on the disk that is measured; what the jobs write lies in shared memory, if there is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix=f"{system.name}-", dir=folder))
    handle, records = tempfile.mkstemp(prefix="dibs-bench-", dir=shared if os.access(shared, os.W_OK) else None)
    os.close(handle)
    try:
        rig = Rig(system, python, servers, directory, Path(records))
        try:
            yield rig
        finally:
            rig.close()
    finally:
        Path(records).unlink()
        shutil.rmtree(directory, ignore_errors=True)
