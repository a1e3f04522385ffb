"""The RabbitMQ broker, 3.10 to 4.x, spoken to with pika. Nothing outside this package imports the driver."""

from __future__ import annotations

from dibs.brokers.rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
