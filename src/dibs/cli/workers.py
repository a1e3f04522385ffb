"""`dibs workers`: who is there, and what they do."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from dibs.cli.arguments import add_broker, add_json, open_app, print_json, print_table
from dibs.cli.shown import age, megabytes

if TYPE_CHECKING:
    from dibs.ledger.snapshot import Snapshot


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "workers",
        help="show the workers that are alive",
        description="Show the workers that are alive, with what they said of themselves a second ago.",
    )
    add_broker(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    import msgspec  # noqa: PLC0415

    with open_app(options) as app:
        workers = app.broker.ledger.workers()
        location = app.broker.location
    if options.json:
        print_json(msgspec.to_builtins(workers))
        return 0
    now = time.time()
    print(location)
    print_table([_row(worker, now) for worker in workers], "no workers")
    return 0


def _row(worker: Snapshot, now: float) -> dict[str, Any]:
    memory = worker.memory_bytes + sum(executor.memory_bytes for executor in worker.executors)
    return {
        "worker": worker.worker + " (ending)" * worker.is_ending,
        "queues": ", ".join(worker.queues),
        "slots": worker.slots,
        # What an executor holds ahead is about to run, not running.
        "running": min(sum(executor.held for executor in worker.executors), worker.slots),
        "done": worker.ended.get("done", 0),
        "failed": worker.ended.get("retry", 0) + worker.ended.get("dead", 0),
        "memory": megabytes(memory),
        "started": age(worker.started, now),
        "version": worker.version,
    }
