"""`dibs dashboard`: a page that shows at a glance whether all is well."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dibs.cli.arguments import add_broker, open_app
from dibs.errors import BadOption, UsageError

if TYPE_CHECKING:
    from dibs.dashboard.access import Access

#: Where it listens, unless told otherwise: for this machine alone.
_BIND = "127.0.0.1:5555"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "dashboard",
        help="serve a page that shows all of it live",
        description="Serve the dashboard. It listens on this machine alone, unless --bind says otherwise; then it "
        "needs a token, or a user and a password. They are read from files or the environment, as everybody on the "
        "machine can read a command line.",
    )
    parser.add_argument("--bind", default=_BIND, metavar="HOST:PORT", help=f"where to listen ({_BIND})")
    parser.add_argument(
        "--token",
        type=Path,
        metavar="FILE",
        help="let in who knows the token in this file (or $DIBS_DASHBOARD_TOKEN)",
    )
    parser.add_argument("--user", metavar="NAME", help="let in this user, with a password")
    parser.add_argument(
        "--password", type=Path, metavar="FILE", help="the file that has it (or $DIBS_DASHBOARD_PASSWORD)"
    )
    parser.add_argument("--read-only", action="store_true", help="change nothing")
    parser.add_argument("--hide-arguments", action="store_true", help="show neither arguments nor results")
    add_broker(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    try:
        from dibs.dashboard.server import Server  # noqa: PLC0415 -- needs the extra, and takes its time
    except ModuleNotFoundError as error:
        raise UsageError(
            f"The dashboard needs {error.name}, which is not installed. pip install 'dibs[dashboard]'"
        ) from None

    host, port = read_address(options.bind)
    access = _read_access(options)
    with open_app(options) as app:
        server = Server(app, host, port, access, read_only=options.read_only, hide_arguments=options.hide_arguments)
        print(f"dibs dashboard at {server.address} shows {app.broker.location}; Ctrl-C ends it", flush=True)
        server.serve()
    return 0


def read_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT, or [HOST]:PORT.

    Raises:
        BadOption: it is none.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise BadOption(f"--bind {text!r} is no address. Write HOST:PORT, as in {_BIND} or [::1]:5555.")
    return host, int(port)


def _read_access(options: argparse.Namespace) -> Access:
    from dibs.dashboard.access import Access  # noqa: PLC0415

    if options.password is not None and options.user is None:
        raise BadOption("--password needs --user.")
    token = _read_secret(options.token, "DIBS_DASHBOARD_TOKEN") if options.user is None else None
    if options.user is not None and options.token is not None:
        raise BadOption("Give either --token, or --user and --password.")
    password = _read_secret(options.password, "DIBS_DASHBOARD_PASSWORD") if options.user is not None else None
    if options.user is not None and password is None:
        raise BadOption("--user needs a password: --password FILE, or $DIBS_DASHBOARD_PASSWORD.")
    return Access(token=token, user=options.user, password=password)


def _read_secret(path: Path | None, variable: str) -> str | None:
    """Return what a file has, else a variable of the environment; None: neither was given."""
    if path is None:
        return os.environ.get(variable) or None
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is no text'}.") from None
