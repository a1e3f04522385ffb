"""`dibs worker --metrics`: a small HTTP server beside the supervisor's loop, on threads of its own.

It only reads. A request that is slow, hangs or is none costs a thread for some seconds, and the worker nothing.
"""

from __future__ import annotations

import logging
import selectors
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import cast

from dibs.errors import BadOption
from dibs.metrics.exposition import CONTENT_TYPE
from dibs.worker.address import read_address
from dibs.worker.health import Health

log = logging.getLogger("dibs.worker")

#: Seconds that a connection may last.
_LONGEST = 10.0
#: Seconds between two looks for those that last longer.
_LOOK = 2.0
#: Most connections at a time.
_MOST = 32


@contextmanager
def serving(address: str, health: Health) -> Iterator[None]:
    """Serve `/metrics`, `/healthz` and `/readyz` at that address.

    Raises:
        BadOption: there is no such address here, or others listen there.
    """
    host, port = read_address(address)
    try:
        server = _Server(host, port, health)
    except OSError as error:
        raise BadOption(
            f"--metrics {address}: {error.strerror or error}. Choose another address, or end what listens there."
        ) from error
    thread = threading.Thread(target=server.serve, name="dibs-metrics", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    log.info("metrics are served url=%s", f"http://{shown}:{server.server_address[1]}/metrics")
    try:
        yield
    finally:
        server.end()
        thread.join(_LOOK)  # who starts anew listens at the same address
        health.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    timeout = 0

    def __init__(self, host: str, port: int, health: Health) -> None:
        self.health = health
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open: dict[socket.socket, float] = {}
        self._end_reader, self._end_writer = socket.socketpair()
        try:
            super().__init__((host, port), _Handler)
        except OSError:
            self._end_writer.close()
            self._end_reader.close()
            raise
        self.socket.setblocking(False)  # who knocked may have gone before it is let in

    def serve(self) -> None:
        """Answer until `end`; nothing wakes this while nobody asks."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._end_reader, selectors.EVENT_READ)
            while not any(key.fileobj is self._end_reader for key, _ in selector.select(self._patience)):
                self.handle_request()
                self._end_long_ones()
        self.server_close()
        self._end_reader.close()

    def end(self) -> None:
        """Have `serve` end."""
        self._end_writer.close()

    @property
    def _patience(self) -> float | None:
        return _LOOK if self._open else None

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Answer on a thread of its own, unless there are too many."""
        assert isinstance(request, socket.socket)  # it is no datagram
        if len(self._open) >= _MOST:
            self.shutdown_request(request)
            return
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """End a connection."""
        assert isinstance(request, socket.socket)
        self._open.pop(request, None)
        super().shutdown_request(request)

    def _end_long_ones(self) -> None:
        """End connections that last too long, wherever their threads wait."""
        now = time.monotonic()
        for request, since in list(self._open.items()):
            if now - since > _LONGEST:
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it has just ended by itself

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away; anything else is a fault of ours."""
        del request, client_address
        if not isinstance(sys.exception(), OSError):
            log.error("a request for metrics could not be answered", exc_info=sys.exception())


class _Handler(BaseHTTPRequestHandler):
    timeout = _LONGEST

    def do_GET(self) -> None:
        """Answer."""
        health = cast("_Server", self.server).health
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, health.page(), CONTENT_TYPE)
            case "/healthz":
                self._tell(is_so=health.is_well, yes="ok", no="the supervisor's loop does not turn")
            case "/readyz":
                self._tell(is_so=health.is_ready, yes="ready", no="not connected, or ending")
            case _:
                self._answer(404, "There are /metrics, /healthz and /readyz.\n")

    do_HEAD = do_GET  # noqa: N815 -- the base's own word

    def _tell(self, *, is_so: bool, yes: str, no: str) -> None:
        self._answer(200 if is_so else 503, f"{yes if is_so else no}\n")

    def _answer(self, status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Name the server."""
        return "dibs"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's own word
        """Log nothing: a probe comes every few seconds."""
