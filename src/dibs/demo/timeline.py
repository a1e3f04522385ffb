"""The picture: a row per worker, a block per run, to scale. Pure: from a history to lines of text with colours."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dibs.demo.history import History, Run
from dibs.trial.screen import Span

_LABEL = 11
#: SGR codes: for a block's letter and for its body.
_WORK = ("1;97;48;5;26", "38;5;26")
_CUT = ("1;97;48;5;160", "38;5;160")
_AGAIN = ("1;97;48;5;28", "38;5;28")
_DIM = "2"
_BOLD = "1"


class Glyphs(msgspec.Struct, frozen=True):
    """The characters to draw with."""

    body: str = "█"
    tail: str = "▌"
    cut: str = "░"
    idle: str = "·"
    up: str = "▲"
    down: str = "▼"
    kill: str = "✗"
    line: str = "─"
    corner: str = "└"
    tick: str = "┴"
    dash: str = "–"


DRAWN = Glyphs()
#: For encodings that have no box drawing.
PLAIN = Glyphs("=", "|", "-", ".", "^", "v", "X", "-", "+", "+", "-")


class Timeline:
    """A history, drawn `width` columns wide."""

    def __init__(self, history: History, *, width: int, glyphs: Glyphs = DRAWN) -> None:
        self._history = history
        self._glyphs = glyphs
        self._columns = width - _LABEL - 1
        self._scale = (self._columns - 1) / max(history.makespan, 0.1)

    def lines(self) -> list[list[Span]]:
        """Return the picture, top to bottom."""
        workers = self._order()
        lines = [self._sendings()]
        for index, worker in enumerate(workers):
            lines.append(self._row(worker))
            below = workers[index + 1] if index + 1 < len(workers) else None
            lines.append(self._between(worker, below))
        lines[-1:] = [self._axis(), self._scale_numbers()]
        return lines

    def _column(self, moment: float) -> int:
        return round((moment - self._history.begin) * self._scale)

    def _order(self) -> list[int]:
        """Return the workers such that an arrow leads from the one that was killed to the one that took over."""
        workers = sorted(self._history.ready)
        again = self._history.again
        killed = self._history.kill.worker
        if again is not None and abs(workers.index(killed) - workers.index(again.worker)) > 1:
            workers.remove(killed)
            workers.insert(workers.index(again.worker), killed)
        return workers

    def _sendings(self) -> list[Span]:
        cells = Cells(self._columns)
        batches: dict[float, list[str]] = {}
        for sent in self._history.sent:
            batches.setdefault(sent.at, []).append(sent.job)
        for moment, jobs in batches.items():
            names = jobs[0] if len(jobs) == 1 else f"{jobs[0]}{self._glyphs.dash}{jobs[-1]}"
            text = f"{self._glyphs.down} {names}"
            early = " before" if moment < self._history.begin else ""
            cells.put(max(0, self._column(moment)), text + early, _DIM)
        return [_label("sent"), *cells.spans()]

    def _row(self, worker: int) -> list[Span]:
        history = self._history
        cells = Cells(self._columns)
        alive_until = history.kill.at if worker == history.kill.worker else history.end
        start = self._column(history.ready[worker])
        cells.put(start, self._glyphs.idle * (self._column(alive_until) - start), _DIM)
        for run in history.runs_of(worker):
            self._draw(cells, run)
        if worker == history.kill.worker:
            cells.put(self._column(history.kill.at), f"{self._glyphs.kill} killed (SIGKILL)", _CUT[1])
        return [_label(f"worker {worker}"), *cells.spans()]

    def _draw(self, cells: Cells, run: Run) -> None:
        history, glyphs = self._history, self._glyphs
        is_cut = run.end is None
        start = self._column(run.start)
        width = max(1, self._column(history.kill.at if run.end is None else run.end) - start)
        letter, body = _CUT if is_cut else _AGAIN if run == history.again else _WORK
        rest = glyphs.cut * (width - 1) if is_cut else (glyphs.body * (width - 2) + glyphs.tail)[: width - 1]
        cells.put(start, rest.rjust(width), body)
        cells.put(start, run.job, letter)

    def _between(self, above: int, below: int | None) -> list[Span]:
        """Return the line between two rows: empty, or the way of the job that was cut off."""
        history, again = self._history, self._history.again
        cells = Cells(self._columns)
        if again is not None and {above, below} == {history.kill.worker, again.worker}:
            arrow = self._glyphs.up if again.worker == above else self._glyphs.down
            column = self._column(again.start)
            text = f"{again.job} again, {(history.restart or 0.0) * 1000:.0f} ms after the kill"
            if column + len(text) + 2 > self._columns and column > len(text):
                cells.put(column - len(text) - 1, f"{text} {arrow}", _AGAIN[1])
            else:
                cells.put(column, f"{arrow} {text}", _AGAIN[1])
        return [(" " * _LABEL, ""), *cells.spans()]

    def _step(self) -> int:
        """Return the seconds between two ticks: so many that the numbers stand apart."""
        return next(step for step in (1, 2, 5, 10, 20, 60, 3600) if step * self._scale >= 5)

    def _axis(self) -> list[Span]:
        cells = Cells(self._columns)
        cells.put(0, self._glyphs.line * self._columns, _DIM)
        for second in range(0, int(self._history.makespan) + 1, self._step()):
            column = self._column(self._history.begin + second)
            cells.put(column, self._glyphs.corner if second == 0 else self._glyphs.tick, _DIM)
        return [(" " * _LABEL, ""), *cells.spans()]

    def _scale_numbers(self) -> list[Span]:
        cells = Cells(self._columns)
        for second in range(0, int(self._history.makespan) + 1, self._step()):
            cells.put(self._column(self._history.begin + second), f"{second}" if second else "0 s", _DIM)
        return [(" " * _LABEL, ""), *cells.spans()]


class Cells:
    """A line of single characters, each with its colour; what is put later covers what was there."""

    def __init__(self, columns: int) -> None:
        self._cells: list[Span] = [(" ", "")] * columns

    def put(self, column: int, text: str, codes: str) -> None:
        """Write `text` from `column` on; what is outside of the line is cut off."""
        for offset, sign in enumerate(text):
            if 0 <= column + offset < len(self._cells):
                self._cells[column + offset] = (sign, codes)

    def spans(self) -> list[Span]:
        """Return the line, neighbours of one colour joined."""
        joined: list[Span] = []
        for sign, codes in self._cells:
            if joined and joined[-1][1] == codes:
                joined[-1] = (joined[-1][0] + sign, codes)
            else:
                joined.append((sign, codes))
        return joined


def _label(text: str) -> Span:
    return (f" {text}".ljust(_LABEL), _BOLD)


def text_of(line: Sequence[Span]) -> str:
    """Return a line without its colours."""
    return "".join(text for text, _ in line).rstrip()
