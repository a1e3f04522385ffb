"""`dibs dead`: what was set aside: see it, replay it, drop it."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Generator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from dibs.cli import letters
from dibs.cli.arguments import (
    DECLINED,
    add_broker,
    add_json,
    add_yes,
    at_least_one,
    confirm,
    open_app,
    print_json,
    print_json_list,
    print_table,
)
from dibs.cli.shown import read_span
from dibs.errors import UnknownQueue, UsageError
from dibs.text import visible

if TYPE_CHECKING:
    from dibs.app import Dibs
    from dibs.outcome import DeadLetter
    from dibs.selection import Selection

#: What a table of the dead takes beside its names and errors, and what an error has at least.
_TABLE_REST, _LEAST_ERROR = 25, 20


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its verbs to the command line."""
    parser = commands.add_parser(
        "dead", help="see, replay or drop what was set aside", description="See, replay or drop dead letters."
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    listing = verbs.add_parser(
        "list",
        help="list dead letters, oldest first; without a queue, count them by task and reason",
        description="List the dead letters of a queue, oldest first. Without a queue: count those of all queues by "
        "task and reason, with what the newest of each said.",
    )
    listing.add_argument("queue", nargs="?", metavar="QUEUE")
    _add_filters(listing)
    listing.add_argument("--limit", type=at_least_one, metavar="N", help="how many (50)")
    listing.add_argument("--after", metavar="ID", help="go on behind this one")
    add_json(listing)
    listing.set_defaults(run=list_dead)

    show = verbs.add_parser("show", help="show one dead letter, whole")
    show.add_argument("id", metavar="ID")
    _add_queue(show)
    add_json(show)
    show.set_defaults(run=show_dead)

    for name, what in (("replay", "put back into the queue"), ("drop", "delete for good")):
        verb = verbs.add_parser(
            name,
            help=what,
            description=f"{what.capitalize()}: those with these ids, or those that fit all filters, or --all. "
            "Filters given with ids narrow them down.",
        )
        verb.add_argument("ids", nargs="*", metavar="ID")
        _add_queue(verb)
        _add_filters(verb)
        verb.add_argument("--all", action="store_true", help="every dead letter of the queue, or of all queues")
        add_yes(verb)
        verb.set_defaults(run=replay if name == "replay" else drop)

    for verb in verbs.choices.values():
        add_broker(verb)


def _add_queue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--queue", metavar="QUEUE", help="look in this queue only (all)")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", help="only those of this task")
    parser.add_argument("--reason", help="only those with this reason: failed, crashed, unknown-task, …")
    parser.add_argument(
        "--older", type=read_span, metavar="AGE", help="only those that died longer ago: 30s, 15m, 2h, 7d"
    )
    parser.add_argument("--newer", type=read_span, metavar="AGE", help="only those that died since then")


def _selection(options: argparse.Namespace) -> Selection:
    from dibs.message import now_ms  # noqa: PLC0415
    from dibs.selection import Selection  # noqa: PLC0415

    now, ids = now_ms(), getattr(options, "ids", None)
    return Selection(
        ids=frozenset(ids) if ids else None,
        task=options.task,
        reason=options.reason,
        died_before=None if options.older is None else now - int(options.older * 1000),
        died_since=None if options.newer is None else now - int(options.newer * 1000),
    )


def _queues(app: Dibs, options: argparse.Namespace) -> list[str]:
    """Return the queues to look in.

    Raises:
        UsageError: none is named, and the broker can't list them.
    """
    if options.queue is not None:
        return [options.queue]
    if not app.queue_names and not app.broker.capabilities.lists_queues:
        raise UsageError(
            f"{app.broker.location} can't list its queues. Name one, or the app that has them (--app or DIBS_APP)."
        )
    return [info.name for info in app.broker.queues(app.queue_names)]


def _each(app: Dibs, options: argparse.Namespace, queue: str, selection: Selection) -> Generator[DeadLetter]:
    try:
        yield from app.broker.each_dead(queue, selection)
    except UnknownQueue:
        if options.queue is not None:
            raise  # else it was deleted just now, or is a stranger's and never had a dead letter


