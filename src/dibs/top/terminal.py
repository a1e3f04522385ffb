"""The terminal: drawn on line by line, and read key by key; left as it was found, however this ends."""

from __future__ import annotations

import codecs
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, TextIO

from dibs.top import keys
from dibs.top.cells import Line, plain, width_of

#: By style, its SGR codes: what it looks like, and its colour, which NO_COLOR leaves out.
STYLES: dict[str, tuple[str, str]] = {
    "": ("", ""),
    "title": ("1", ""),
    "dim": ("2", ""),
    "head": ("1;4", ""),
    "rest": ("2;4", ""),
    "good": ("", "32"),
    "warn": ("", "33"),
    "bad": ("1", "31"),
}
#: What stands for a sign that the terminal's encoding lacks.
_PLAIN = str.maketrans("▸█░…·–−↑↓", ">#.~.--^v")
#: The other screen, no cursor, no wrapping at the right edge; and back.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J", "\x1b[?7h\x1b[?25h\x1b[?1049l"
_SIGNALS = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM)


def can_be_drawn_on() -> bool:
    """Tell whether there is a terminal at both ends that obeys escape sequences."""
    return (
        sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown", ""}
    )


class Terminal:
    """The one at standard input and output. Used by one thread; `wake` by any."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._in = sys.stdin.fileno()
        self._has_colours = not os.environ.get("NO_COLOR")
        self._encoding = out.encoding or "ascii"
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waker, self._woken = os.pipe()[::-1]
        os.set_blocking(self._waker, False)
        os.set_blocking(self._woken, False)
        self._shown: list[str] = []
        self._size = (0, 0)
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Terminal:
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, self._on_signal)
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, as they are now."""
        columns, rows = os.get_terminal_size(self._out.fileno())
        return columns or 80, rows or 24  # a serial line does not say

    def paint(self, lines: Sequence[Line], size: tuple[int, int]) -> None:
        """Show these lines: what is the same as before is not sent."""
        # A full line is not followed by "erase the rest": the cursor still stands on its last sign.
        rendered = [self._render(line) + "\x1b[K" * (width_of(plain(line)) < size[0]) for line in lines]
        text = ""
        if size != self._size:
            self._size, self._shown = size, []
            text = "\x1b[2J"
        for place, line in enumerate(rendered):
            if place >= len(self._shown) or self._shown[place] != line:
                text += f"\x1b[{place + 1};1H{line}"
        self._shown = rendered
        self._write(text)

    def read(self, timeout: float) -> list[str]:
        """Return the keys that are pressed within that time; none as soon as somebody wakes this."""
        readable, _, _ = select.select([self._in, self._woken], [], [], timeout)
        if self._woken in readable:
            os.read(self._woken, 4096)
        if self._in not in readable:
            return []
        data = os.read(self._in, 4096)
        if not data:
            raise EOFError("The terminal is gone.")
        return keys.names(self._decoder.decode(data))

    def wake(self) -> None:
        """Have `read` return."""
        try:
            os.write(self._waker, b"\0")
        except BlockingIOError:
            pass  # it is full of wake-ups

    def _enter(self) -> None:
        self._before = termios.tcgetattr(self._in)
        tty.setcbreak(self._in)
        self._shown = []
        self._write(_ENTER)

    def _leave(self) -> None:
        try:
            self._write(_LEAVE)
        finally:
            termios.tcsetattr(self._in, termios.TCSAFLUSH, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- the handler's form
        if number == signal.SIGTERM:
            raise SystemExit(128 + number)
        if number == signal.SIGTSTP:
            self._leave()
            os.kill(os.getpid(), signal.SIGSTOP)  # goes on here when it is continued
            self._enter()
        self.wake()

    def _render(self, line: Line) -> str:
        if line and not plain(line):
            return ""
        return "".join(self._styled(text, style) for text, style in line)

    def _styled(self, text: str, style: str) -> str:
        codes = [code for name in style.split() for code in STYLES[name][: 1 + self._has_colours] if code]
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if codes and text else text

    def _write(self, text: str) -> None:
        if not text:
            return
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            text = text.translate(_PLAIN).encode(self._encoding, "replace").decode(self._encoding)
        self._out.write(text)
        self._out.flush()
