"""What the docs and the Grafana dashboard name of metrics is there, and what is there is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dibs.metrics.families import of_queues, of_workers
from dibs.metrics.tally import Tally

DOCS = Path(__file__).parent.parent.parent / "docs"
GUIDE = DOCS / "guides" / "monitoring.md"
GRAFANA = DOCS / "grafana" / "dibs.json"
FAMILIES = [*Tally([]).families(), *of_queues([]), *of_workers([])]
NAMES = {family.name for family in FAMILIES} | {"dibs_worker_ready"}
HISTOGRAMS = {family.name for family in FAMILIES if family.kind == "histogram"}
SERIES = (NAMES - HISTOGRAMS) | {f"{name}{suffix}" for name in HISTOGRAMS for suffix in ("_bucket", "_sum", "_count")}


def board() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(GRAFANA.read_text())
    return read


def queries() -> list[str]:
    return [target["expr"] for panel in board()["panels"] for target in panel["targets"]]


def named(text: str) -> set[str]:
    return set(re.findall(r"\bdibs_[a-z_]+", text))


def test_grafana_asks_for_what_there_is() -> None:
    assert all(named(query) for query in queries())
    assert named(" ".join(queries())) <= SERIES
    assert named(json.dumps(board()["templating"])) <= SERIES


def test_grafanas_panels_lie_beside_each_other() -> None:
    taken = [
        (x, y)
        for panel in board()["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in board()["panels"]}) == len(board()["panels"])


def test_brackets_of_queries_close() -> None:
    for query in queries():
        assert all(query.count(left) == query.count(right) for left, right in ("()", "{}", "[]")), query


def test_the_guide_names_every_metric_and_no_other() -> None:
    text = GUIDE.read_text()

    assert {name for name in NAMES if f"| `{name}` |" not in text} == set()
    assert named(text) <= NAMES | SERIES
