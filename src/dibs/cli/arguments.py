"""What several commands share: their options, and the way from them to an app."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dibs.errors import BadArguments, UsageError
from dibs.text import visible

if TYPE_CHECKING:
    from dibs.app import Dibs
    from dibs.broker import Broker

#: The exit code when the user was asked and said no.
DECLINED = 3
#: Seconds that a command waits for the broker: somebody is looking on.
_PATIENCE = 5.0


def add_broker(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which broker is meant."""
    parser.add_argument("--url", help="the broker (default: the app's own, $DIBS_URL, or sqlite:///dibs.db)")
    parser.add_argument("--app", default=os.environ.get("DIBS_APP"), help="module:app (default: $DIBS_APP)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, which every command that shows something has."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add `--yes`, which every command that destroys something has."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


@contextmanager
def open_app(options: argparse.Namespace, *, patience: float = _PATIENCE) -> Iterator[Dibs]:
    """Yield the app that is meant: the one that is named, or one without tasks; close it at the end.

    Only at a terminal does it create the default file, so that a misplaced cron job says so instead of handing
    its jobs to nobody.

    Raises:
        UsageError: its broker is in this process alone, so a command would talk to itself.
    """
    import logging  # noqa: PLC0415

    from dibs.app import Dibs  # noqa: PLC0415
    from dibs.loading import load_app  # noqa: PLC0415
    from dibs.url import parse  # noqa: PLC0415

    logging.getLogger("dibs").addHandler(logging.NullHandler())  # what is wrong in the end is raised
    app = load_app(options.app) if options.app else Dibs()
    app.use(options.url, may_create=has_terminal(), patience=patience)
    try:
        if parse(app.url).scheme == "memory":  # what it can do would tell as well, but a server has to be asked that
            raise UsageError(
                f"{app.broker.location} is in one process alone, so this command would only talk to itself. Name "
                "another broker with --url or DIBS_URL."
            )
        yield app
    finally:
        app.close()


@contextmanager
def open_broker(options: argparse.Namespace) -> Iterator[Broker]:
    """Yield the broker that is meant, with the app's queues declared where an app is named."""
    with open_app(options) as app:
        yield app.broker


def has_terminal() -> bool:
    """Tell whether somebody sits there who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def at_least_one(text: str) -> int:
    """Read an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, 1 or more.")
    return int(text)


def read_interval(text: str) -> float:
    """Read an option that says how often something is looked at, in seconds."""
    seconds = float(text)
    if not 0.1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be 0.1 seconds or more.")
    return seconds


def read_json(text: str, what: str) -> Any:
    """Return a value that was typed as JSON.

    Raises:
        BadArguments: it is none; the text shows where, and how a string is written.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        hint = "" if text[:1] in {"[", "{", '"'} else f" A string needs its quotes: '{json.dumps(text)}'."
        raise BadArguments(f"{what} is no JSON: {text!r} ({error}).{hint}") from None


def confirm(options: argparse.Namespace, question: str) -> bool:
    """Tell whether to go on: `--yes`, or the user's own word. Without a terminal nobody can be asked."""
    if options.yes:
        return True
    if not has_terminal():
        print(f"dibs: {question} Nobody is there to be asked; give --yes.", file=sys.stderr)
        return False
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None, default=str))


def print_json_list(values: Iterable[Any]) -> None:
    """Print a list as JSON, value by value: it may be longer than memory."""
    lead = "["
    for value in values:
        print(lead, json.dumps(value, ensure_ascii=False, default=str), sep="", end="")
        lead = ",\n"
    print("[]" if lead == "[" else "]")


def print_table(rows: Sequence[Mapping[str, Any]], empty: str) -> None:
    """Print rows in columns; `empty` where there are none."""
    for line in table(rows, empty):
        print(line)


def table(rows: Sequence[Mapping[str, Any]], empty: str) -> list[str]:
    """Return rows as lines in columns: numbers to the right, texts to the left; `empty` where there are none."""
    if not rows:
        return [empty]
    names = list(rows[0])
    cells = [
        ["-" if row[name] is None else " ".join(visible(str(row[name])).split()) for name in names] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    is_number = [all(isinstance(row[name], int | None) for row in rows) for name in names]
    lines = []
    for line in [names, *cells]:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines
