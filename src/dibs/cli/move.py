"""`dibs move`: carry the backlog from one broker to another."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dibs.cli.arguments import DECLINED, add_json, add_yes, confirm, print_json, print_table

if TYPE_CHECKING:
    from dibs.broker import Broker, Queue
    from dibs.moving.ends import Piece
    from dibs.moving.mover import Mover
    from dibs.moving.tally import Tally
    from dibs.trial.screen import Screen

#: Seconds that handing a batch over may take.
_PATIENCE = 30.0
#: Seconds between two pictures of the bar, and how wide it is.
_EVERY, _WIDTH = 0.1, 24


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "move",
        help="carry waiting, delayed and dead jobs to another broker",
        description="Carry waiting, delayed and dead jobs from one broker to another, while producers and workers "
        "run on both. What is running stays with its worker, what is done in the history of the source. It may be "
        "interrupted or killed at any moment: run it again and it goes on.",
    )
    parser.add_argument("source", metavar="FROM_URL")
    parser.add_argument("target", metavar="TO_URL")
    parser.add_argument(
        "-q", "--queue", action="append", default=[], dest="queues", metavar="QUEUE", help="this queue only (all)"
    )
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--wait", action="store_true", help="go on until nothing is running in the source")
    until.add_argument("--follow", action="store_true", help="go on until Ctrl-C, for producers that are still there")
    until.add_argument("--dry-run", action="store_true", help="only show what there is to carry")
    parser.add_argument("--app", help="module:app, for its namespace and queues (default: $DIBS_APP)")
    add_json(parser)
    add_yes(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show what there is, ask, and carry it."""
    from dibs.errors import BrokerError  # noqa: PLC0415
    from dibs.moving.mover import Mover  # noqa: PLC0415
    from dibs.trial.screen import Screen  # noqa: PLC0415

    with _open(options) as (origin, target, declared):
        bar = _Bar(Screen(sys.stderr))
        types = {queue.name: queue for queue in declared}
        mover = Mover(origin, target, types=types, on_doubt=_tell_doubt, on_progress=bar.show)
        names = _names(options, origin, types)
        found, running = mover.look(names)
        if options.dry_run:
            _show_plan(options, found, running)
            return 0
        bar.total = sum(count or 0 for counts in found.values() for count in counts.values())
        if not confirm(options, f"Move {', '.join(found) or 'nothing'} from {origin.location} to {target.location}?"):
            return DECLINED
        error: BrokerError | None = None
        with _stopping(mover):
            try:
                mover.run(names, waits=options.wait, follows=options.follow)
            except BrokerError as trouble:
                error = trouble
        bar.clear()
        _report(options, origin, mover, names, error)
    return 1 if error is not None else 130 if mover.is_stopped and not options.follow else 0


@contextmanager
def _open(options: argparse.Namespace) -> Iterator[tuple[Broker, Broker, list[Queue]]]:
    """Yield both brokers, in the app's namespace where one is named, and how its queues are to be made."""
    import logging  # noqa: PLC0415
    import os  # noqa: PLC0415
    from contextlib import ExitStack, closing  # noqa: PLC0415

    from dibs.brokers import connect  # noqa: PLC0415
    from dibs.loading import load_app  # noqa: PLC0415

    logging.getLogger("dibs").addHandler(logging.NullHandler())  # what is wrong in the end is raised
    name = options.app or os.environ.get("DIBS_APP")
    app = load_app(name) if name else None
    namespace = app.namespace if app is not None else ""
    with ExitStack() as stack:
        origin, target = (
            stack.enter_context(
                closing(connect(url, namespace=namespace, handover_timeout=_PATIENCE, may_create=may_create))
            )
            for url, may_create in ((options.source, False), (options.target, True))
        )
        yield origin, target, app.declared() if app is not None else []


