"""litequeue, with the worker's loop that its documentation shows.

python -m bench.apps.litequeue
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time

from litequeue import LiteQueue

from bench import job

_LOCAL = threading.local()  # a connection belongs to one thread


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Put one message."""
    _queue("FULL").put(json.dumps([number, seconds, padding]))


def work() -> None:
    """Pop one message after the other, for ever; mark each done when it was done."""
    queue = _queue("NORMAL")
    while True:
        if message := queue.pop():
            job.run(*json.loads(message.data))
            queue.done(message.message_id)
        else:
            time.sleep(0.01)


def _queue(synchronous: str) -> LiteQueue:
    if not hasattr(_LOCAL, "queue"):
        connection = sqlite3.connect(os.environ["BENCH_URL"], isolation_level=None, timeout=30)
        _LOCAL.queue = LiteQueue(connection)
        # It sets NORMAL itself and has no option for it: what is handed over is to be as durable as elsewhere.
        connection.execute(f"PRAGMA synchronous={synchronous}")
    return _LOCAL.queue


if __name__ == "__main__":
    work()
