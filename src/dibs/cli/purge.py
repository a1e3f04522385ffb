"""`dibs purge`: delete what waits in a queue."""

from __future__ import annotations

import argparse

from dibs.cli.arguments import DECLINED, add_broker, add_yes, confirm, open_broker


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "purge",
        help="delete what waits in a queue",
        description="Delete what waits in a queue, never what is running nor what is dead (see dibs dead drop).",
    )
    parser.add_argument("queue", metavar="QUEUE")
    parser.add_argument("--state", choices=["ready", "delayed"], default="ready", help="default: ready")
    add_broker(parser)
    add_yes(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask, purge, and say how many."""
    with open_broker(options) as broker:
        if not confirm(options, f"Delete every {options.state} message of {options.queue} at {broker.location}?"):
            return DECLINED
        print(f"purged {broker.purge(options.queue, state=options.state)}")
    return 0
