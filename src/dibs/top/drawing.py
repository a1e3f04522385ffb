"""A view as lines of text: pure, so that it can be looked at without a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from dibs.top import wording
from dibs.top.cells import Line, fit, left
from dibs.top.panes import Body, Row, body
from dibs.top.view import PANES, Deed, Pane, View

#: Lower than this, only the pane that is in use is shown.
_LOW = 14
#: Lines that are no pane's: two above, two below.
_FRAME = 4
#: Most lines that say what is wrong.
_NOTICE = 3
#: Columns left of the panes, for the mark of the row that is chosen.
_MARGIN = 2

_HELP = """\
Tab, 1 2 3     go to the next pane, or to one of them
↑ ↓ j k        choose a row; PgUp, PgDn, Home and End too
p              pause or resume the queue that is chosen
c              cancel the job that is chosen, among those that run
r              replay the dead letter that is chosen: it runs again
y, n           answer; any other key is a no
q              quit
?              this help

change is how many more jobs are ready than before, per second; done and
failed are outcomes per second, over the last seconds. Numbers in red want
to be looked at: dead letters, and jobs that nobody consumes."""

_QUESTIONS = {
    "pause": "Pause queue {}?",
    "resume": "Resume queue {}?",
    "cancel": "Cancel {}?",
    "replay": "Run {} again?",
}
_KEYS: dict[Pane, str] = {"queues": "p pause/resume", "workers": "c cancel", "failures": "r replay"}


def draw(view: View, width: int, height: int) -> list[Line]:
    """Return exactly `height` lines, none wider than `width`."""
    notice = _notice(view, width)
    room = max(height - _FRAME - len(notice), 0)
    if view.state.is_help:
        middle: list[Line] = [((f"  {line}", ""),) for line in _HELP.splitlines()]
        detail = ""
    else:
        middle, detail = _panes(view, width, room)
    foot = [((f" {detail}", "dim"),), _foot(view)]
    lines = [_head(view, width), _summary(view), *notice, *(middle + [()] * room)[:room], *foot]
    return [fit(line, width) for line in lines[:height]]


def snapshot(view: View, width: int) -> list[Line]:
    """Return all of it, as many lines as it takes: for a pipe, or a terminal that can't be drawn on."""
    lines = [_head(view, width), _summary(view), *_notice(view, width)]
    for pane in PANES:
        shown = body(pane, view, width)
        lines += [(), ((_title(shown, str(shown.count)), ""),), *(row.line for row in shown.rows)]
        lines += [((shown.empty, ""),)] * (not shown.rows)
    return [fit(line, width) for line in lines]


def page_rows(height: int) -> int:
    """Return by how many rows a page is."""
    return max(1, (height - _FRAME) // len(PANES) - 2)


def _head(view: View, width: int) -> Line:
    clock = wording.clock(view.now)
    name = "dibs top  "
    room = max(width - len(name) - len(clock) - 2, 0)
    return ((name, "title"), (left(view.location, room), ""), (f"  {clock}", "dim"))


def _summary(view: View) -> Line:
    look = view.look
    if view.trouble:
        return (
            (
                "no answer" if look is None else f"no answer; shown is what was seen at {wording.clock(look.at)}",
                "bad",
            ),
        )
    if look is None:
        return (("asking the broker …", "dim"),)
    ready = sum(info.ready for info in look.queues)
    dead = sum(info.dead for info in look.queues)
    slots = sum(worker.slots for worker in look.workers)
    busy = sum(min(sum(e.held for e in worker.executors), worker.slots) for worker in look.workers)
    pace = view.rates.total
    return (
        (f"{wording.number(ready)} ready   {busy} of {slots} slots busy   ", ""),
        (f"{wording.per_second(pace.done if pace else None)} done   ", ""),
        (f"{wording.per_second(pace.failed if pace else None)} failed", "bad" if pace and pace.failed else ""),
        (f"   {wording.number(dead)} dead", "bad" if dead else ""),
    )


def _notice(view: View, width: int) -> list[Line]:
    """Return what is wrong, on as many lines as are worth it."""
    note = view.look.note if view.look is not None else ""
    text, style = (view.trouble, "bad") if view.trouble else (note, "warn")
    return [((line, style),) for line in textwrap.wrap(text, width)[:_NOTICE]]


def _foot(view: View) -> Line:
    state = view.state
    if state.question is not None:
        return ((f" {question(state.question)} ", "warn"), ("y/n", "title"))
    if state.is_help:
        return ((" any key: back", "dim"),)
    if state.said:
        return ((f" {state.said}", "title"),)
    return ((f" {_KEYS[state.pane]}   ↑↓ choose   Tab pane   ? help   q quit", "dim"),)


def question(deed: Deed) -> str:
    """Return what the user is asked before something is done."""
    return _QUESTIONS[deed.verb].format(deed.name)


def _panes(view: View, width: int, room: int) -> tuple[list[Line], str]:
    """Return the lines of all panes, and what there is to say of the row that is chosen."""
    pane = view.state.pane
    shown: tuple[Pane, ...] = PANES if room + _FRAME >= _LOW else (pane,)
    bodies: dict[Pane, Body] = {name: body(name, view, width - _MARGIN) for name in shown}
    heights = share([max(len(made.rows), 1) for made in bodies.values()], shown.index(pane), room - len(shown))
    lines: list[Line] = []
    has_air = sum(heights) + 2 * len(shown) - 1 <= room
    for (name, made), height in zip(bodies.items(), heights, strict=True):
        lines += [()] * (has_air and bool(lines))
        lines += _pane(view, name, made, height, width)
    chosen = _chosen(view, pane, bodies[pane].rows)
    return lines, "" if chosen is None else bodies[pane].rows[chosen].detail


def share(wants: Sequence[int], first: int, room: int) -> list[int]:
    """Return how many rows each pane gets: what one does not need goes to `first`, then to others."""
    each = max(room, 0) // len(wants)
    given = [min(want, each) for want in wants]
    for place in sorted(range(len(wants)), key=lambda place: place != first):
        given[place] += max(0, min(wants[place] - given[place], room - sum(given)))
    return given


def _chosen(view: View, pane: Pane, rows: Sequence[Row]) -> int | None:
    return view.state.cursor(pane).place([row.key for row in rows]) if rows else None


def _pane(view: View, pane: Pane, made: Body, height: int, width: int) -> list[Line]:
    is_active = view.state.pane == pane
    chosen = _chosen(view, pane, made.rows) or 0
    top = max(0, min(chosen - height // 2, len(made.rows) - height))
    shown = made.rows[top : top + height]
    count = f"{top + 1}–{top + len(shown)} of {len(made.rows)}" if len(shown) < len(made.rows) else str(made.count)
    title = ("▸ " if is_active else "  ") + left(_title(made, count), width - _MARGIN)
    lines: list[Line] = [((title, "head" if is_active else "rest"),)]
    if not shown:
        return [*lines, ((f"  {made.empty}", "dim"),)][: height + 1]
    for place, row in enumerate(shown, top):
        is_chosen = is_active and place == chosen
        lines.append((("▸ " if is_chosen else "  ", "title"), *(_lit(row.line) if is_chosen else row.line)))
    return lines


def _title(made: Body, count: str) -> str:
    return left(f"{made.name} {'' if count == '0' else count}", made.room) + made.heads


def _lit(line: Line) -> Line:
    """Return a line as that of the row that is chosen: bold, in its colours."""
    return tuple((text, f"{style} title".strip() if style != "dim" else "title") for text, style in line)
