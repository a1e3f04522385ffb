"""What a key does: a state and a key make the next state, and perhaps a deed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from dibs.top.panes import Row
from dibs.top.view import PANES, Cursor, Deed, Pane, State

#: By how many rows a key moves the cursor; pages are counted by the caller.
_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1}
_VERBS: dict[str, tuple[Pane, str]] = {
    "p": ("queues", "Choose a queue to be paused or resumed (1, ↑↓)."),
    "c": ("workers", "Choose a job that runs to be cancelled (2, ↑↓)."),
    "r": ("failures", "Choose a dead letter to be replayed (3, ↑↓); what is to be retried runs again by itself."),
}


def press(state: State, key: str, rows: Mapping[Pane, Sequence[Row]], page: int) -> tuple[State, Deed | None]:
    """Return what the user is at after a key, and what is to be done now.

    Args:
        state: what the user was at.
        key: its name.
        rows: the rows of each pane.
        page: how many rows a page is.
    """
    if state.question is not None:
        deed = state.question if key == "y" else None
        return replace(state, question=None, said="" if deed else "left alone"), deed
    if state.is_help:
        return replace(state, is_help=False), None
    state = replace(state, said="")
    match key:
        case "q":
            return replace(state, is_quitting=True), None
        case "?" | "h":
            return replace(state, is_help=True), None
        case "tab" | "right" | "back-tab" | "left":
            step = 1 if key in {"tab", "right"} else -1
            return replace(state, pane=PANES[(PANES.index(state.pane) + step) % len(PANES)]), None
        case "1" | "2" | "3":
            return replace(state, pane=PANES[int(key) - 1]), None
        case "p" | "c" | "r":
            return _ask(state, key, rows), None
        case _:
            return _move(state, key, rows[state.pane], page), None


def _ask(state: State, key: str, rows: Mapping[Pane, Sequence[Row]]) -> State:
    """Ask whether to do it to the row that is chosen, where that can be."""
    pane, hint = _VERBS[key]
    row = chosen(state, rows[pane]) if state.pane == pane else None
    if row is None or row.deed is None:
        return replace(state, said=hint)
    # The row that was asked about stays chosen, whatever comes above it.
    return replace(_choose(state, rows[pane], _place(state, rows[pane])), question=row.deed)


def chosen(state: State, rows: Sequence[Row]) -> Row | None:
    """Return the row of the pane in use that is chosen."""
    return rows[_place(state, rows)] if rows else None


def _place(state: State, rows: Sequence[Row]) -> int:
    return state.cursor(state.pane).place([row.key for row in rows])


def _move(state: State, key: str, rows: Sequence[Row], page: int) -> State:
    if not rows:
        return state
    place, last = _place(state, rows), len(rows) - 1
    steps = {**_MOVES, "page-up": -page, "page-down": page, "home": -last, "g": -last, "end": last, "G": last}
    if key not in steps:
        return state
    return _choose(state, rows, max(0, min(place + steps[key], last)))


def _choose(state: State, rows: Sequence[Row], place: int) -> State:
    return replace(state, cursors={**state.cursors, state.pane: Cursor(rows[place].key, place)})
