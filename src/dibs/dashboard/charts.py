"""Charts as SVG: bars and lines over minutes. Values in, markup out.

They are drawn in a box of fixed units that is stretched to the room that there is, so no text stands inside: words
and axes stand around them in the template. Nothing that a stranger wrote is put in unescaped: the parts are numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from dibs.dashboard.wording import clock

#: The box: units per minute, and its height.
_STEP, _HEIGHT = 10, 100
_GAP = 2
#: A bar is at least so high, that one job among a million is seen.
_LEAST = 2.5


class Series(NamedTuple):
    """One quantity by the minute."""

    #: Its class in the style sheet: a colour that means something.
    kind: str
    name: str
    #: None: nobody knows.
    values: Sequence[float | None]

    @property
    def is_there(self) -> bool:
        """Whether there is anything to be seen of it."""
        return any(self.values)


class Chart(NamedTuple):
    """A drawn chart and what stands beside it."""

    svg: Markup
    #: What the top of the box is.
    top: float
    #: Four times along the axis, the oldest first.
    times: list[str]
    series: Sequence[Series]


def bars(starts: Sequence[int], series: Sequence[Series], *, summary: str, say: Sequence[str]) -> Chart:
    """Draw bars on top of each other, a column per minute.

    Args:
        starts: of the minutes.
        series: from the bottom up.
        summary: what somebody is told who can't see it.
        say: what each column is about, in words.
    """
    sums = [sum(one.values[place] or 0 for one in series) for place in range(len(starts))]
    top = nice(max(sums, default=0))
    parts = []
    for place in range(len(starts)):
        bottom = float(_HEIGHT)
        for one in series:
            value = one.values[place] or 0
            if value <= 0:
                continue
            height = max(value / top * _HEIGHT, _LEAST)
            bottom -= height
            parts.append(
                f'<rect class="{one.kind}" x="{place * _STEP + _GAP / 2:g}" y="{bottom:.2f}" '
                f'width="{_STEP - _GAP}" height="{height:.2f}"/>'
            )
    return Chart(_frame(parts, starts, summary, say), top, _times(starts), series)


def lines(starts: Sequence[int], series: Sequence[Series], *, summary: str, say: Sequence[str]) -> Chart:
    """Draw a line per series with the area below the first one. What nobody knows is a gap."""
    known = [value for one in series for value in one.values if value is not None]
    top = nice(max(known, default=0))
    parts = []
    for place, one in enumerate(series):
        for stretch in _stretches(one.values):
            points = [((at + 0.5) * _STEP, _HEIGHT - value / top * (_HEIGHT - 1)) for at, value in stretch]
            if len(points) == 1:  # a lone minute: as wide as a minute is
                (x, y) = points[0]
                points = [(x - _STEP / 2, y), (x + _STEP / 2, y)]
            drawn = " ".join(f"{x:g},{y:.2f}" for x, y in points)
            if place == 0:
                area = f"{points[0][0]:g},{_HEIGHT} {drawn} {points[-1][0]:g},{_HEIGHT}"
                parts.append(f'<polygon class="{one.kind} area" points="{area}"/>')
            parts.append(f'<polyline class="{one.kind} line" points="{drawn}"/>')
    return Chart(_frame(parts, starts, summary, say), top, _times(starts), series)


def spark(values: Sequence[float | None], kind: str, *, summary: str) -> Markup:
    """Draw a small line without axes, for a row of a table."""
    top = max((value for value in values if value is not None), default=0) or 1
    parts = []
    for stretch in _stretches(values):
        points = [((at + 0.5) * _STEP, _HEIGHT - 4 - value / top * (_HEIGHT - 8)) for at, value in stretch]
        if len(points) == 1:
            (x, y) = points[0]
            points = [(x - _STEP / 2, y), (x + _STEP / 2, y)]
        drawn = " ".join(f"{x:g},{y:.1f}" for x, y in points)
        area = f"{points[0][0]:g},{_HEIGHT} {drawn} {points[-1][0]:g},{_HEIGHT}"
        parts.append(
            f'<polygon class="{kind} area" points="{area}"/><polyline class="{kind} line" points="{drawn}"/>'
        )
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(len(values) * _STEP, _HEIGHT, summary, Markup("".join(parts)))  # noqa: S704 -- numbers


def nice(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50, … that `value` fits below."""
    if value <= 1:
        return 1.0
    magnitude = 10.0 ** math.floor(math.log10(value))
    return next(step * magnitude for step in (1, 2, 5, 10) if value <= step * magnitude)


def _stretches(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Part the values at the gaps, with their places."""
    found: list[list[tuple[int, float]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            found.append([])
        else:
            found[-1].append((place, value))
    return [stretch for stretch in found if stretch]


def _frame(parts: Sequence[str], starts: Sequence[int], summary: str, say: Sequence[str]) -> Markup:
    width = len(starts) * _STEP
    grid = "".join(f'<line class="grid" x1="0" x2="{width}" y1="{y}" y2="{y}"/>' for y in (0, 50, 100))
    columns = Markup("").join(
        Markup('<rect class="column" x="{}" y="0" width="{}" height="{}"><title>{}  {}</title></rect>').format(
            place * _STEP, _STEP, _HEIGHT, clock(start)[:-3], words
        )
        for place, (start, words) in enumerate(zip(starts, say, strict=True))
    )
    drawn = Markup(grid + "".join(parts))  # noqa: S704 -- numbers
    drawn = Markup(grid + "".join(parts))  # noqa: S704 -- numbers
    return Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>').format(
        width, _HEIGHT, summary, drawn, columns
    )


def _times(starts: Sequence[int]) -> list[str]:
    quarter = len(starts) // 4
    return [clock(starts[place])[:-3] for place in (0, quarter, 2 * quarter, 3 * quarter)]
