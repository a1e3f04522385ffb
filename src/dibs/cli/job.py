"""`dibs job`: the whole life of one."""

from __future__ import annotations

import argparse
import time

from dibs.cli import lives
from dibs.cli.arguments import add_broker, add_json, open_app, print_json
from dibs.cli.catching_up import catch_up


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "job",
        help="show the whole life of one job",
        description="Show the whole life of one job: each run with its worker, times and error, its progress, "
        "log, result and arguments.",
    )
    parser.add_argument("id", metavar="ID")
    add_broker(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    with open_app(options) as app:
        job = app.job(options.id)
        catch_up(app.broker.ledger)
        info = job.info()
    if options.json:
        print_json(lives.as_whole_json(info))
    else:
        print(lives.as_page(info, time.time()))
    return 0
