"""Plain pika, as RabbitMQ's own tutorial has it, with confirms: no work queue, but what one is measured by.

python -m bench.apps.pika PREFETCH
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import pika

from bench import job

_QUEUE = "bench"
_LOCAL = threading.local()  # a connection belongs to one thread


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Publish one message and wait for its confirm."""
    if not hasattr(_LOCAL, "channel"):
        _LOCAL.channel = _channel()
        _LOCAL.channel.confirm_delivery()
    _LOCAL.channel.basic_publish(
        exchange="",
        routing_key=_QUEUE,
        body=json.dumps([number, seconds, padding]).encode(),
        properties=pika.BasicProperties(delivery_mode=2),  # type: ignore[no-untyped-call]  # 2: persistent
        mandatory=True,
    )


def work(prefetch: int) -> None:
    """Do one message after the other, for ever; acknowledge each when it was done."""
    channel = _channel()
    channel.basic_qos(prefetch_count=prefetch)
    channel.basic_consume(queue=_QUEUE, on_message_callback=_do)
    channel.start_consuming()


def _do(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
    job.run(*json.loads(body))
    channel.basic_ack(delivery_tag=method.delivery_tag)


def _channel() -> Any:
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["BENCH_URL"])).channel()
    channel.queue_declare(queue=_QUEUE, durable=True, arguments={"x-queue-type": os.environ["BENCH_QUEUE_TYPE"]})
    return channel


if __name__ == "__main__":
    work(int(sys.argv[1]))
