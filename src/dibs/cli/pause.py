"""`dibs pause` and `dibs resume`: have nothing of a queue started, until it is to be."""

from __future__ import annotations

import argparse

from dibs.cli.arguments import add_broker, open_app
from dibs.names import check_queue_name


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands to the command line."""
    pause = commands.add_parser(
        "pause",
        help="have nothing of a queue started",
        description="Have no job of these queues started any more, by any worker, until dibs resume. What runs goes "
        "on, and jobs can be handed over. It outlives workers and the broker.",
    )
    resume = commands.add_parser("resume", help="end a pause", description="End the pause of these queues.")
    for parser, is_pause in ((pause, True), (resume, False)):
        parser.add_argument("queues", nargs="+", metavar="QUEUE")
        add_broker(parser)
        parser.set_defaults(run=run, is_pause=is_pause)


def run(options: argparse.Namespace) -> int:
    """Do it, and say so for each."""
    names = [check_queue_name(name) for name in dict.fromkeys(options.queues)]
    with open_app(options) as app:
        known = {info.name: info.is_paused for info in app.broker.queues(app.queue_names | set(names))}
        for name in names:
            if options.is_pause:
                app.broker.pause(name)
                print(f"paused {name}" + " (there is no such queue yet)" * (name not in known), flush=True)
            else:
                app.broker.resume(name)
                print(f"resumed {name}" if known.get(name) else f"{name} was not paused", flush=True)
    return 0
