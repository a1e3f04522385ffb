"""All that a run found, as values that go to JSON and come back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Figure, Metric, Reading


@dataclass(slots=True)
class Results:
    """What a run found, by `scenario.metric` and by system."""

    #: Where and when it was run, line by line.
    conditions: dict[str, str] = field(default_factory=dict)
    #: Whether it only shows that everything works.
    is_quick: bool = False
    #: The versions of each system that took part, and of its drivers.
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    #: Why a system could not take part at all.
    absent: dict[str, str] = field(default_factory=dict)
    #: The metrics that were measured, in order.
    metrics: dict[str, Metric] = field(default_factory=dict)
    #: What was measured.
    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)
    #: Why a figure is not there: the system can't, or it failed.
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)

    def median(self, metric: str, system: str) -> float | None:
        """Return the middle of a system's readings; None where there are none."""
        figure = self.figures.get(metric, {}).get(system)
        return figure.median if figure else None

    def highest(self, metric: str, system: str) -> float | None:
        """Return the largest of a system's readings; None where there are none."""
        figure = self.figures.get(metric, {}).get(system)
        return figure.highest if figure and figure.values else None

    def lost(self, system: str) -> int:
        """Return how many jobs a system lost in all scenarios together."""
        seen = [by_system[system] for by_system in self.figures.values() if system in by_system]
        return sum(figure.lost for figure in seen)

    def add(self, metric: str, system: str, reading: Reading) -> None:
        """Take in one reading."""
        self.figures.setdefault(metric, {}).setdefault(system, Figure()).readings.append(reading)

    def excuse(self, metric: str, system: str, reason: str) -> None:
        """Note why a figure, or a round of it, is not there."""
        self.reasons.setdefault(metric, {})[system] = reason


def save(results: Results, path: Path) -> None:
    """Write results to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(results))


def to_json(results: Results) -> str:
    """Return results as JSON."""
    return json.dumps(asdict(results), indent=1)


def load(path: Path) -> Results:
    """Read what `save` wrote."""
    found: dict[str, Any] = json.loads(path.read_text())
    found["metrics"] = {key: Metric(**metric) for key, metric in found["metrics"].items()}
    found["figures"] = {
        key: {
            system: Figure([Reading(**reading) for reading in figure["readings"]])
            for system, figure in by_system.items()
        }
        for key, by_system in found["figures"].items()
    }
    return Results(**found)
