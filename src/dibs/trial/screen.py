"""The terminal, or whatever stands in for it: lines, a line that is overwritten, colours where they are wanted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import TextIO

#: Wider than this, blocks only grow.
_WIDEST = 120
_NARROWEST = 60
#: Characters of the picture that an encoding has to have.
_DRAWN = "█▌░·▲▼✗─┴└…–✓"

#: A piece of text with the SGR codes that it is to have.
Span = tuple[str, str]


class Screen:
    """Writes to a stream. Escape codes go to terminals only, and colours only without NO_COLOR."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.is_terminal = out.isatty() and os.environ.get("TERM") != "dumb"
        self._has_colours = self.is_terminal and not os.environ.get("NO_COLOR")
        self.has_drawing = _can_encode(out, _DRAWN)
        self._is_transient = False

    @property
    def width(self) -> int:
        """Columns to be used: the terminal's within reason, 80 elsewhere."""
        columns = shutil.get_terminal_size((80, 24)).columns if self.is_terminal else 80
        return max(_NARROWEST, min(columns, _WIDEST))

    def line(self, *spans: Span | str) -> None:
        """Write a line."""
        self._erase()
        self._out.write(self._render(spans) + "\n")
        self._out.flush()

    def transient(self, *spans: Span | str) -> None:
        """Write a line that the next one overwrites; nothing where that can't be."""
        if self.is_terminal:
            self._erase()
            self._out.write(self._render(spans))
            self._out.flush()
            self._is_transient = True

    def clear(self) -> None:
        """Take the transient line away, if there is one."""
        self._erase()
        self._out.flush()

    def _erase(self) -> None:
        if self._is_transient:
            self._out.write("\r\x1b[2K")
            self._is_transient = False

    def _render(self, spans: Sequence[Span | str]) -> str:
        pairs = [(span, "") if isinstance(span, str) else span for span in spans]
        if not self._has_colours:
            return "".join(text for text, _ in pairs).rstrip()
        return "".join(f"\x1b[{codes}m{text}\x1b[0m" if codes else text for text, codes in pairs)


def _can_encode(out: TextIO, text: str) -> bool:
    try:
        text.encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
