"""The picture: bars for the main figures, as an SVG for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from bench.figures import Metric
from bench.results import Results
from bench.scenarios import SCENARIOS
from bench.system import Kind, Store
from bench.systems import SYSTEMS

#: What is drawn, if it was measured, on each store.
_PANELS = ("enqueue.one", "drain.slots", "latency.p50", "latency.memory")
_WIDTH, _LABELS, _VALUES, _LINE, _BAR = 720, 150, 110, 22, 14
_STYLE = """
svg { font: 13px system-ui, sans-serif; background: #fff }
text { fill: #1f2933 } .unit { fill: #616e7c } .bar { fill: #9aa5b1 } .floor { fill: #d2d8de } .dibs { fill: #0b7285 }
.title { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  svg { background: #131416 } text { fill: #e4e7eb } .unit { fill: #9aa5b1 }
  .bar { fill: #616e7c } .floor { fill: #3e4c59 } .dibs { fill: #3bc9db }
}
"""


def svg(results: Results) -> str:
    """Return the picture. Bars begin at 0 and end at the median; each panel has its own scale."""
    body: list[str] = []
    y = 24
    for key in _PANELS:
        for store in (Store.SQLITE, Store.RABBITMQ):
            bars = _bars(results, key, store)
            if bars:
                body += _panel(_heading(key, results.metrics[key], store), bars, results.metrics[key], y)
                y += 14 + _LINE * (len(bars) + 1)
    size = f'viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *body, "</svg>", ""])


def _bars(results: Results, key: str, store: Store) -> list[tuple[str, float]]:
    """Return each system's median, the best first."""
    if key not in results.metrics:
        return []
    medians = [
        (name, results.median(key, name)) for name in results.figures.get(key, {}) if SYSTEMS[name].store is store
    ]
    found = [(name, median) for name, median in medians if median is not None]
    return sorted(found, key=lambda bar: bar[1], reverse=results.metrics[key].more_is_better)


def _heading(key: str, metric: Metric, store: Store) -> str:
    better = "more is better" if metric.more_is_better else "less is better"
    return f"{SCENARIOS[key.partition('.')[0]].title} on {store.value}: {metric.title}, {metric.unit} ({better})"


def _panel(heading: str, bars: list[tuple[str, float]], metric: Metric, y: int) -> Iterator[str]:
    longest = max(value for _, value in bars) or 1.0
    yield f'<text class="title" x="8" y="{y}">{escape(heading)}</text>'
    classes = {Kind.DIBS: "dibs", Kind.PEER: "bar", Kind.WITHOUT: "floor", Kind.FLOOR: "floor"}
    for line, (name, value) in enumerate(bars, start=1):
        top = y + line * _LINE
        width = max(round(value / longest * (_WIDTH - _LABELS - _VALUES)), 1)
        yield f'<text x="{_LABELS - 8}" y="{top}" text-anchor="end">{escape(name)}</text>'
        yield (
            f'<rect class="{classes[SYSTEMS[name].kind]}" x="{_LABELS}" y="{top - _BAR + 3}" '
            f'width="{width}" height="{_BAR}" rx="2"/>'
        )
        yield f'<text class="unit" x="{_LABELS + width + 6}" y="{top}">{value:,.{metric.digits}f}</text>'
