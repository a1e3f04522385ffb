"""`dibs send`: hand over plain messages."""

from __future__ import annotations

import argparse

from dibs.cli.arguments import add_broker, open_app


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "send",
        help="hand over plain messages",
        description="Hand over plain messages, one per TEXT. Without --app, a queue that does not exist is made.",
    )
    parser.add_argument("queue", metavar="QUEUE")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    parser.add_argument("--delay", type=float, metavar="SECONDS", help="before it may start")
    add_broker(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Hand the messages over and print their ids."""
    with open_app(options) as app:
        if not options.app:
            app.queue(options.queue)
        for text in options.texts:
            print(app.send(options.queue, text, delay=options.delay), flush=True)
    return 0
