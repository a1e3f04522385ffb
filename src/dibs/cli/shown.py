"""Times, spans, sizes and bodies as people and programs read them."""

from __future__ import annotations

import argparse
import datetime as dt
import re

from dibs.text import visible

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: A century: further back there is nothing.
_LONGEST_SPAN = 36500 * 86400


def read_span(text: str) -> float:
    """Read a time span that was typed, as seconds."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time span. Write a number and its unit: 30s, 15m, 2h, 7d.")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST_SPAN:
        raise argparse.ArgumentTypeError(f"{text!r} is over a hundred years.")
    return seconds


def clock(ms: int) -> str:
    """Return a time for people, in their own time zone."""
    return dt.datetime.fromtimestamp(ms / 1000).isoformat(" ", "milliseconds")  # noqa: DTZ006 -- that is their own


def iso(ms: int | None, zone: dt.tzinfo | None) -> str | None:
    """Return a time as ISO 8601; without a zone, in the reader's own."""
    if ms is None:
        return None
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).astimezone(zone).isoformat(timespec="milliseconds")


def age(ms: int | None, now: float) -> str:
    """Return how long ago something was, in its largest unit."""
    if ms is None:
        return "at an unknown time"
    seconds = max(0, int(now - ms / 1000))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def span(ms: int | None) -> str:
    """Return how long something took, as precisely as it matters."""
    if ms is None:
        return "-"
    seconds = max(0, ms) / 1000
    if seconds < 100:
        return f"{seconds:.3f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 60:
        return f"{minutes}m {int(seconds % 60)}s"
    return f"{hours}h {minutes % 60}m" if hours < 48 else f"{days}d {hours % 24}h"


def megabytes(count: int) -> str:
    """Return a number of bytes in millions."""
    return f"{count / 1e6:.0f} MB"


def count(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else many}"


def cut(text: str, room: int) -> str:
    """Return text on one line and no longer than there is room."""
    line = " ".join(visible(text).split())
    return line if len(line) <= room else line[: max(room - 1, 0)] + "…"


def text_of(body: bytes) -> str | None:
    """Return a body as text; None: it is none."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def pretty(body: bytes) -> str:
    """Return a body laid out for reading, where it is JSON."""
    import msgspec  # noqa: PLC0415

    try:
        return msgspec.json.format(body, indent=2).decode()  # leaves names, numbers and order as they came
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return body.decode("utf-8", "backslashreplace")