def _names(options: argparse.Namespace, origin: Broker, known: Collection[str]) -> Collection[str]:
    """Return the queues that are meant; empty: all that the source can list.

    Raises:
        UsageError: none is named, and the source can't list them.
    """
    from dibs.errors import UsageError  # noqa: PLC0415

    if options.queues:
        return list(dict.fromkeys(options.queues))
    if origin.capabilities.lists_queues:
        return ()
    found = [info.name for info in origin.queues(known) if info.name in known]
    if not found:
        raise UsageError(
            f"{origin.location} can't list its queues. Name them with -q, or their app with --app or DIBS_APP."
        )
    return found


@contextmanager
def _stopping(mover: Mover) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end it between two batches; a second one ends it at once."""

    def stop(number: int, _: object) -> None:
        mover.stop()
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_doubt(pieces: Sequence[Piece]) -> None:
    """Name those that are sent though they may have been sent before: at once, as this may be killed too."""
    for piece in pieces:
        print(f"possibly twice: {piece.id} in queue {piece.message.queue}", file=sys.stderr)
    sys.stderr.flush()


def _show_plan(options: argparse.Namespace, found: dict[str, Any], running: dict[str, int | None]) -> None:
    rows = [{"queue": queue, **counts, "running": running[queue]} for queue, counts in sorted(found.items())]
    if options.json:
        print_json(rows)
    else:
        print_table(rows, "no queues")


def _report(
    options: argparse.Namespace, origin: Broker, mover: Mover, names: Collection[str], error: Exception | None
) -> None:
    """Say what was done, what is left, and how to go on."""
    from dibs.errors import DibsError  # noqa: PLC0415
    from dibs.url import mask  # noqa: PLC0415

    tally = mover.tally
    try:
        left, running = mover.look(names)
    except DibsError:  # the source is what is wrong
        left, running = {}, {}
    rows = tally.rows(left)
    if options.json:
        print_json(
            {
                "moved": rows,
                "total": tally.total,
                "running": running,
                "possibly_twice": tally.possibly_twice,
                "in_doubt": tally.in_doubt,
                "refused": [{"id": each.id, "queue": each.queue, "why": each.why} for each in tally.refused.values()],
                "error": None if error is None else mask(str(error)),
            }
        )
    else:
        print_table(rows, "nothing to move")
        for line in _remarks(origin, tally, running):
            print(line)
    if error is not None:
        print(f"dibs: {mask(str(error))}", file=sys.stderr)
    if error is not None or (mover.is_stopped and not options.follow):
        print("dibs: It is not all moved. Run the same command again to go on.", file=sys.stderr)


def _remarks(origin: Broker, tally: Tally, running: dict[str, int | None]) -> Iterator[str]:
    count = sum(each or 0 for each in running.values())
    if count:
        yield f"{count} running in {origin.location}: they stay with their workers. Run this again, or give --wait."
    elif None in running.values():
        yield f"{origin.location} can't tell what is running there. Run this again when its workers have ended."
    if tally.possibly_twice:
        yield f"{len(tally.possibly_twice)} were sent though an earlier move may have sent them: see above."
    if tally.in_doubt:
        yield f"{len(tally.in_doubt)} may or may not be stored in the target. Run this again: it looks."
    for refused in tally.refused.values():
        yield f"left in {refused.queue}: {refused.id}: {refused.why}"


class _Bar:
    """A line that shows how far it is, at a terminal."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._began = self._shown = time.monotonic()
        #: About how many there are.
        self.total = 0

    def show(self, tally: Tally) -> None:
        """Draw it, not too often."""
        now = time.monotonic()
        if now - self._shown < _EVERY:
            return
        self._shown = now
        total = max(self.total, tally.total)
        done = _WIDTH * tally.total // total
        rate = tally.total / (now - self._began)
        full, empty = ("█", "░") if self._screen.has_drawing else ("#", ".")
        self._screen.transient(f"{full * done}{empty * (_WIDTH - done)} {tally.total:,} of {total:,}  {rate:,.0f}/s")

    def clear(self) -> None:
        """Take it away."""
        self._screen.clear()
