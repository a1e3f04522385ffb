"""A consumer in a process of its own, so that a test can lose it as workers are lost: by SIGKILL."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from dibs.broker import Consumer
from dibs.brokers import connect
from dibs.errors import ReceiptLost
from dibs.message import Delivery
from dibs.outcome import Outcome
from tests.waiting import PATIENCE, receive

# Forked from a server that has dibs imported and no threads: a process costs milliseconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["dibs.brokers.rabbitmq", "dibs.brokers.sqlite", "tests.remote", "pytest"])


class RemoteConsumer:
    """Speaks to a consumer of another process as to one here."""

    def __init__(self, url: str, namespace: str, queues: Sequence[str], *, limit: int) -> None:
        self._line, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, url, namespace, queues, limit), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def receive(self, count: int, *, within: float = PATIENCE) -> list[Delivery]:
        """Receive until `count` deliveries came or the time is over."""
        return list(self._ask("receive", count, within))

    def settle(self, outcomes: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Record outcomes. See `Consumer.settle`."""
        if lost := self._ask("settle", outcomes):
            raise ReceiptLost(lost)

    def close(self) -> None:
        """Close the consumer, and let its process end."""
        self._ask("close")
        self._end()

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._end()

    def _end(self) -> None:
        self._process.join()
        self._process.close()
        self._line.close()

    def _ask(self, *call: Any) -> Any:
        self._line.send(call)
        return self._answer()

    def _answer(self) -> Any:
        if not self._line.poll(2 * PATIENCE):
            raise AssertionError(f"process {self._process.pid} gave no answer within {2 * PATIENCE} s")
        error, answer = self._line.recv()
        if error is not None:
            raise AssertionError(f"process {self._process.pid} failed: {error}")
        return answer


def _serve(line: Connection, url: str, namespace: str, queues: Sequence[str], limit: int) -> None:
    """Do what is asked until `close`, or until nobody is there to ask."""
    broker = connect(url, namespace=namespace)
    consumer = broker.consume(queues, limit=limit)
    got: list[Delivery] = []
    line.send((None, None))
    while True:
        try:
            name, *arguments = line.recv()
        except EOFError:
            return
        answer: object = None
        try:
            match name:
                case "receive":
                    begun = len(got)
                    got += receive(consumer, arguments[0], within=arguments[1])
                    answer = [_named(number, got[number]) for number in range(begun, len(got))]
                case "settle":
                    answer = _settle(consumer, got, arguments[0])
                case _:
                    broker.close()
        except Exception as error:  # noqa: BLE001 -- it is raised where the call came from
            line.send((repr(error), None))
        else:
            line.send((None, answer))
        if name == "close":
            return


def _named(number: int, delivery: Delivery) -> Delivery:
    """Return a delivery with its number for a receipt: what a broker takes for proof may be bound to its process."""
    return msgspec.structs.replace(delivery, receipt=number)


def _settle(
    consumer: Consumer, got: Sequence[Delivery], outcomes: Sequence[tuple[Delivery, Outcome]]
) -> list[Delivery]:
    """Settle, and return what was lost: the error itself can't be sent."""
    try:
        consumer.settle([(got[named.receipt], outcome) for named, outcome in outcomes])
    except ReceiptLost as error:
        numbers = [next(n for n, one in enumerate(got) if one is lost) for lost in error.deliveries]
        return [_named(number, got[number]) for number in numbers]
    return []
