"""Private servers, RabbitMQ and Redis: started when the first system asks for one, on free ports."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.system import Store
from tests.rabbit_node import Node

_ADD_VHOST = """
rabbit_vhost:add(<<"{name}">>, <<"bench">>),
rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"bench">>)."""
_DELETE_VHOST = 'rabbit_vhost:delete(<<"{name}">>, <<"bench">>),'
_READY_WITHIN = 20.0


class Server(Protocol):
    """Something that keeps jobs. `fresh` may be called again and again."""

    def fresh(self, directory: Path) -> str:
        """Return an empty place to keep jobs: a file's path or a server's URL. What was there before is gone."""
        ...

    def version(self) -> str:
        """Return what it is, with its version and what was configured."""
        ...

    def close(self) -> None:
        """End it."""


class Servers:
    """The servers of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[Store, Server] = {}

    def get(self, store: Store) -> Server:
        """Return the server of that kind; the first time, start it."""
        if store not in self._running:
            makers: dict[Store, Callable[[Path], Server]] = {
                Store.SQLITE: Files,
                Store.RABBITMQ: RabbitMQ,
                Store.REDIS: Redis,
            }
            self._running[store] = makers[store](self._folder / store.value.lower())
        return self._running[store]

    def close(self) -> None:
        """End all of them."""
        for server in self._running.values():
            server.close()


class Files:
    """No server at all: a file in the folder of the measurement."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def fresh(self, directory: Path) -> str:
        """Return the path of a file that isn't there yet."""
        return str(directory / "bench.db")

    def version(self) -> str:
        """Return the version of the `sqlite3` module's library."""
        return f"SQLite {sqlite3.sqlite_version} (dibs, sqlite3, Huey, potatoq, litequeue; taskito brings its own)"

    def close(self) -> None:
        """Do nothing: whoever made the folder removes it."""


class RabbitMQ:
    """One node as it comes, but for its name, its ports and its folder; a virtual host for each measurement."""

    def __init__(self, folder: Path) -> None:
        self._node = Node(folder)
        self._node.start()
        self._hosts = 0

    def fresh(self, directory: Path) -> str:  # noqa: ARG002
        """Make a virtual host and delete the one before; one call, as each costs most of a second."""
        old, self._hosts = f"bench{self._hosts}", self._hosts + 1
        name = f"bench{self._hosts}"
        delete = _DELETE_VHOST.format(name=old) if self._hosts > 1 else ""
        self._node.ctl("eval", delete + _ADD_VHOST.format(name=name))
        return f"{self._node.url}{name}"

    def version(self) -> str:
        """Ask the node."""
        return f"RabbitMQ {self._node.ctl('version').strip()}, one node, configured as it comes"

    def close(self) -> None:
        """Kill it: nobody needs its data any more."""
        self._node.kill()


class Redis:
    """A redis-server that syncs each write before it answers."""

    _OPTIONS = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--bind", "127.0.0.1")

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("No redis-server: run `apt-get install redis-server`, or leave rq out.")
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        command = [program, "--port", str(self._port), "--dir", str(folder), *self._OPTIONS]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _READY_WITHIN
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"redis-server did not answer on port {self._port} within {_READY_WITHIN:.0f} s.")
            time.sleep(0.05)

    def fresh(self, directory: Path) -> str:  # noqa: ARG002
        """Forget everything."""
        self._ask("FLUSHALL")
        return f"redis://127.0.0.1:{self._port}/0"

    def version(self) -> str:
        """Ask the server."""
        found = [line for line in self._ask("INFO server").splitlines() if line.startswith("redis_version:")]
        return f"Redis {found[0].partition(':')[2]}, {' '.join(self._OPTIONS[:4]).replace('--', '')}"

    def close(self) -> None:
        """Kill it: nobody needs its data any more."""
        self._process.kill()
        self._process.wait()

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self._ask("PING") == "+PONG\r\n"
        return False

    def _ask(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self._port), timeout=30) as line:
            line.sendall(f"{command}\r\n".encode())
            return line.recv(65536).decode()
