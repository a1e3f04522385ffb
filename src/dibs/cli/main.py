"""`dibs`: reads the command line, runs the command, turns errors into one line and an exit code.

A command's own imports wait until it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from dibs.cli import dead, demo, enqueue, purge, queues, send, worker
from dibs.errors import BrokerError, DibsError

_EXIT_CODES = """\
exit codes:
  0  done
  1  the broker could not do it, or a promise of the demo was broken
  2  the command was wrong: options, names, URL, app, JSON
  3  the user said no
  130  interrupted

environment:
  DIBS_URL  the broker, where --url is not given; else sqlite:///dibs.db
  DIBS_APP  module:app, where --app is not given
"""

_COMMANDS = (worker, send, enqueue, queues, dead, purge, demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except BrokerError as error:
        return _complain(error, 1)
    except DibsError as error:
        return _complain(error, 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dibs",
        description="A work queue: hand jobs over, let any number of workers compete for them.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser


def _complain(error: Exception, code: int) -> int:
    print(f"dibs: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
