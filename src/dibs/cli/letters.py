"""Dead letters as people and programs read them."""

from __future__ import annotations

import base64
import datetime as dt
import shutil
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dibs.cli.shown import age, count, iso, pretty, text_of
from dibs.text import visible

if TYPE_CHECKING:
    from dibs.outcome import DeadLetter

#: What a page begins with, in this order.
_HEAD = (
    "id", "queue", "task", "reason", "died", "worker", "attempts", "crashes", "enqueued", "priority", "content_type",
)  # fmt: skip


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """Return all of a letter under the names that `docs/reference/cli.md` fixes. Times are in UTC."""
    message = letter.message
    text = text_of(message.body)
    return {
        "id": message.id,
        "queue": message.queue,
        "task": message.task,
        "reason": letter.reason,
        "died": iso(letter.died, dt.UTC),
        "worker": letter.worker,
        "attempts": message.attempt,
        "crashes": message.crashes,
        "enqueued": iso(message.enqueued, dt.UTC),
        "priority": message.priority,
        "content_type": message.content_type,
        "headers": message.headers,
        "properties": message.properties,
        "error": letter.error,
        "body": text,
        "body_base64": base64.b64encode(message.body).decode() if text is None else None,
    }


def as_entry(letter: DeadLetter, now: float) -> str:
    """Return a letter in the two lines that a list has of it, cut to the width of the terminal."""
    message = letter.message
    crashes = f", {count(message.crashes, 'crash', 'crashes')}" if message.crashes else ""
    head = f"{message.id}  {letter.reason or '-'}  {message.task or '-'}"
    tail = f"  {age(letter.died, now)}, {count(message.attempt, 'attempt', 'attempts')}{crashes}: {gist(letter)}"
    width = shutil.get_terminal_size().columns
    # Never a cut id: it is there to be copied.
    return f"{visible(head).replace(chr(10), ' ')}\n{tail if len(tail) <= width else tail[: width - 1] + '…'}"


def as_page(letter: DeadLetter) -> str:
    """Return all of a letter. Times are the reader's own."""
    values = as_json(letter)
    values |= {"died": iso(letter.died, None), "enqueued": iso(letter.message.enqueued, None)}
    lines = [f"{name + ':':14}{'-' if values[name] in {None, ''} else values[name]}" for name in _HEAD]
    for name in ("headers", "properties"):
        lines += [f"{name}:"] * bool(values[name])
        lines += [f"  {key}: {value!r}" for key, value in values[name].items()]
    lines += ["", "error:", letter.error.rstrip() or "-", "", f"body, {len(letter.message.body)} bytes:"]
    lines.append(pretty(letter.message.body))
    return visible("\n".join(lines))


def gist(letter: DeadLetter) -> str:
    """Return what the error comes down to: its last line, where a traceback says what was raised."""
    return visible(letter.error.strip().rpartition("\n")[2]).replace("\t", " ") or "-"


def summarize(letters: Iterable[DeadLetter], queue: str) -> list[dict[str, Any]]:
    """Return one row per task and reason, with how many there are, since when, and what the newest one said."""
    rows: dict[tuple[str | None, str], dict[str, Any]] = {}
    newest: dict[tuple[str | None, str], int] = {}
    for letter in letters:
        key = letter.message.task, letter.reason
        row = rows.setdefault(
            key,
            {
                "queue": queue,
                "task": key[0],
                "reason": key[1],
                "count": 0,
                "oldest": None,
                "newest": None,
                "error": "",
            },
        )
        row["count"] += 1
        if letter.died is not None:
            row["oldest"] = min(letter.died, row["oldest"] or letter.died)
            row["newest"] = max(letter.died, row["newest"] or letter.died)
        if (letter.died or 0) >= newest.get(key, 0):
            newest[key], row["error"] = letter.died or 0, gist(letter)
    return sorted(rows.values(), key=lambda row: -row["count"])


def as_row(row: dict[str, Any], now: float, room: int) -> dict[str, Any]:
    """Return a row of `summarize` for a table, its error cut to `room`."""
    error = row["error"] if len(row["error"]) <= room else row["error"][: room - 1] + "…"
    return {
        "queue": row["queue"],
        "task": row["task"],
        "reason": row["reason"] or "-",
        "count": row["count"],
        "newest": age(row["newest"], now),
        "error": error,
    }


def dated(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `summarize` with its times as text, for programs."""
    return row | {name: iso(row[name], dt.UTC) for name in ("oldest", "newest")}
