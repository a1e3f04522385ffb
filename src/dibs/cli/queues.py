"""`dibs queues`: what waits where."""

from __future__ import annotations

import argparse

from dibs.cli.arguments import add_broker, add_json, open_app, print_json, print_table


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "queues",
        help="show what waits where",
        description="Show each queue with what it holds. '-': this broker can't count it. RabbitMQ can't list its "
        "queues, so there the names are taken from --app or the command line.",
    )
    parser.add_argument("names", nargs="*", metavar="QUEUE", help="these too, where the broker can't list its queues")
    add_broker(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    import msgspec  # noqa: PLC0415

    with open_app(options) as app:
        rows = [msgspec.to_builtins(info) for info in app.broker.queues(app.queue_names | set(options.names))]
        location = app.broker.location
    if options.json:
        print_json(rows)
    else:
        print(location)
        print_table(rows, "no queues")
    return 0
