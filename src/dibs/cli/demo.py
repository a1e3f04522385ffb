"""`dibs demo`: the main job, on real processes, with a worker killed on the way."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("demo", help="see three workers compete, and one of them killed")
    parser.add_argument("--url", help="the broker (default: an SQLite file of its own)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo."""
    from dibs.demo.scenario import run_demo  # noqa: PLC0415

    return run_demo(options.url)
