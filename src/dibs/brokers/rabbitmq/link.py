"""One connection that comes back by itself, and the I/O thread that owns it.

Whatever touches the connection runs on that thread: `post` and `run` hand work over to it. The link knows
nothing of queues; it tells its owner when a connection is there and when it is gone.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import itertools
import logging
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from pika import exceptions

from dibs.brokers.rabbitmq import faults, login
from dibs.brokers.rabbitmq.channel import Connection, connect
from dibs.errors import AccessRefused, BrokerError, BrokerUnavailable, DibsError
from dibs.url import Address

_log = logging.getLogger("dibs.rabbitmq")
_T = TypeVar("_T")

#: Seconds between tries to connect, after the first try of each host: doubles from the first to the second.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
#: How long a connection must last for the outage to be over; one that is cut at once is no better than none.
_STEADY = 3.0
#: How long a close in good order may take, and what it takes to see the I/O thread end after that.
_CLOSE_TIMEOUT, _JOIN_TIMEOUT = 2.0, 3.0


class Owner(Protocol):
    """Who uses a link. All of it is called on the I/O thread."""

    def on_open(self, connection: Connection) -> None:
        """Take up a new connection."""
        ...

    def on_lost(self, error: BaseException) -> None:
        """Do without the connection until the next `on_open`."""
        ...

    def on_refused(self, error: AccessRefused) -> None:
        """Tell whoever waits that the server lets nobody in with this login."""
        ...


class Link:
    """A connection of one role: "publisher" or "consumer"."""

    def __init__(self, address: Address, role: str, owner: Owner) -> None:
        """Start connecting, in the background."""
        self.location = address.masked
        #: Why there is no connection; None while there is one.
        self.trouble: BrokerError | None = BrokerUnavailable(f"{self.location} has not answered yet.")
        self._owner = owner
        self._parameters = login.parameters(address, role)
        random.shuffle(self._parameters)  # so that the clients of a cluster spread over its nodes
        self._connection: Connection | None = None
        self._refusals = 0
        #: Tries in a row that brought no connection that lasted.
        self._failures = 0
        self._is_closing = False
        self._task: asyncio.Task[Any] | None = None
        _quieten_pika()
        self._loop = asyncio.new_event_loop()
        self._news = asyncio.Event()
        self._asked = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name=f"dibs-rabbitmq-{role}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs. In a forked child it does not."""
        return self._thread.is_alive()

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Run `function` on the I/O thread, soon. Returns at once.

        Raises:
            DibsError: the link is closed.
        """
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError as error:
            raise DibsError(f"The connection to {self.location} is closed.") from error

    def run(self, work: Callable[[Connection], Coroutine[Any, Any, _T]], timeout: float, doing: str) -> _T:
        """Run `work` with the connection on the I/O thread, and return its result.

        Raises:
            BrokerUnavailable: no connection or no answer within `timeout` seconds, or it was lost.
            AccessRefused: the login was refused, or a permission is missing.
            QueueMismatch: what exists does not fit what was asked for.
        """
        return self.wait(self.begin(work), timeout, doing)

    def begin(self, work: Callable[[Connection], Coroutine[Any, Any, _T]]) -> concurrent.futures.Future[_T]:
        """Begin what `run` runs, for `wait`."""

        async def with_connection() -> _T:
            return await work(await self.connected())

        self.post(self.ask)
        return asyncio.run_coroutine_threadsafe(with_connection(), self._loop)

    def wait(self, future: concurrent.futures.Future[_T], timeout: float, doing: str) -> _T:
        """Return what came of what `begin` began. Raises as `run` does."""
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError as error:
            raise DibsError(f"The connection to {self.location} was closed while {doing}.") from error
        except TimeoutError as error:
            future.cancel()
            if self.trouble is not None:
                raise self.trouble from error
            raise BrokerUnavailable(f"{self.location} gave no answer within {timeout:g} s while {doing}.") from error
        except exceptions.AMQPError as error:
            raise faults.from_channel(error, self.location, doing) from error

    def close(self) -> None:
        """End the connection in good order, if it takes part in that, and the thread. Safe to call twice."""
        atexit.unregister(self.close)
        if self.is_alive:
            self.post(self._begin_close)
            self._thread.join(_JOIN_TIMEOUT)

    # What follows runs on the I/O thread.

    def ask(self) -> None:
        """Try again though the login was refused: someone wants the connection once more."""
        self._asked.set()

    async def connected(self) -> Connection:
        """Wait for a connection.

        Raises:
            AccessRefused: the login was refused meanwhile.
        """
        refusals = self._refusals
        while self._connection is None:
            await self._news.wait()
            if self._refusals > refusals and self.trouble is not None:
                raise self.trouble
        return self._connection

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._task = asyncio.current_task()
        hosts = itertools.cycle(self._parameters)
        while not self._is_closing:
            lost: asyncio.Future[BaseException] = self._loop.create_future()
            try:
                connection = await connect(next(hosts), lost.set_result)
            except (exceptions.AMQPError, ConnectionError) as error:
                await self._on_unreachable(faults.from_login(error, self.location))
                continue
            await self._use(connection, lost)
            if not self._is_closing:
                await self._pause()

    async def _use(self, connection: Connection, lost: asyncio.Future[BaseException]) -> None:
        """Lend the connection to the owner until it is lost."""
        self._connection, self.trouble = connection, None
        self._tell()
        self._owner.on_open(connection)
        steady = self._loop.call_later(_STEADY, self._end_outage)
        reason = await asyncio.shield(lost)
        steady.cancel()
        self._connection = None
        self.trouble = faults.from_channel(reason, self.location, "connected")
        self._owner.on_lost(reason)

    def _end_outage(self) -> None:
        if self._failures:
            _log.info("Connected to RabbitMQ again. broker=%s", self.location)
        self._failures = 0

    async def _on_unreachable(self, trouble: BrokerError) -> None:
        self.trouble = trouble
        if isinstance(trouble, AccessRefused):
            self._refusals += 1
            self._asked.clear()
            self._tell()
            self._owner.on_refused(trouble)
            await self._asked.wait()
        await self._pause()

    async def _pause(self) -> None:
        """Wait before the next try; not before each host had its first one."""
        self._failures += 1
        if self._failures == 1 and not isinstance(self.trouble, AccessRefused):
            _log.warning("No connection to RabbitMQ; trying on. error=%s", self.trouble)
        if (rounds := self._failures - len(self._parameters)) >= 0:
            longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(rounds, 10))
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))

    def _tell(self) -> None:
        """Wake all that wait for news, and only them."""
        self._news.set()
        self._news = asyncio.Event()

    def _begin_close(self) -> None:
        self._is_closing = True
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
            self._loop.call_later(_CLOSE_TIMEOUT, self._connection.abort)  # packets vanish: no answer ever comes
        elif self._task is not None:
            self._task.cancel()


def _quieten_pika() -> None:
    """Keep pika's own words out of the user's log: it tells each lost connection in some ten lines at ERROR.

    We tell the same in one. A level that the user chose for "pika" stands.
    """
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
