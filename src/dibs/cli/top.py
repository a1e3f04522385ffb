"""`dibs top`: all of it on one screen, live."""

from __future__ import annotations

import argparse
import shutil
import sys

from dibs.cli.arguments import add_broker, open_app, read_interval

#: Seconds between two looks, where nothing else is said.
_INTERVAL = 1.0
#: Columns of a snapshot, where nobody says how wide it may be.
_WIDTH = 100


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "top",
        help="watch queues, workers and failures live",
        description="Watch queues, workers with what they run, and the latest failures, live; pause, cancel and "
        "replay with a key (? shows which). In a pipe, or on a dumb terminal, print one snapshot and end.",
    )
    parser.add_argument(
        "--interval", type=read_interval, default=_INTERVAL, metavar="SECONDS",
        help=f"look every so many seconds ({_INTERVAL:g})",
    )  # fmt: skip
    add_broker(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show it until the user quits, or once."""
    from dibs.top.cells import plain  # noqa: PLC0415
    from dibs.top.drawing import snapshot  # noqa: PLC0415
    from dibs.top.live import Live, peek  # noqa: PLC0415
    from dibs.top.terminal import Terminal, can_be_drawn_on  # noqa: PLC0415

    with open_app(options) as app:
        if can_be_drawn_on():
            with Terminal(sys.stdout) as terminal:
                Live(app.broker, app.queue_names, options.interval, terminal).run()
        else:
            view = peek(app.broker, app.queue_names)
            width = shutil.get_terminal_size((_WIDTH, 24)).columns
            print(*map(plain, snapshot(view, width)), sep="\n")
    return 0
