"""A verdict as a table: a line for each figure, and whether the promise behind it was kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dibs.trial.screen import Span

_KEPT = "32"
_BROKEN = "1;31"


class Line(msgspec.Struct, frozen=True):
    """A line of the table. `is_kept` is None where nothing is promised."""

    name: str
    value: str
    note: str = ""
    is_kept: bool | None = None


def table(lines: Sequence[Line], *, has_drawing: bool = True) -> list[list[Span]]:
    """Return the table as text with colours."""
    kept, broken = ("✓", "✗") if has_drawing else ("ok", "NO")
    names = max(len(line.name) for line in lines)
    values = max(len(line.value) for line in lines)
    rows: list[list[Span]] = []
    for line in lines:
        mark = "" if line.is_kept is None else kept if line.is_kept else broken
        rows.append(
            [
                (f" {line.name.ljust(names)}  {line.value.rjust(values)} ", ""),
                (mark.ljust(len(kept)), _KEPT if line.is_kept else _BROKEN),
                (f"  {line.note}", "2"),
            ]
        )
    return rows
