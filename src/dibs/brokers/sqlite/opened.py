"""What one process has open for one broker: the file, its connections, the boards, the thread that waits."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from dibs.brokers.sqlite.commits import Commits
from dibs.brokers.sqlite.consumer import SqliteConsumer
from dibs.brokers.sqlite.store import Store
from dibs.brokers.sqlite.waiting import Waiters, Waiting
from dibs.brokers.sqlite.wake import Board
from dibs.errors import BrokerError


class Opened:
    """All that one process has open for one broker."""

    def __init__(self, store: Store, *, timeout: float) -> None:
        self.store = store
        try:
            with store.read():
                self.board = Board(store.directory)
                self.waiters = Waiters(store.directory)
                self.commits = Commits(store, timeout=timeout)
                self._connection = store.connect(synchronous="FULL")
        except BrokerError:
            store.close()
            raise
        #: Kept, so that one whose owner forgot it gives back its jobs at the end.
        self.consumers: list[SqliteConsumer] = []
        self._mutex = threading.Lock()
        self._waiting: Waiting | None = None

    def is_usable(self) -> bool:
        """Tell whether this is this process's own, and still the file at that path."""
        return self.store.pid == os.getpid() and not self.store.is_replaced

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for everything but sending, to one thread at a time."""
        with self._mutex:
            yield self._connection

    def waiting(self, prefix: str) -> Waiting:
        """Return what this process waits with for jobs of its namespace to end: a thread, from the first time on."""
        with self._mutex:
            if self._waiting is None:
                self._waiting = Waiting(self.store, self.waiters, prefix=prefix)
            return self._waiting

    def close(self) -> None:
        """Close everything, consumers first. What a forked child has from its parent is only forgotten."""
        if self.store.pid != os.getpid():
            self.store.abandon()
            if self._waiting is not None:
                self._waiting.abandon()
            return
        with ExitStack() as stack:  # all of it, though one should fail
            stack.callback(self.board.close)
            stack.callback(self.waiters.close)
            stack.callback(self.store.close)
            if self._waiting is not None:
                stack.callback(self._waiting.close)
            for consumer in self.consumers:
                stack.callback(consumer.close)
