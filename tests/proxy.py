"""A TCP proxy in front of a broker, for tests that break the network between it and its clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

from tests.rabbit_node import _free_port

_T = TypeVar("_T")

_PIECE_BYTES = 64 * 1024
#: SO_LINGER with a time of nothing: closing then sends RST.
_AT_ONCE = struct.pack("ii", 1, 0)

Direction = Literal["to the server", "to the client"]
_BOTH: tuple[Direction, ...] = ("to the server", "to the client")


class Proxy:
    """Passes connections on to a port of this machine, on a thread of its own, and breaks them when told to."""

    def __init__(self, target: int) -> None:
        """Listen; `port` says where."""
        self._target = target
        #: Seconds that each piece is held up.
        self.delay = 0.0
        #: Bytes that came and were not passed on, for each direction.
        self.held = dict.fromkeys(_BOTH, 0)
        #: Bytes that were passed on.
        self.passed = dict.fromkeys(_BOTH, 0)
        #: How many connections were accepted so far.
        self.accepted = 0
        self._loop = asyncio.new_event_loop()
        self._gates = {direction: asyncio.Event() for direction in _BOTH}
        self._lines: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = _free_port()  # not one that the kernel gives to clients: see there
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._on_thread(self._open_gates)
        self.accept()

    def url(self, query: str = "") -> str:
        """Return the URL of the broker behind it."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{query}"

    @property
    def connections(self) -> int:
        """How many are passed on now."""
        return len(self._lines)

    def cut(self, how: Literal["reset", "end"] = "reset") -> None:
        """End all connections on both sides, by RST or by FIN. New ones are passed on."""
        self._on_thread(lambda: self._cut(how))

    @contextlib.contextmanager
    def silence(self, *directions: Direction) -> Iterator[None]:
        """Let packets vanish for a while: connections stay open, new ones are accepted, and nothing comes through.

        Args:
            directions: which way; both, if none is named. At the end what was held up is delivered, as TCP would.
        """
        chosen = directions or _BOTH
        for direction in chosen:
            self._on_thread(self._gates[direction].clear)
        try:
            yield
        finally:
            self._on_thread(self._open_gates)

    def refuse(self) -> None:
        """Accept no more connections: clients are refused. Those that are there go on."""
        server, self._server = self._server, None
        if server is not None:
            self._on_thread(server.close)

    def accept(self) -> None:
        """Accept connections again, on the same port."""

        async def serve() -> asyncio.Server:
            return await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)

        self._server = asyncio.run_coroutine_threadsafe(serve(), self._loop).result(5)

    def close(self) -> None:
        """End all of it."""
        self.refuse()
        self._on_thread(lambda: self._cut("reset"))
        asyncio.run_coroutine_threadsafe(self._end_pumps(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What follows runs on the proxy's thread.

    def _on_thread(self, function: Callable[[], _T]) -> _T:
        async def run() -> _T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    def _open_gates(self) -> None:
        for gate in self._gates.values():
            gate.set()
        self.held = dict.fromkeys(_BOTH, 0)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()  # the server is down: so is what stands for it
            return
        line = (writer, far_writer)
        self._lines.add(line)
        pumps = [
            self._loop.create_task(self._pump(reader, far_writer, "to the server")),
            self._loop.create_task(self._pump(far_reader, writer, "to the client")),
        ]
        self._pumps.update(pumps)
        await asyncio.wait(pumps)
        self._pumps.difference_update(pumps)
        self._lines.discard(line)
        for end in line:
            end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Pass one direction on until its sender ends it; that, too, waits while packets vanish."""
        gate = self._gates[direction]
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if not gate.is_set():
                    self.held[direction] += len(piece)
                    await gate.wait()
                writer.write(piece)
                self.passed[direction] += len(piece)
                await writer.drain()
        await gate.wait()
        writer.close()  # so that the other pump, too, comes to its end

    def _cut(self, how: Literal["reset", "end"]) -> None:
        for line in self._lines:
            for writer in line:
                end: socket.socket = writer.get_extra_info("socket")
                if how == "reset" and end.fileno() >= 0:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                writer.transport.abort()

    async def _end_pumps(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await asyncio.sleep(0)  # for the handlers that wait for them
