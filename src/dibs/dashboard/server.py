"""Serves a dashboard by itself, until a signal ends it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from dibs.dashboard.access import Access, is_loopback
from dibs.dashboard.mount import make_site
from dibs.dashboard.watch import VIEWERS
from dibs.errors import BadOption

if TYPE_CHECKING:
    from dibs.app import Dibs

#: More connections than viewers: pages and files are asked for too.
_CONNECTIONS = VIEWERS + 100
#: Seconds that a request may take to end once the server is to.
_GRACE = 3


class Server:
    """One address with a dashboard behind it."""

    def __init__(
        self, app: Dibs, host: str, port: int, access: Access, *, read_only: bool, hide_arguments: bool
    ) -> None:
        """Listen, so that a port that is taken is known before anything else.

        Raises:
            BadOption: everybody who reaches the address could look.
            OSError: it can't be listened on; the text says why.
        """
        is_local = is_loopback(f"[{host}]" if ":" in host else host)
        if not is_local and not access.is_guarded:
            raise BadOption(
                f"{host} can be reached by others, so the dashboard needs to know whom to let in: --token FILE, or "
                "--user NAME and --password FILE."
            )
        self._site = make_site(
            app,
            access,
            read_only=read_only,
            hide_arguments=hide_arguments,
            is_local=is_local and not access.is_guarded,
        )
        self._socket = _listen(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}/"

    def serve(self) -> None:
        """Answer requests until SIGINT or SIGTERM."""
        config = uvicorn.Config(
            self._site.app,
            ws="none",
            access_log=False,  # addresses have job ids and the names of tasks in them
            log_level="error",  # who sends garbage gets 400, and no line of the log
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE,
        )
        server = _Uvicorn(config, self._site.watch.close)
        with self._socket:
            server.run([self._socket])


class _Uvicorn(uvicorn.Server):
    """Sends viewers away when it is to end: else it would wait for pages that stay open."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        self._on_exit()
        super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        why = error.strerror or str(error)
        if "in use" in why:
            raise OSError(f"{host}:{port} is taken by another program. Choose another port with --bind.") from None
        raise OSError(f"{host}:{port} can't be listened on: {why}.") from None
