"""The command line of the bench: `python -m bench --help`."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from bench.picture import svg
from bench.report import markdown, replace_section, text
from bench.results import Results, load, to_json
from bench.rig import ROOT
from bench.runner import OtherRun, Runner
from bench.scenario import FULL, QUICK
from bench.scenarios import SCENARIOS
from bench.systems import SYSTEMS

_EPILOG = """\
Everything that is set up stays below --folder: an environment for each peer, private servers, and results.json.
What jobs write goes to shared memory. Let the machine do nothing else meanwhile.
"""
#: Who takes part in a quick run, if nobody is named.
_SMOKE = "dibs,dibs-rabbitmq,sqlite3,pika-1"
_PICTURE = "benchmarks.svg"

T = TypeVar("T")


def main(words: Sequence[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = _parser()
    options = parser.parse_args(words)
    try:
        systems = _chosen(SYSTEMS, options.systems or (_SMOKE if options.quick else ""))
        scenarios = _chosen(SCENARIOS, options.scenarios)
    except KeyError as error:
        parser.error(str(error.args[0]))
    if options.results:
        results = load(options.results)
    else:
        size = QUICK if options.quick else FULL
        size = replace(size, rounds=options.rounds or size.rounds)
        options.folder.mkdir(parents=True, exist_ok=True)
        found = options.folder / "results.json"
        try:
            earlier = load(found) if options.go_on else None
            runner = Runner(systems, scenarios, size, options.folder.resolve(), earlier)
        except FileNotFoundError:
            parser.error(f"There is nothing to go on with: {found} is not there. Leave out --go-on.")
        except OtherRun as error:
            parser.error(str(error))
        _announce(runner.expected_seconds(), len(systems), size.rounds)
        results = runner.run()
    if options.docs and results.is_quick:
        parser.error("The figures of a quick run mean nothing and have no place in the docs.")
    if options.docs:
        _write_docs(results, options.docs)
    print(to_json(results) if options.json else text(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure dibs and its peers side by side.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--systems", metavar="A,B", default="", help=f"only these of: {', '.join(SYSTEMS)}")
    parser.add_argument("--scenarios", metavar="A,B", default="", help=f"only these of: {', '.join(SCENARIOS)}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"readings of each figure ({FULL.rounds})")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of a minute: tiny, once, and without peers unless named"
    )
    parser.add_argument(
        "--go-on", action="store_true", help="measure only what the folder's results.json has not, of the same commit"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help=f"write benchmarks.md and {_PICTURE} there")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="for all that is set up (.bench)")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="run nothing; report what is in this results.json"
    )
    return parser


def _chosen(known: Mapping[str, T], names: str) -> list[T]:
    """Return the named ones in the order of all; all, if none is named.

    Raises:
        KeyError: one isn't known; the text names those that are.
    """
    wanted = {name for name in names.split(",") if name}
    if unknown := wanted - known.keys():
        raise KeyError(f"No {', '.join(sorted(unknown))}; there are {', '.join(known)}.")
    return [thing for name, thing in known.items() if not wanted or name in wanted]


def _announce(seconds: float, systems: int, rounds: int) -> None:
    until = dt.datetime.now().astimezone() + dt.timedelta(seconds=seconds)
    print(
        f"{systems} systems, {rounds} rounds: about {max(seconds / 60, 1):.0f} minutes, until {until:%H:%M}, "
        "and the time for setting up.",
        file=sys.stderr,
    )


def _write_docs(results: Results, docs: Path) -> None:
    (docs / _PICTURE).write_text(svg(results))
    replace_section(docs / "benchmarks.md", markdown(results, _PICTURE))


if __name__ == "__main__":
    sys.exit(main())
