"""`dibs chaos`: kill everything again and again, and count what was lost."""

from __future__ import annotations

import argparse

_HELP = "kill workers, producers and the broker again and again, and count what was lost"
_DESCRIPTION = """\
Start producers and workers on a broker, kill them with SIGKILL at random moments, and account for every job of which
a producer was told that it is stored. Ends with a table, and with code 4 if anything was lost or another promise was
broken. Uses queues of its own, named dibs-chaos.*, which it leaves behind empty.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "chaos", help=_HELP, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="the broker (default: an SQLite file of its own)")
    parser.add_argument("--jobs", type=int, default=1500, metavar="N", help="how many are handed over (1500)")
    parser.add_argument(
        "--seconds", type=float, default=30.0, metavar="S", help="how long faults are made, about one a second (30)"
    )
    parser.add_argument("--seed", type=int, metavar="K", help="repeat the plan of another run (default: a new one)")
    parser.add_argument(
        "--patience", type=float, default=240.0, metavar="SECONDS",
        help="without one more job accounted for, after which what is open is lost (240)",
    )  # fmt: skip
    parser.add_argument("--kill-broker", metavar="COMMAND", help="a shell command that kills the broker's process")
    parser.add_argument("--start-broker", metavar="COMMAND", help="one that starts it again")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    import random  # noqa: PLC0415

    from dibs.chaos.plan import Plan  # noqa: PLC0415
    from dibs.chaos.scenario import Options, run_chaos  # noqa: PLC0415

    plan = Plan(
        seed=random.randrange(10**6) if options.seed is None else options.seed,
        jobs=options.jobs,
        seconds=options.seconds,
        hits_broker=options.kill_broker is not None,
    )
    return run_chaos(
        Options(
            plan=plan,
            url=options.url,
            kill_broker=options.kill_broker,
            start_broker=options.start_broker,
            patience=options.patience,
            is_json=options.json,
        )
    )
