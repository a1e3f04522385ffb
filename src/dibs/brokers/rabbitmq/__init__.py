"""The RabbitMQ broker, 3.10 to 4.x, spoken to with pika. Nothing outside this package imports the driver."""

from __future__ import annotations

from dibs.errors import BadURL

try:
    import pika as _pika  # noqa: F401 -- asked for first, so that its absence is told in one sentence
except ImportError as error:
    raise BadURL(
        "amqp:// URLs need the RabbitMQ client, which is not installed: pip install 'dibs[rabbitmq]'."
    ) from error

from dibs.brokers.rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
