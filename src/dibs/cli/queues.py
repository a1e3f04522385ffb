"""`dibs queues`: what waits where."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dibs.cli.arguments import add_broker, add_json, open_app, print_json, read_interval, table

if TYPE_CHECKING:
    from dibs.app import Dibs
    from dibs.broker import QueueInfo

#: Seconds between two looks, where nothing else is said.
_INTERVAL = 2.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "queues",
        help="show what waits where",
        description="Show each queue with what it holds. '-': this broker can't count it. RabbitMQ can't list its "
        "queues, so there the names are taken from --app or the command line.",
    )
    parser.add_argument("names", nargs="*", metavar="QUEUE", help="these too, where the broker can't list its queues")
    parser.add_argument(
        "--watch", nargs="?", type=read_interval, const=_INTERVAL, metavar="SECONDS",
        help=f"show it again and again, every so many seconds ({_INTERVAL:g})",
    )  # fmt: skip
    add_broker(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table, once or again and again."""
    with open_app(options) as app:
        if options.watch is not None:
            _watch(app, options)
        found = _look(app, options)
        location = app.broker.location
    if options.json:
        print_json(_builtins(found))
    else:
        print(*_lines(location, found), sep="\n")
    return 0


def _look(app: Dibs, options: argparse.Namespace) -> list[QueueInfo]:
    return app.broker.queues(app.queue_names | set(options.names))


def _watch(app: Dibs, options: argparse.Namespace) -> None:
    """Print it until somebody has seen enough: in place at a terminal, else one table below the other."""
    is_terminal = sys.stdout.isatty()
    is_first = True
    while True:
        found = _look(app, options)
        if options.json:
            print(json.dumps(_builtins(found), ensure_ascii=False), flush=True)
        elif is_terminal:
            lines = [f"{line}\x1b[K" for line in _lines(f"{app.broker.location}  {time.strftime('%H:%M:%S')}", found)]
            print("\x1b[2J" * is_first + "\x1b[H" + "\n".join(lines) + "\n\x1b[J", end="", flush=True)
        else:
            print(*[""] * (not is_first), *_lines(app.broker.location, found), sep="\n", flush=True)
        is_first = False
        time.sleep(options.watch)


def _lines(location: str, found: Sequence[QueueInfo]) -> list[str]:
    rows = _builtins(found)
    is_any_paused = any(info.is_paused for info in found)
    for row in rows:
        is_paused = row.pop("is_paused")
        if is_any_paused:
            row["state"] = "paused" if is_paused else ""
    return [location, *table(rows, "no queues")]


def _builtins(found: Sequence[QueueInfo]) -> list[dict[str, Any]]:
    import msgspec  # noqa: PLC0415

    rows: list[dict[str, Any]] = msgspec.to_builtins(found)
    return rows
