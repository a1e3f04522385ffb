"""`dibs result`: what a job's task returned."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

from dibs.cli.arguments import add_broker, open_app
from dibs.cli.shown import pretty
from dibs.errors import JobFailed
from dibs.text import visible

if TYPE_CHECKING:
    from dibs.broker import Broker

_DESCRIPTION = """\
Print what a job's task returned, as JSON. The exit code says what there is instead; a job that failed has its
traceback on standard error.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("result", help="print what a job returned", description=_DESCRIPTION)
    parser.add_argument("id", metavar="ID")
    parser.add_argument(
        "--wait", nargs="?", type=_seconds, const=math.inf, default=0.0, metavar="SECONDS",
        help="wait until it is over, or for so long at the most",
    )  # fmt: skip
    add_broker(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the result, or raise what there is instead: `main` has an exit code for each."""
    from dibs.job import Job  # noqa: PLC0415

    with open_app(options) as app:
        app.job(options.id)  # tells an id that can't be one
        job: Job[bytes] = Job(options.id, _Plain(app.broker))
        try:
            result = job.result(None if math.isinf(options.wait) else options.wait)
        except JobFailed as error:
            if error.type_name:
                print(visible(error.traceback.rstrip()), file=sys.stderr)
            raise
    print(visible(pretty(result)) if sys.stdout.isatty() else result.decode())
    return 0


class _Plain:
    """Asks for results as they are stored, whatever the app knows of their tasks."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def read_result(self, task: str | None, result: bytes) -> Any:
        """Return the JSON itself."""
        del task
        return result


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds. Write the ID before --wait.") from None
    if math.isnan(seconds) or seconds < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be 0 seconds or more.")
    return seconds
