"""Text in the cells of a terminal: how wide it is, and made to fit."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from dibs.text import visible

#: A piece of text with its style: one of the keys of `terminal.STYLES`, or "".
Span = tuple[str, str]
#: A line of the screen.
Line = tuple[Span, ...]


def width_of(text: str) -> int:
    """Return how many columns a terminal takes for it: two for East Asian signs, none for what stands on another."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(sign: str) -> int:
    if unicodedata.combining(sign) or unicodedata.category(sign) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(sign) in {"W", "F"} else 1


def one_line(text: str) -> str:
    """Return a stranger's text on one line, such that a terminal obeys nothing in it."""
    return " ".join(visible(text[:2000]).split())


def cut(text: str, room: int) -> str:
    """Return as much of the text as there is room for; an ellipsis says that there was more."""
    if width_of(text) <= room:
        return text
    if room < 1:
        return ""
    kept, used = [], 0
    for sign in text:
        used += _columns(sign)
        if used > room - 1:
            break
        kept.append(sign)
    return "".join(kept) + "…"


def left(text: str, room: int) -> str:
    """Return the text in exactly so many columns, at their left."""
    shown = cut(text, room)
    return shown + " " * (room - width_of(shown))


def right(text: str, room: int) -> str:
    """Return the text in exactly so many columns, at their right."""
    shown = cut(text, room)
    return " " * (room - width_of(shown)) + shown


def fit(spans: Iterable[Span], room: int) -> Line:
    """Return a line no wider than there is room for."""
    fitted: list[Span] = []
    for text, style in spans:
        shown = cut(text, room)
        fitted.append((shown, style))
        room -= width_of(shown)
        if shown != text:
            break
    return tuple(fitted)


def plain(line: Line) -> str:
    """Return a line without its styles."""
    return "".join(text for text, _ in line).rstrip()
