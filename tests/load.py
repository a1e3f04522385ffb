"""A producer that never stops, for tests that break the broker under it: it keeps what it was told."""

from __future__ import annotations

import itertools
import threading
import time
from types import TracebackType

from dibs import Dibs
from dibs.errors import BrokerBusy, BrokerError, BrokerUnavailable, HandoverUncertain
from tests.waiting import until

#: Jobs that are handed over at once, and the pause after that, in seconds.
_BATCH, _PAUSE = 5, 0.02
_TASKS = "tests.crash.tasks"


class Load:
    """Hands over work, some of it delayed and some that fails at first, and once more what was not told stored."""

    def __init__(self, app: Dibs) -> None:
        self._app = app
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        #: What it was told is stored.
        self.stored: set[str] = set()
        #: What it was told instead, each time.
        self.errors: list[BrokerError] = []
        #: Seconds of the longest call, and between two that succeeded.
        self.longest_call = self.longest_gap = 0.0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def go_on(self) -> None:
        """Wait until more was stored."""
        count = len(self.stored)
        until(lambda: len(self.stored) >= count + 10 * _BATCH or not self._thread.is_alive(), within=60.0)
        assert self._thread.is_alive()

    def stop(self) -> set[str]:
        """Hand over no more; return what was told stored."""
        self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.stored

    def _run(self) -> None:
        work, fail = self._app.get_task(f"{_TASKS}.work"), self._app.get_task(f"{_TASKS}.fail_once")
        last = time.monotonic()
        for number in itertools.count():
            if self._stopped.wait(_PAUSE):
                return
            keys = [f"{number}-{letter}" for letter in "abcde"[:_BATCH]]
            calls = {
                key: (fail if key == f"{number}-a" and number % 5 == 0 else work)
                .using(id=key, delay=0.3 if key.endswith("b") else None)
                .prepare(key)
                for key in keys
            }
            while calls and not self._stopped.is_set():
                began = time.monotonic()
                try:
                    self._app.enqueue_many(list(calls.values()))
                    calls = {}
                except HandoverUncertain as error:
                    self.errors.append(error)
                    calls = {key: calls[key] for key in error.ids}
                except (BrokerBusy, BrokerUnavailable) as error:
                    self.errors.append(error)
                self.longest_call = max(self.longest_call, time.monotonic() - began)
                self.stored.update(set(keys) - set(calls))
            self.longest_gap = max(self.longest_gap, time.monotonic() - last)
            last = time.monotonic()
