"""`dibs worker`: run a worker until it is told to stop."""

from __future__ import annotations

import argparse
import os

_HELP = "run a worker"
_DESCRIPTION = """\
Run a worker: a supervisor and its executors.

SIGTERM or Ctrl-C: takes nothing new, lets running jobs finish for --grace seconds, then hands the rest back at no
cost. A second signal hands them back at once.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "worker", help=_HELP, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("DIBS_APP")
    parser.add_argument(
        "app", nargs="?" if default else None, default=default, metavar="module:app", help="default: $DIBS_APP"
    )
    parser.add_argument("--url", help="the broker (default: the app's own)")
    parser.add_argument(
        "-q",
        "--queue",
        action="append",
        default=[],
        dest="queues",
        metavar="QUEUE",
        help="only this queue; may be repeated",
    )
    parser.add_argument(
        "-c", "--slots", type=int, default=1, metavar="N", help="jobs that an executor runs at a time (1)"
    )
    parser.add_argument("-p", "--processes", type=int, metavar="N", help="executors (one per CPU that may be used)")
    parser.add_argument("--burst", action="store_true", help="end when nothing is ready")
    parser.add_argument("--reload", action="store_true", help="start anew when a .py file below here changes")
    parser.add_argument(
        "--grace", type=float, default=25.0, metavar="SECONDS", help="for running jobs, at the end (25)"
    )
    parser.add_argument(
        "--max-memory", type=int, metavar="MB", help="replace an executor that has more in use after a job"
    )
    parser.add_argument("--max-jobs", type=int, metavar="N", help="replace an executor after so many jobs")
    parser.add_argument(
        "--metrics", metavar="[HOST:]PORT", help="serve /metrics, /healthz and /readyz there (host: 127.0.0.1)"
    )
    parser.add_argument("--log", choices=("text", "json"), default="text", help="how to write the log (text)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the worker."""
    import logging  # noqa: PLC0415

    from dibs.worker.options import WorkerOptions  # noqa: PLC0415
    from dibs.worker.reload import run_reloading  # noqa: PLC0415
    from dibs.worker.supervisor import Supervisor  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    if options.log == "json":
        from dibs.worker.jsonlog import JsonFormatter  # noqa: PLC0415

        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
    worker = WorkerOptions(
        app=options.app,
        url=options.url,
        queues=tuple(options.queues),
        slots=options.slots,
        processes=options.processes,
        is_burst=options.burst,
        grace=options.grace,
        max_memory=options.max_memory,
        max_jobs=options.max_jobs,
        metrics=options.metrics,
    )
    if options.reload:
        run_reloading(worker)
    else:
        Supervisor(worker).run()
    return 0
