"""`dibs status`: whether all is well, in a line; with `--check`, as an exit code for probes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dibs.cli.arguments import add_broker, add_json, open_app, print_json
from dibs.cli.shown import count
from dibs.errors import LedgerUnavailable, UsageError
from dibs.names import check_queue_name
from dibs.text import visible

if TYPE_CHECKING:
    from dibs.app import Dibs
    from dibs.broker import QueueInfo
    from dibs.ledger.snapshot import Snapshot

#: The exit code of `--check` where a queue has nobody.
UNATTENDED = 9
#: Seconds that a probe waits for each thing it asks: its caller has a deadline of its own.
_PATIENCE = 1.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "status",
        help="say in a line whether all is well",
        description="Say whether the broker answers, how many workers there are, how much waits, and which queues "
        "nobody consumes: those that are named, else the app's, else all that the broker can list.",
    )
    parser.add_argument("names", nargs="*", metavar="QUEUE", help="these queues only")
    parser.add_argument(
        "--check", action="store_true",
        help=f"exit with {UNATTENDED} where a queue has no worker, and with 1 where the broker does not answer soon",
    )  # fmt: skip
    add_broker(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it, and tell by the exit code what is asked for."""
    names = [check_queue_name(name) for name in options.names]
    with open_app(options, patience=_PATIENCE) as app:
        status = _look(app, names)
    if options.json:
        print_json(status)
    else:
        print(_line(status))
    return 0 if status["ok"] or not options.check else UNATTENDED


def _look(app: Dibs, names: Sequence[str]) -> dict[str, Any]:
    workers = _workers(app)
    wanted = set(names) or set(app.queue_names)
    if not wanted and not app.broker.capabilities.lists_queues:
        raise UsageError(
            f"{app.broker.location} can't list its queues. Name some, or the app that has them (--app or DIBS_APP)."
        )
    found = {info.name: info for info in app.broker.queues(wanted)}
    meant = sorted(wanted or found)
    shown = [found[name] for name in meant if name in found]
    unattended = [name for name in meant if not _has_consumer(name, found.get(name), workers or ())]
    return {
        "broker": app.broker.location,
        "ok": not unattended and (bool(meant) or bool(workers)),
        "workers": None if workers is None else len(workers),
        "queues": len(meant),
        "ready": sum(info.ready for info in shown),
        "running": _sum([info.running for info in shown]),
        "delayed": _sum([info.delayed for info in shown]),
        "dead": sum(info.dead for info in shown),
        "paused": [info.name for info in shown if info.is_paused],
        "without_consumers": unattended,
    }


def _workers(app: Dibs) -> list[Snapshot] | None:
    """Return those that are alive; None: this broker can't tell."""
    try:
        return app.broker.ledger.workers()
    except LedgerUnavailable:
        return None


def _has_consumer(name: str, info: QueueInfo | None, workers: Sequence[Snapshot]) -> bool:
    """Tell whether somebody consumes a queue: a busy worker may have cancelled its consumer, and says so itself."""
    if info is not None and info.consumers:
        return True
    return any(name in worker.queues and not worker.is_ending for worker in workers)


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _line(status: dict[str, Any]) -> str:
    workers = status["workers"]
    counts = [
        f"{status[name]:,} {name}" for name in ("ready", "running", "delayed", "dead") if status[name] is not None
    ]
    parts = [
        "workers unknown" if workers is None else count(workers, "worker", "workers"),
        ", ".join([count(status["queues"], "queue", "queues"), *counts]),
    ]
    for name, what in (("paused", "paused"), ("without_consumers", "without consumers")):
        if status[name]:
            parts.append(f"{what}: {', '.join(status[name])}")
    return visible(f"{'ok' if status['ok'] else 'not ok'}  {status['broker']}  {'; '.join(parts)}")
