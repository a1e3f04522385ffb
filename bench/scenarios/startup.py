"""How long a program takes to start."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Sequence

from bench.figures import Metric, Reading
from bench.rig import MeasurementFailed, Rig
from bench.scenario import Open, Part, Scenario, Size

_IMPORT = Metric("import", "import, above the bare interpreter", "ms", more_is_better=False)
_HELP = Metric("help", "`--help`", "ms", more_is_better=False)
_FIRST_JOB = Metric("first", "worker to first job", "ms", more_is_better=False)


def _measure_import(open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        bare, with_import = [], []
        for _ in range(size.starts):
            bare.append(_milliseconds(rig, ["python", "-c", "pass"]))
            with_import.append(_milliseconds(rig, ["python", "-c", rig.system.statement]))
        return [Reading(statistics.median(with_import) - statistics.median(bare))]


def _measure_help(open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        return [Reading(statistics.median(_milliseconds(rig, rig.system.help_command) for _ in range(size.starts)))]


def _measure_first_job(open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        rig.produce("one", 1)  # so that queues are there, as they are on any day but the first
        waits = []
        for number in range(1, size.starts + 1):
            rig.produce("one", 1, first=number)
            worker = rig.start()
            if not rig.records.wait(lambda: number in _starts(rig), size.drain_limit):  # noqa: B023 -- waited for
                raise MeasurementFailed(f"No first job within {size.drain_limit:.0f} s. It said: {worker.output}")
            waits.append((_starts(rig)[number] - worker.started) / 1e6)
            worker.kill()
        return [Reading(statistics.median(waits))]


def _starts(rig: Rig) -> dict[int, int]:
    return {record.number: record.start for record in rig.records.read()}


def _milliseconds(rig: Rig, words: Sequence[str]) -> float:
    command = rig.command(words)
    began = time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=rig.directory)
    took = (time.monotonic() - began) * 1000
    if ran.returncode:
        raise MeasurementFailed(f"{' '.join(words)} failed: {ran.stderr[-300:]}")
    return took


SCENARIO = Scenario(
    name="startup",
    title="Starting",
    about="What a program imports, in a fresh interpreter, less the bare interpreter; the command line's `--help`; "
    "from the start of a worker to the first line of a job that waits for it. Medians of five starts a round.",
    parts=lambda _size: (
        Part(metrics=(_IMPORT,), measure=_measure_import, seconds=lambda size: 1 + size.starts * 0.3),
        Part(metrics=(_HELP,), measure=_measure_help, seconds=lambda size: 1 + size.starts * 0.3),
        Part(metrics=(_FIRST_JOB,), measure=_measure_first_job, seconds=lambda size: 1 + size.starts * 1.5),
    ),
)
