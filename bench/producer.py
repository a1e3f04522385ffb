"""The program that hands jobs over: run in a system's own virtual environment, it times nothing but the hand-over.

    python -m bench.producer APP MODE --count N [--limit S] [--padding BYTES] [--seconds S ...] [--first N]

APP is a module of `bench/apps/`. Prints one line of JSON: how many were handed over, in how many seconds, and, in
mode `spaced`, when each call began.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from bench.job import WARM_UP

#: A job's arguments: its number, how long it takes, and its padding.
Call = tuple[int, float, str]

_THREADS = 16
_BULK = 10_000


def main() -> None:
    """Hand over what the command line asks for."""
    options = _options()
    app: Any = importlib.import_module(options.app)
    calls = _calls(options)
    produce = _produce_async if hasattr(app, "aenqueue") else _produce
    print(json.dumps(produce(app, options.mode, calls, options.limit)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("mode", choices=["one", "threads", "bulk", "spaced"])
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--limit", type=float, default=600.0)
    parser.add_argument("--padding", type=int, default=0)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.0])
    parser.add_argument("--first", type=int, default=0)
    return parser.parse_args()


def _calls(options: argparse.Namespace) -> Sequence[Call]:
    """Return the jobs; `seconds` are used in turn."""
    padding = "x" * options.padding
    lengths = itertools.cycle(options.seconds)
    return [(options.first + number, next(lengths), padding) for number in range(options.count)]


def _produce(app: Any, mode: str, calls: Sequence[Call], limit: float) -> dict[str, Any]:
    _warm_up(app.enqueue, 0)  # declares what there is to declare
    if mode == "threads":
        return _by_threads(app.enqueue, calls, limit)
    began = time.monotonic()
    if mode == "bulk":
        count = 0
        for start in range(0, len(calls), _BULK):
            app.enqueue_many(calls[start : start + _BULK])
            count += len(calls[start : start + _BULK])
            if time.monotonic() - began > limit:
                break
        return {"count": count, "seconds": time.monotonic() - began, "sent": []}
    sent: list[int] = []
    count = 0
    for call in _in_time(calls, limit):
        if mode == "spaced":
            time.sleep(_pause())
            sent.append(time.monotonic_ns())
        app.enqueue(*call)
        count += 1
    return {"count": count, "seconds": time.monotonic() - began, "sent": sent}


def _by_threads(enqueue: Callable[[int, float, str], object], calls: Sequence[Call], limit: float) -> dict[str, Any]:
    """Hand over from all threads at once, each with a share of its own."""
    ready = threading.Barrier(_THREADS + 1)

    def work(thread: int) -> int:
        try:
            _warm_up(enqueue, thread + 1)  # a connection of the thread's own, where it has one, is opened before
        except BaseException:
            ready.abort()
            raise
        ready.wait(60)
        count = 0
        for call in _in_time(calls[thread::_THREADS], limit):
            enqueue(*call)
            count += 1
        return count

    with ThreadPoolExecutor(_THREADS) as threads:
        counts = [threads.submit(work, thread) for thread in range(_THREADS)]
        with contextlib.suppress(threading.BrokenBarrierError):  # the thread that broke it says why
            ready.wait(60)
        began = time.monotonic()
        count = sum(done.result() for done in as_completed(counts))
        return {"count": count, "seconds": time.monotonic() - began, "sent": []}


def _produce_async(app: Any, mode: str, calls: Sequence[Call], limit: float) -> dict[str, Any]:
    """Do the same on an event loop, for systems without another way; coroutines stand in for threads."""

    async def work(share: Sequence[Call], sent: list[int]) -> int:
        count = 0
        for call in _in_time(share, limit):
            if mode == "spaced":
                await asyncio.sleep(_pause())
                sent.append(time.monotonic_ns())
            await app.aenqueue(*call)
            count += 1
        return count

    async def main() -> dict[str, Any]:
        await app.astart()
        await app.aenqueue(WARM_UP, 0.0, "")
        sent: list[int] = []
        workers = _THREADS if mode == "threads" else 1
        began = time.monotonic()
        counts = await asyncio.gather(*(work(calls[worker::workers], sent) for worker in range(workers)))
        seconds = time.monotonic() - began
        await app.astop()
        return {"count": sum(counts), "seconds": seconds, "sent": sent}

    return asyncio.run(main())


def _warm_up(enqueue: Callable[[int, float, str], object], number: int) -> None:
    enqueue(WARM_UP + number, 0.0, "")


def _in_time(calls: Sequence[Call], limit: float) -> Iterator[Call]:
    deadline = time.monotonic() + limit
    for call in calls:
        yield call
        if time.monotonic() > deadline:
            return


def _pause() -> float:
    """Return a wait that no polling interval can stay in step with."""
    return random.uniform(0.03, 0.07)


if __name__ == "__main__":
    main()
