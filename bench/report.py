"""The tables: for a terminal, and for `docs/benchmarks.md`, where they stand between two marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from bench.figures import Figure, Metric
from bench.results import Results
from bench.scenarios import SCENARIOS
from bench.system import Kind, Store, System
from bench.systems import SYSTEMS
from bench.targets import Target, targets

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
_DIBS = (Kind.DIBS, Kind.WITHOUT)
_WARNING = "This was a quick run: it shows that all works. Its figures mean nothing."


def text(results: Results) -> str:
    """Return the report for a terminal."""
    return "\n".join(_lines(results, is_markdown=False)).replace("`", "")


def markdown(results: Results, picture: str) -> str:
    """Return the report for the docs; `picture` is the name of the file beside it."""
    return "\n".join(
        [f"![Medians of the main figures, by system]({picture})", "", *_lines(results, is_markdown=True)]
    )


def replace_section(page: Path, section: str) -> None:
    """Put a section between the page's marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} followed by {END}; put them where the figures are to stand.")
    page.write_text(f"{before}{BEGIN}\n\n{section.strip()}\n\n{END}{after}")


def cell(figure: Figure | None, metric: Metric) -> str:
    """Return the median with its spread, what was lost, and a star where there is a note."""
    if figure is None:
        return "–"
    star = "\\*" if figure.notes else ""
    lost = f", {figure.lost} lost" if figure.lost else ""
    if figure.median is None:
        return f"none{star}{lost}"
    spread = ""
    if len(figure.values) > 1:
        spread = f" ({_number(figure.lowest, metric)} to {_number(figure.highest, metric)})"
    return f"{_number(figure.median, metric)}{star}{spread}{lost}"


def losses(results: Results) -> Iterator[str]:
    """Say of each figure where another system on the same store does better than dibs."""
    for key, metric in results.metrics.items():
        for store in Store:
            own = next((s for s in SYSTEMS.values() if s.kind is Kind.DIBS and s.store is store), None)
            if own is None or (value := results.median(key, own.name)) is None:
                continue
            for name in results.figures[key]:
                other = results.median(key, name)
                if SYSTEMS[name].store is not store or SYSTEMS[name].kind in _DIBS or other is None:
                    continue
                if (other > value) if metric.more_is_better else (other < value):
                    title = _title(key, metric)
                    floor = " (no work queue)" if SYSTEMS[name].kind is Kind.FLOOR else ""
                    weaker = f"; {SYSTEMS[name].weaker}" if SYSTEMS[name].weaker else ""
                    unit = f" {metric.unit}" if metric.unit else ""
                    yield (
                        f"{store.value}, {title}: {name}{floor} {_number(other, metric)}, "
                        f"dibs {_number(value, metric)}{unit}{weaker}"
                    )


def _lines(results: Results, *, is_markdown: bool) -> Iterator[str]:
    if results.is_quick:
        yield from (_WARNING, "")
    order = list(SCENARIOS)
    found = sorted(results.metrics.items(), key=lambda item: order.index(_scenario(item[0])))
    for name, metrics in groupby(found, key=lambda item: _scenario(item[0])):
        yield from _section(results, name, dict(metrics), is_markdown=is_markdown)
    yield from _titled("Targets", is_markdown=is_markdown)
    rows = [_target_row(target, results) for target in targets() if is_markdown or target.look(results) is not None]
    yield from _table(["Store", "Figure", "Goal", "dibs", ""], rows, is_markdown=is_markdown)
    yield from _titled("Where dibs loses", is_markdown=is_markdown)
    yield from [f"- {line}" for line in losses(results)] or ["Nowhere, among what was measured."]
    yield ""
    yield from _titled("What was compared", is_markdown=is_markdown)
    yield from _systems(results)
    yield from (*(f"- {key}: {value}" for key, value in results.conditions.items()), "")


def _section(results: Results, name: str, metrics: dict[str, Metric], *, is_markdown: bool) -> Iterator[str]:
    scenario = SCENARIOS[name]
    yield from _titled(scenario.title, is_markdown=is_markdown)
    yield from (scenario.about, "")
    header = ["System", *(f"{m.title}{f', {m.unit}' if m.unit else ''}" for m in metrics.values())]
    rows = []
    for store in Store:
        for system in _taking_part(results, store):
            cells = [cell(results.figures.get(key, {}).get(system.name), metric) for key, metric in metrics.items()]
            if any(found != "–" for found in cells):
                rows.append([_label(system), *cells])
    yield from _table(header, rows, is_markdown=is_markdown)
    if notes := list(_notes(results, metrics)):
        yield from (*(f"- {note}" for note in notes), "")


def _notes(results: Results, metrics: dict[str, Metric]) -> Iterator[str]:
    """Yield what there is to say of figures that are not plain or not there, each thing once."""
    about: dict[tuple[str, str], list[str]] = {}
    for key, metric in metrics.items():
        for system, figure in results.figures.get(key, {}).items():
            for note in figure.notes:
                about.setdefault((system, note), []).append(metric.title)
        for system, reason in results.reasons.get(key, {}).items():
            about.setdefault((system, reason), []).append(metric.title)
    for (system, said), titles in about.items():
        yield f"{system}, {', '.join(titles)}: {said}"


def _taking_part(results: Results, store: Store) -> list[System]:
    """Return the systems of a store in the order of the tables: dibs, the peers, dibs without a part, the floor."""
    order = [Kind.DIBS, Kind.PEER, Kind.WITHOUT, Kind.FLOOR]
    found = [s for s in SYSTEMS.values() if s.store is store and s.name in results.versions]
    return sorted(found, key=lambda system: order.index(system.kind))


def _label(system: System) -> str:
    return f"{system.name} ({system.store.value})"


def _target_row(target: Target, results: Results) -> list[str]:
    value = target.look(results)
    goal = f"{target.goal:,g} {target.unit}"
    if value is None:
        return [target.store.value, target.what, goal, "–", "not measured"]
    digits = 0 if value >= 1000 else 2
    return [target.store.value, target.what, goal, f"{value:,.{digits}f}", target.verdict(value)]


def _systems(results: Results) -> Iterator[str]:
    for system in SYSTEMS.values():
        if system.name in results.absent:
            yield f"- {_label(system)} was not run: {results.absent[system.name]}"
        elif system.name in results.versions:
            versions = ", ".join(f"{name} {version}" for name, version in results.versions[system.name].items())
            weaker = f" Weaker than dibs: {system.weaker}." if system.weaker else ""
            yield f"- {_label(system)}: {versions or 'of Python'}. Durable by {system.durability}.{weaker}"
            yield f"  Set up as {system.configuration}."
    yield ""


def _scenario(key: str) -> str:
    return key.partition(".")[0]


def _title(key: str, metric: Metric) -> str:
    return f"{SCENARIOS[key.partition('.')[0]].title.lower()}, {metric.title}"


def _number(value: float, metric: Metric) -> str:
    return f"{value:,.{metric.digits}f}"


def _titled(title: str, *, is_markdown: bool) -> list[str]:
    return [f"### {title}", ""] if is_markdown else [title, "=" * len(title), ""]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, is_markdown: bool) -> list[str]:
    if not rows:
        return ["Nothing was measured.", ""]
    if is_markdown:
        body = [[value.replace("|", "\\|") for value in row] for row in rows]
        return [*(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *body)), ""]
    plain = [[value.replace("\\*", "*") for value in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in plain) for column in range(len(header))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) for row in plain]
    return [lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:]), ""]
