"""Numbers and times in the few columns that a pane has for them. Times are ms since 1970, or ms long."""

from __future__ import annotations

import time

from dibs.ledger.life import Progress

#: In seconds, each with the unit that it is told in.
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def number(value: int | None) -> str:
    """Return a count in at most seven columns; a dash where nobody can count."""
    if value is None:
        return "–"
    for size, unit in ((10**9, "G"), (10**6, "M")):
        if value >= size:
            return f"{value / size:.1f}{unit}" if value < 100 * size else f"{value // size}{unit}"
    return f"{value:,}"


def per_second(value: float | None) -> str:
    """Return a rate; a dash where it is not known yet."""
    if value is None:
        return "–"
    if value < 0.05:
        return "0/s"
    return f"{value:.1f}/s" if value < 9.95 else f"{number(round(value))}/s"


def change(value: float | None) -> str:
    """Return how fast something grows or shrinks; nothing where it does neither."""
    if value is None or abs(value) < 0.05:
        return "" if value is not None else "–"
    return ("+" if value > 0 else "−") + per_second(abs(value))


def span(ms: int) -> str:
    """Return how long something takes, in its largest unit but one: "0.4s", "12s", "3m10s", "2h05m", "4d03h"."""
    seconds = max(0, ms) / 1000
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def age(ms: int) -> str:
    """Return how long something has been, in one unit."""
    seconds = max(0, ms) // 1000
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def clock(ms: int) -> str:
    """Return a time of day in the reader's own time zone."""
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000))


def megabytes(count: int) -> str:
    """Return a number of bytes."""
    return f"{count / 1e9:.1f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


def bar(progress: Progress, width: int) -> str:
    """Return a picture of how far a job is; nothing where it does not know how much there is."""
    share = share_of(progress)
    if share is None:
        return ""
    full = round(share * width)
    return "█" * full + "░" * (width - full)


def share_of(progress: Progress) -> float | None:
    """Return how far a job is, from 0 to 1; None: nobody knows."""
    if progress.total is None or not progress.total > 0:
        return None
    return min(max(progress.done / progress.total, 0.0), 1.0)


def far(progress: Progress) -> str:
    """Return how far a job is in words: a share, or a count."""
    share = share_of(progress)
    return f"{progress.done:g}" if share is None else f"{share:.0%}"
