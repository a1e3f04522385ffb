"""`dibs`: reads the command line, runs the command, turns errors into one line and an exit code.

A command's own imports wait until it runs, so that `--help` answers at once; and no command waits for others'.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from dibs.cli.shown import cut
from dibs.errors import (
    BrokerError,
    DibsError,
    JobFailed,
    ResultCancelled,
    ResultError,
    ResultNotKept,
    ResultPending,
)
from dibs.text import visible
from dibs.url import mask

_EXIT_CODES = """\
exit codes:
  0  done
  1  the broker or the system could not do it, or a promise of the demo was broken
  2  the command was wrong: options, names, URL, app, JSON, or nobody knows the job
  3  not confirmed: the user said no, or nobody was there to be asked
  4  dibs chaos found a broken promise: a job was lost, say
  5  dibs result: the job is dead
  6  dibs result: it was cancelled
  7  dibs result: it is not over yet
  8  dibs result: it is done, and its result is not kept
  9  dibs doctor found a problem; dibs status --check: no worker consumes a queue
  130  interrupted

environment:
  DIBS_URL  the broker, where --url is not given; else sqlite:///dibs.db
  DIBS_APP  module:app, where --app is not given
  DIBS_DASHBOARD_TOKEN, DIBS_DASHBOARD_PASSWORD  what dibs dashboard asks for
"""

#: In the order of the help. Each is a module here.
_COMMANDS = (
    "worker",
    "send",
    "enqueue",
    "status",
    "top",
    "queues",
    "workers",
    "jobs",
    "job",
    "result",
    "cancel",
    "pause",
    "dead",
    "purge",
    "doctor",
    "move",
    "dashboard",
    "demo",
    "chaos",
)
#: Those that another one's module adds.
_ADDED_BY = {"resume": "pause"}

#: So many characters of what a failed job's task said make the line that ends the command.
_LONGEST_FAILURE = 300
#: Why there is no result, as exit codes.
_NO_RESULT: tuple[tuple[type[ResultError], int], ...] = (
    (ResultCancelled, 6),
    (ResultPending, 7),
    (ResultNotKept, 8),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks is no error
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser(words[0] if words else "").parse_args(words)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokerError as error:
        return _complain(error, 1)
    except JobFailed as error:  # its message is the task's own, of any length; the whole of it is printed above
        return _complain(cut(str(error), _LONGEST_FAILURE), 5)
    except ResultError as error:
        return _complain(error, next((code for kind, code in _NO_RESULT if isinstance(error, kind)), 2))
    except DibsError as error:
        return _complain(error, 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        return _complain(error, 1)


def _drop_output() -> None:
    """Let what stdout did not take go: Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Repeats what it can't read, but not a password in it."""

    def error(self, message: str) -> NoReturn:
        super().error(mask(message))


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that costs more than all the rest of the parser."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"dibs {version('dibs')}")
        parser.exit()


def _parser(wanted: str = "") -> argparse.ArgumentParser:
    """Return what reads the command line. Where it begins with a command, no other one is loaded."""
    parser = _Parser(
        prog="dibs",
        description="A work queue: hand jobs over, let any number of workers compete for them.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    module = _ADDED_BY.get(wanted, wanted)
    for command in (module,) if module in _COMMANDS else _COMMANDS:
        import_module(f"dibs.cli.{command}").add(commands)
    return parser


def _complain(error: Exception | str, code: int) -> int:
    print(f"dibs: {visible(mask(str(error)))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
