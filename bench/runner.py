"""One run: every part of every scenario, round by round, the systems taking turns within each round."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from bench import venvs
from bench.figures import in_turn
from bench.results import Results, save
from bench.rig import ROOT, Rig, open_rig
from bench.scenario import Part, Scenario, Size, is_asked, why_not
from bench.servers import Servers
from bench.system import System

#: What a figure depends on, in the repository.
_MEASURED = ("src", "bench")


class OtherRun(Exception):
    """The results at hand are not of this code, or not of this size."""


class Runner:
    """Runs scenarios on systems.

    Args:
        systems: who takes part.
        scenarios: what they are asked.
        size: how much.
        folder: where environments, servers and stores go.
        results: of a run that was cut off: what it found is not measured again.

    Raises:
        OtherRun: the results are of another commit or size.
    """

    def __init__(
        self,
        systems: Sequence[System],
        scenarios: Sequence[Scenario],
        size: Size,
        folder: Path,
        results: Results | None = None,
    ) -> None:
        self._systems = systems
        self._scenarios = scenarios
        self._size = size
        self._folder = folder
        self._pythons: dict[str, Path] = {}
        self._servers = Servers(folder / "servers")
        self.results = results or Results(is_quick=size.is_quick)
        if results:
            _check_same(results, size)

    def run(self) -> Results:
        """Do all of it. What was found so far is kept in `results.json` after each part."""
        with _cleared(self._folder / "servers"), contextlib.closing(self._servers):
            self._set_up()
            self._note_conditions()
            for scenario in self._scenarios:
                for part in self._parts(scenario):
                    self._run_part(scenario, part)
                    save(self.results, self._folder / "results.json")
        return self.results

    def expected_seconds(self) -> float:
        """Estimate how long that takes, without setting up."""
        return sum(
            part.seconds(self._size) * self._size.rounds
            for scenario in self._scenarios
            for part in self._parts(scenario)
            for system in self._systems
            if is_asked(system, scenario) and not why_not(system, scenario, part)
        )

    def _parts(self, scenario: Scenario) -> list[Part]:
        """Return what is to be measured. A part is saved as a whole, so one that was cut off is not there."""
        return [
            part
            for part in scenario.parts(self._size)
            if not self.results.metrics.keys() >= set(_keys(scenario, part))
        ]

    def _note_conditions(self) -> None:
        now = _conditions(self._folder)
        if "Date" in self.results.conditions:
            now = {"Date": f"{self.results.conditions['Date']}, went on at {now['Date']}"}
        self.results.conditions |= now

    def _set_up(self) -> None:
        for system in self._systems:
            _say(f"setting up {system.name}")
            try:
                python = venvs.interpreter(system.requirements, self._folder / "venvs")
                self.results.versions[system.name] = venvs.versions(python, system.packages)
                self.results.conditions[system.store.value] = self._servers.get(system.store).version()
                self._pythons[system.name] = python
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is shown, and the others go on
                self.results.absent[system.name] = _first_words(error)
                _say(f"  {system.name} is out: {_first_words(error)}")

    def _run_part(self, scenario: Scenario, part: Part) -> None:
        keys = _keys(scenario, part)
        self.results.metrics |= dict(zip(keys, part.metrics, strict=True))
        able = []
        for system in self._systems:
            if system.name in self._pythons and is_asked(system, scenario):
                if reason := why_not(system, scenario, part):
                    for key in keys:
                        self.results.excuse(key, system.name, reason)
                else:
                    able.append(system)
        failed: set[str] = set()
        for turn in range(self._size.rounds):
            for system in in_turn(able, turn):
                if system.name not in failed and not self._measure(system, part, keys):
                    failed.add(system.name)  # the next round would most likely wait for the same

    def _measure(self, system: System, part: Part, keys: Sequence[str]) -> bool:
        def opened() -> AbstractContextManager[Rig]:
            return open_rig(system, self._pythons[system.name], self._servers, self._folder / "stores")

        try:
            readings = part.measure(opened, self._size)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is shown, and the others go on
            for key in keys:
                self.results.excuse(key, system.name, f"failed: {_first_words(error)}")
            _say(f"{keys[0]}: {system.name} failed: {_first_words(error)}")
            return False
        for key, metric, reading in zip(keys, part.metrics, readings, strict=True):
            self.results.add(key, system.name, reading)
            value = "none" if reading.value is None else f"{reading.value:,.{metric.digits}f} {metric.unit}"
            lost = f", {reading.lost} lost" if reading.lost else ""
            note = f" ({reading.note})" if reading.note else ""
            _say(f"{key}: {system.name} {value}{lost}{note}")
        return True


def _keys(scenario: Scenario, part: Part) -> list[str]:
    return [f"{scenario.name}.{metric.key}" for metric in part.metrics]


def _check_same(results: Results, size: Size) -> None:
    commit = results.conditions.get("dibs at", "none")
    if commit != _commit():
        raise OtherRun(f"The results are of dibs at {commit}, this is {_commit()}. Measure it all anew.")
    if results.is_quick != size.is_quick:
        raise OtherRun("A quick run and a full one can't be mixed. Measure it all anew.")


def _conditions(folder: Path) -> dict[str, str]:
    """Say where and when this is run."""
    return {
        "Date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "dibs at": _commit(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Machine": f"{len(os.sched_getaffinity(0))} cores, {_processor()}, {platform.system()} {platform.release()}",
        "fsync of 4 KiB": f"{_fsync_milliseconds(folder):.2f} ms, appending, on the disk that holds the stores",
        "Load when it began": f"{os.getloadavg()[0]:.2f} processes",
    }


def _commit() -> str:
    """Return the last commit that changed what is measured or measures, and whether there are changes since."""
    if commit := _git("log", "-1", "--format=%h", "--", *_MEASURED):
        return f"{commit}-dirty" if _git("status", "--porcelain", "--", *_MEASURED) else commit
    return "no checkout"


def _git(*words: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        ).stdout.strip()
    return ""


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _fsync_milliseconds(folder: Path) -> float:
    """Return the median of a few: what every durable hand-over pays at least."""
    took = []
    path = folder / "fsync"
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(took) * 1000


@contextlib.contextmanager
def _cleared(folder: Path) -> Iterator[None]:
    """Remove what the servers of the last run left, if it was cut off, and what this one's leave."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _say(text: str) -> None:
    print(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)
