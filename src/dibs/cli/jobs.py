"""`dibs jobs`: what became of whom, newest first."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dibs.cli import lives
from dibs.cli.arguments import add_broker, add_json, at_least_one, open_app, print_json, print_table
from dibs.cli.catching_up import catch_up
from dibs.cli.shown import cut, read_span
from dibs.errors import UsageError
from dibs.ledger.life import STATUSES

if TYPE_CHECKING:
    from dibs.ledger.ledger import Ledger
    from dibs.ledger.life import JobInfo, JobSelection

_PAGE = 500
#: With less room than this it is not worth while to show what jobs say.
_LEAST_SAYS = 16
#: Seconds between two looks with `--follow`, and how far each looks back: clocks differ.
_INTERVAL, _OVERLAP = 1.0, 5.0
#: So many pages are read per look; where more happens than anybody can read, the rest is left out.
_FOLLOWED_PAGES = 4


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "jobs",
        help="list jobs, newest first",
        description="List jobs, newest first: what waits, runs, is done, dead or cancelled. Filters add up.",
    )
    parser.add_argument(
        "--state", action="append", choices=STATUSES, dest="states", metavar="STATE",
        help=f"only those in it: {', '.join(STATUSES)}; may be repeated",
    )  # fmt: skip
    parser.add_argument("-q", "--queue", metavar="QUEUE", help="only those of this queue")
    parser.add_argument("--task", metavar="TASK", help="only those of this task")
    parser.add_argument(
        "--since", type=read_span, metavar="AGE", help="only what was handed over, began or ended since: 15m, 2h, 7d"
    )
    parser.add_argument("--limit", type=at_least_one, metavar="N", default=50, help="how many (50)")
    parser.add_argument("--after", metavar="CURSOR", help="go on where a list before ended")
    parser.add_argument("-f", "--follow", action="store_true", help="show what happens from now on, too, as it does")
    add_broker(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list, and what happens afterwards if asked."""
    if options.follow and options.after is not None:
        raise UsageError("--follow goes on with what is new, and --after with what is old: give one of them.")
    with open_app(options) as app:
        ledger = catch_up(app.broker.ledger)
        if options.follow:
            _follow(ledger, options)
        else:
            _list(ledger, options)
    return 0


def _selection(options: argparse.Namespace, since: int | None = None) -> JobSelection:
    from dibs.ledger.life import JobSelection  # noqa: PLC0415
    from dibs.message import now_ms  # noqa: PLC0415

    if since is None and options.since is not None:
        since = now_ms() - int(options.since * 1000)
    return JobSelection(
        statuses=frozenset(options.states) if options.states else None,
        queue=options.queue,
        task=options.task,
        since=since,
    )


def _list(ledger: Ledger, options: argparse.Namespace) -> None:
    selection, after = _selection(options), options.after
    found: list[JobInfo] = []
    while True:
        page = ledger.jobs(selection, limit=min(_PAGE, options.limit - len(found)), after=after)
        found += page.jobs
        after = page.next
        if after is None or page.is_cut or len(found) >= options.limit:
            break
    if options.json:
        print_json({"jobs": [lives.as_json(info) for info in found], "next": after, "is_cut": page.is_cut})
        return
    now = time.time()
    rows = [lives.as_row(info, now) for info in found]
    shown = _fit(rows, shutil.get_terminal_size().columns) if sys.stdout.isatty() else rows
    print_table(shown, "no jobs so far" if page.is_cut else "no jobs")
    if after is not None:
        why = "Looking took too long, so this may not be all" if page.is_cut else "There are more"
        print(f"{why}: go on with --after {after}, or give --limit or a narrower filter.", file=sys.stderr)


def _fit(rows: list[dict[str, Any]], width: int) -> list[dict[str, Any]]:
    """Leave out of a table what a terminal has no room for; the ids never: they are there to be copied."""
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) + 2 for name in (rows[0] if rows else ())}
    room = width + 2 - sum(widths.values()) + widths.get("says", 0)
    if room - 2 >= _LEAST_SAYS:
        return [row | {"says": cut(row["says"], room - 2)} for row in rows]
    left_out = {"says"}
    for name in ("took", "attempt"):
        if room < 0:
            left_out.add(name)
            room += widths[name]
    return [{name: value for name, value in row.items() if name not in left_out} for row in rows]


def _follow(ledger: Ledger, options: argparse.Namespace) -> None:
    """Print a line for each step of each job, until somebody has seen enough."""
    from dibs.message import now_ms  # noqa: PLC0415

    seen: dict[str, tuple[str, int]] = {}
    for info in reversed(ledger.jobs(_selection(options), limit=min(options.limit, _PAGE)).jobs):
        seen[info.id] = (info.status, info.attempt)
        _print_step(info, is_json=options.json)
    while True:
        time.sleep(_INTERVAL)
        found = list(_recent(ledger, _selection(options, now_ms() - int(_OVERLAP * 1000))))
        for info in reversed(found):
            if seen.get(info.id) != (info.status, info.attempt):
                _print_step(info, is_json=options.json)
        seen |= {info.id: (info.status, info.attempt) for info in found}
        for forgotten in list(seen)[: -_PAGE * _FOLLOWED_PAGES * 4]:
            del seen[forgotten]


def _recent(ledger: Ledger, selection: JobSelection) -> Iterator[JobInfo]:
    after: str | None = None
    for _ in range(_FOLLOWED_PAGES):
        page = ledger.jobs(selection, limit=_PAGE, after=after)
        yield from page.jobs
        after = page.next
        if after is None:
            return


def _print_step(info: JobInfo, *, is_json: bool) -> None:
    if is_json:
        print(json.dumps(lives.as_json(info), ensure_ascii=False), flush=True)
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 500
        print(lives.as_step(info, width), flush=True)