def list_dead(options: argparse.Namespace) -> int:
    """Print dead letters as they come, or the summary of all queues."""
    if options.queue is None:
        return _summarize(options)
    limit = options.limit or 50
    with (
        open_app(options) as app,
        closing(app.broker.each_dead(options.queue, _selection(options), after=options.after)) as found,
    ):
        if options.json:
            print_json_list(letters.as_json(letter) for letter in islice(found, limit))
            return 0
        now, last = time.time(), None
        for last in islice(found, limit):
            print(letters.as_entry(last, now))
        if last is None:
            print(f"no dead letters in {visible(options.queue)}")
        elif next(found, None) is not None:
            print(f"There are more: go on with --after {visible(last.message.id)}, or give --limit.", file=sys.stderr)
    return 0


def _summarize(options: argparse.Namespace) -> int:
    if options.limit is not None or options.after is not None:
        raise UsageError("--limit and --after go on in one queue: name it.")
    selection, rows = _selection(options), []
    with open_app(options) as app:
        for queue in _queues(app, options):
            rows += letters.summarize(_each(app, options, queue, selection), queue)
    if options.json:
        print_json([letters.dated(row) for row in rows])
        return 0
    now = time.time()
    names = [max(len(str(row[name])) for row in rows) for name in ("queue", "task", "reason")] if rows else []
    room = shutil.get_terminal_size().columns - sum(names) - _TABLE_REST
    print_table([letters.as_row(row, now, max(room, _LEAST_ERROR)) for row in rows], "no dead letters")
    return 0


def show_dead(options: argparse.Namespace) -> int:
    """Print one dead letter with its error and its message as it came."""
    from dibs.selection import Selection  # noqa: PLC0415

    wanted = Selection(ids=frozenset({options.id}))
    with open_app(options) as app:
        queues = _queues(app, options)
        for queue in queues:
            with closing(_each(app, options, queue, wanted)) as found:
                letter = next(found, None)
            if letter is not None:
                if options.json:
                    print_json(letters.as_json(letter))
                else:
                    print(letters.as_page(letter))
                return 0
    raise UsageError(f"There is no dead letter {options.id!r} in {_listed(queues)}. See dibs dead list.")


def replay(options: argparse.Namespace) -> int:
    """Put dead letters back into their queue."""
    return _change(options, "replay")


def drop(options: argparse.Namespace) -> int:
    """Delete dead letters for good."""
    return _change(options, "drop")


def _change(options: argparse.Namespace, verb: str) -> int:
    """Look which letters are meant, ask, and do it to those that were seen: others may die while somebody thinks."""
    from dibs.selection import EVERY, Selection  # noqa: PLC0415

    selection = _selection(options)
    if options.all == (selection != EVERY):
        raise UsageError(
            "Say which dead letters: by their ids, by --task, --reason, --older or --newer, or --all for every one"
            + (", but not both." if options.all else ".")
        )
    with open_app(options) as app:
        act = app.broker.replay if verb == "replay" else app.broker.drop
        queues = _queues(app, options)
        found = {
            queue: frozenset(letter.message.id for letter in _each(app, options, queue, selection))
            for queue in queues
        }
        missing = (selection.ids or frozenset()).difference(*found.values())
        counts = {queue: len(ids) for queue, ids in found.items() if ids}
        if counts and not (verb == "replay" and options.ids) and not confirm(options, _question(app, verb, counts)):
            return DECLINED
        done = sum(act(queue, Selection(ids=found[queue])) for queue in counts)
    if done or not missing:
        print(f"{'replayed' if verb == 'replay' else 'dropped'} {done}")
    if missing:
        names = ", ".join(sorted(missing)[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UsageError(f"Not found among the dead letters of {_listed(queues)}: {names}. See dibs dead list.")
    return 0


def _question(app: Dibs, verb: str, counts: dict[str, int]) -> str:
    total = sum(counts.values())
    what = f"{total} dead letter{'s' * (total > 1)} of " + ", ".join(
        queue if len(counts) == 1 else f"{queue} ({count})" for queue, count in counts.items()
    )
    if verb == "replay":
        return f"Put {what} at {app.broker.location} back to be run again?"
    return f"Delete {what} at {app.broker.location} for good?"


def _listed(queues: list[str]) -> str:
    if len(queues) == 1:
        return f"queue {queues[0]!r}"
    return f"any of {len(queues)} queues"
