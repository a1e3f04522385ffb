"""Numbers, times and strangers' text, as a page shows them: Jinja filters, all pure."""

from __future__ import annotations

import json
import time
from typing import Any

from markupsafe import Markup, escape

#: Longest text that a page shows of an error, an argument or a result, in characters.
LONGEST = 64 * 1024
#: What a job's place in its life is called on a page, with the sign that stands for it beside its colour.
SIGNS = {
    "delayed": "◷",
    "ready": "○",
    "running": "●",
    "done": "✓",
    "dead": "✕",
    "cancelled": "⊘",
    "retry": "↻",
    "lost": "⚡",
}
#: In seconds, the longest first, each with the unit that its rest is told in.
_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def number(value: float | None) -> str:
    """Return a count with its thousands apart; a dash where nobody can count."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def duration(ms: float | None) -> str:
    """Return a length of time in two figures or so: "12 ms", "3.4 s", "2 min 5 s", "3 h 20 min", "4 d 2 h"."""
    if ms is None:
        return "–"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 59_500:
        return f"{ms / 1000:.1f} s" if ms < 9_950 else f"{ms / 1000:.0f} s"
    seconds = round(ms / 1000)
    for unit, name, below, below_name in _UNITS:
        if seconds >= unit:
            whole, rest = divmod(seconds, unit)
            part = rest // below
            return f"{whole} {name} {part} {below_name}" if part else f"{whole} {name}"
    return f"{seconds} s"


def clock(ms: int | None, now: int | None = None) -> str:
    """Return a time of day, with the date where that is not today's; in the time zone of the server."""
    if ms is None:
        return "–"
    then = time.localtime(ms / 1000)
    today = time.localtime((now if now is not None else time.time() * 1000) / 1000)
    form = "%H:%M:%S" if then[:3] == today[:3] else "%d %b %H:%M:%S"
    return time.strftime(form if then[0] == today[0] else "%Y-%m-%d %H:%M", then)


def moment(ms: int | None, now: int | None = None) -> Markup:
    """Return a time as an element that says it in full to machines, and to who hovers over it."""
    if ms is None:
        return Markup('<span class="none">–</span>')
    full = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) + f".{ms % 1000:03d}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms / 1000)) + "Z"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, full, clock(ms, now))


def ago(ms: int | None, now: int) -> str:
    """Return how long ago that was."""
    return "–" if ms is None else duration(max(0, now - ms)) + " ago"


def size(count: int) -> str:
    """Return a number of bytes in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count = count / 1000  # type: ignore[assignment]  # a float from here on
    return ""


def status(value: str) -> Markup:
    """Return a state or outcome as a word with its sign, in its colour."""
    return Markup('<span class="status {0}"><span aria-hidden="true">{1}</span>{0}</span>').format(
        value, SIGNS.get(value, "·")
    )


def clip(text: str, limit: int = LONGEST) -> str:
    """Return `text` with its middle left out where it is long: the head says where, the tail says what."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n\n[… {number(len(text) - 2 * half)} characters left out …]\n\n{text[-half:]}"


def last_line(error: str | None) -> str:
    """Return what an error says in one line: a traceback's last one."""
    lines = (error or "").strip().rsplit("\n", 1)
    return lines[-1][:300]


def pretty(data: bytes) -> str:
    """Return JSON with its lines indented, other text as it is, and other bytes as Python writes them."""
    if len(data) > 4 * LONGEST:  # to indent it all would take longer than anybody wants to read
        return clip(data[:LONGEST].decode("utf-8", "replace") + data[-LONGEST:].decode("utf-8", "replace"))
    try:
        text = json.dumps(json.loads(data), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = repr(data)[2:-1]
    return clip(text)


def short_id(value: str) -> Markup:
    """Return a job id of which the part that tells jobs apart is seen first: a UUID's last twelve signs."""
    if len(value) == 36 and value.count("-") == 4:
        return Markup('<span class="dim">{}…</span>{}').format(value[:8], value[-12:])
    return escape(value if len(value) <= 40 else value[:39] + "…")


FILTERS: dict[str, Any] = {
    "number": number,
    "duration": duration,
    "clock": clock,
    "moment": moment,
    "ago": ago,
    "size": size,
    "status": status,
    "clip": clip,
    "last_line": last_line,
    "pretty": pretty,
    "short_id": short_id,
}
