"""Waiting as a supervisor does: on the descriptor, with a bound, never by sleeping a fixed time."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from dibs.broker import Consumer
from dibs.message import Delivery, Message, new_id

#: Seconds after which a condition that should come true at once is given up.
PATIENCE = 20.0


def job(queue: str, body: bytes = b"{}", *, delay: float | None = None, **fields: object) -> Message:
    """Return a message for `queue`, delayed by so many seconds if asked."""
    if delay is not None:
        fields["due"] = int((time.time() + delay) * 1000)
    fields.setdefault("id", new_id())
    return Message(body=body, queue=queue, **fields)  # type: ignore[arg-type]  # a test's own keyword arguments


def receive(consumer: Consumer, count: int, *, limit: int | None = None, within: float = PATIENCE) -> list[Delivery]:
    """Receive until `count` deliveries came or the time is over; the caller asserts how many."""
    deadline = time.monotonic() + within
    got: list[Delivery] = []
    while True:
        got += consumer.receive(min(limit or count, count - len(got)))
        left = deadline - time.monotonic()
        if len(got) >= count or left <= 0:
            return got
        patience = consumer.timeout()
        select.select([consumer], [], [], left if patience is None else min(left, patience))


def receive_nothing(consumer: Consumer, *, within: float = 0.3) -> bool:
    """Tell whether nothing comes for that long."""
    return receive(consumer, 1, within=within) == []


def is_idle_while_full(consumer: Consumer, *, within: float = 0.2) -> bool:
    """Keep a consumer without a free slot at its housekeeping, for longer than the 50 ms of P5."""
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        if consumer.receive(0):
            return False
        select.select([consumer], [], [], left)
    return True


def until(condition: Callable[[], bool], *, within: float = PATIENCE) -> None:
    """Wait for a condition that another process or thread makes true."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within} s: {condition}")
        time.sleep(0.01)
