"""`dibs cancel`: have jobs never run, or end now."""

from __future__ import annotations

import argparse

from dibs.broker import CancelAnswer
from dibs.cli.arguments import add_broker, open_app
from dibs.errors import UnknownJob
from dibs.text import visible

_DESCRIPTION = """\
Cancel jobs. Those that wait never run; those that run are ended by their worker: a coroutine is cancelled, a function
interrupted, and what heeds neither loses its executor. A cancel that comes too late changes nothing.
"""
_SAID: dict[CancelAnswer, str] = {
    "cancelled": "cancelled",
    "requested": "requested: a worker carries it out, should the job not end before",
    "over": "over: it had ended already",
    "unknown": "unknown",
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("cancel", help="cancel jobs that wait or run", description=_DESCRIPTION)
    parser.add_argument("ids", nargs="+", metavar="ID")
    add_broker(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Cancel them, and say what happened to each."""
    ids = list(dict.fromkeys(options.ids))
    with open_app(options) as app:
        for job_id in ids:
            app.job(job_id)  # tells an id that can't be one before anything is done
        answers = app.broker.cancel(ids)
        location = app.broker.location
    unknown = [job_id for job_id in ids if answers[job_id] == "unknown"]
    for job_id in ids:
        if job_id not in unknown:
            print(f"{visible(job_id)}  {_SAID[answers[job_id]]}")
    if unknown:
        names = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise UnknownJob(f"Nobody knows these jobs at {location}: {names}.", id=unknown[0])
    return 0
