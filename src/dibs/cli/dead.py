"""`dibs dead`: what was set aside: see it, replay it, drop it."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dibs.cli.arguments import (
    DECLINED,
    add_broker,
    add_json,
    add_yes,
    at_least_one,
    confirm,
    open_broker,
    print_json,
    print_table,
)
from dibs.errors import UsageError
from dibs.text import visible

if TYPE_CHECKING:
    from dibs.broker import Broker
    from dibs.outcome import DeadLetter

#: Dead letters fetched at a time.
_PAGE = 1000


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its verbs to the command line."""
    parser = commands.add_parser(
        "dead", help="see, replay or drop what was set aside", description="See, replay or drop dead letters."
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    listing = verbs.add_parser("list", help="list dead letters, oldest first")
    listing.add_argument("queue", metavar="QUEUE")
    listing.add_argument("--limit", type=at_least_one, default=50, metavar="N", help="how many (50)")
    listing.add_argument("--after", metavar="ID", help="go on behind this one")
    add_json(listing)
    listing.set_defaults(run=list_dead)

    show = verbs.add_parser("show", help="show one dead letter, whole")
    show.add_argument("queue", metavar="QUEUE")
    show.add_argument("id", metavar="ID")
    add_json(show)
    show.set_defaults(run=show_dead)

    for name, what, run in (("replay", "put back into the queue", replay), ("drop", "delete for good", drop)):
        verb = verbs.add_parser(name, help=what)
        verb.add_argument("queue", metavar="QUEUE")
        verb.add_argument("ids", nargs="*", metavar="ID")
        verb.add_argument("--all", action="store_true", help="every dead letter of the queue")
        add_yes(verb)
        verb.set_defaults(run=run)

    for verb in (listing, show, *(verbs.choices[name] for name in ("replay", "drop"))):
        add_broker(verb)


def list_dead(options: argparse.Namespace) -> int:
    """Print a page of dead letters."""
    with open_broker(options) as broker:
        letters = broker.dead(options.queue, limit=options.limit, after=options.after)
    if options.json:
        print_json([_as_json(letter) for letter in letters])
        return 0
    rows = [
        {
            "id": letter.message.id,
            "task": letter.message.task,
            "reason": letter.reason,
            "attempts": letter.message.attempt,
            "died": _show_time(letter.died),
            "error": visible(letter.error.strip()).rpartition("\n")[2][:80],
        }
        for letter in letters
    ]
    print_table(rows, f"no dead letters in {options.queue}")
    return 0


def show_dead(options: argparse.Namespace) -> int:
    """Print one dead letter with its error and its message as it came."""
    with open_broker(options) as broker:
        letter = next((one for one in _all(broker, options.queue) if one.message.id == options.id), None)
    if letter is None:
        raise UsageError(f"Queue {options.queue!r} has no dead letter {options.id!r}. See dibs dead list.")
    if options.json:
        print_json(_as_json(letter))
        return 0
    for name, value in _as_json(letter).items():
        if name not in {"error", "body"} and value not in (None, {}):
            print(f"{name + ':':12} {visible(str(value))}")
    body = letter.message.body.decode("utf-8", "backslashreplace")
    print(f"\n{visible(letter.error.rstrip())}\n\n{visible(body)}")
    return 0


def replay(options: argparse.Namespace) -> int:
    """Put dead letters back into their queue."""
    _check_choice(options)
    with open_broker(options) as broker:
        if options.all and not confirm(options, f"Put every dead letter of {options.queue} back into the queue?"):
            return DECLINED
        return _count(broker.replay(options.queue, None if options.all else options.ids), "replayed", options)


def drop(options: argparse.Namespace) -> int:
    """Delete dead letters for good."""
    _check_choice(options)
    with open_broker(options) as broker:
        what = "every dead letter" if options.all else f"the dead letter{'s' * (len(options.ids) > 1)} named"
        if not confirm(options, f"Delete {what} of {options.queue} at {broker.location} for good?"):
            return DECLINED
        if options.all:
            return _count(broker.purge(options.queue, state="dead"), "dropped", options)
        return _count(broker.drop(options.queue, options.ids), "dropped", options)


def _check_choice(options: argparse.Namespace) -> None:
    if options.all == bool(options.ids):
        raise UsageError("Name the dead letters by their ids, or give --all for every one.")


def _count(count: int, verb: str, options: argparse.Namespace) -> int:
    print(f"{verb} {count}")
    if missing := 0 if options.all else len(set(options.ids)) - count:
        raise UsageError(f"{missing} of the ids are no dead letters of queue {options.queue!r}.")
    return 0


def _all(broker: Broker, queue: str) -> Iterator[DeadLetter]:
    after = None
    while page := broker.dead(queue, limit=_PAGE, after=after):
        yield from page
        after = page[-1].message.id


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    message = letter.message
    return {
        "id": message.id,
        "task": message.task,
        "queue": message.queue,
        "reason": letter.reason,
        "died": _show_time(letter.died),
        "worker": letter.worker,
        "attempts": message.attempt,
        "crashes": message.crashes,
        "enqueued": _show_time(message.enqueued),
        "headers": message.headers,
        "properties": message.properties,
        "error": letter.error,
        "body": message.body.decode("utf-8", "backslashreplace"),
    }


def _show_time(ms: int | None) -> str | None:
    return None if ms is None else dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
