"""What several commands share: their options, and the way from them to an app."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dibs.errors import BadArguments

if TYPE_CHECKING:
    from dibs.app import Dibs
    from dibs.broker import Broker

#: The exit code when the user was asked and said no.
DECLINED = 3


def add_broker(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which broker is meant."""
    parser.add_argument("--url", help="the broker (default: $DIBS_URL, the app's own, or sqlite:///dibs.db)")
    parser.add_argument("--app", default=os.environ.get("DIBS_APP"), help="module:app (default: $DIBS_APP)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, which every command that shows something has."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add `--yes`, which every command that destroys something has."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


def open_app(options: argparse.Namespace) -> Dibs:
    """Return the app that is meant: the one that is named, or one without tasks.

    Only at a terminal does it create the default file, so that a misplaced cron job says so instead of handing
    its jobs to nobody.
    """
    from dibs.app import Dibs  # noqa: PLC0415
    from dibs.loading import load_app  # noqa: PLC0415

    app = load_app(options.app) if options.app else Dibs()
    app.use(options.url, may_create=sys.stdin.isatty())
    return app


def open_broker(options: argparse.Namespace) -> Broker:
    """Return the broker that is meant, with the app's queues declared where an app is named."""
    return open_app(options).broker


def read_json(text: str, what: str) -> Any:
    """Return a value that was typed as JSON.

    Raises:
        BadArguments: it is none; the text shows where, and how a string is written.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        hint = f" A string needs its quotes: '{json.dumps(text)}'." if text[:1] not in "[{" else ""
        raise BadArguments(f"{what} is no JSON: {text!r} ({error}).{hint}") from None


def confirm(options: argparse.Namespace, question: str) -> bool:
    """Tell whether to go on: `--yes`, or the user's own word. Without a terminal nobody can be asked."""
    if options.yes:
        return True
    if not sys.stdin.isatty():
        print(f"dibs: {question} Nobody is there to be asked; give --yes.", file=sys.stderr)
        return False
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None, default=str))


def print_table(rows: Sequence[Mapping[str, Any]], empty: str) -> None:
    """Print rows in columns: numbers to the right, texts to the left; `empty` where there are none."""
    if not rows:
        print(empty)
        return
    names = list(rows[0])
    cells = [["-" if row[name] is None else str(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    is_number = [all(isinstance(row[name], int | None) for row in rows) for name in names]
    for line in [names, *cells]:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ]
        print("  ".join(padded).rstrip())
