"""From a URL to its broker. Each broker, and its driver, is imported only when a URL asks for it."""

from __future__ import annotations

from dibs.broker import Broker
from dibs.url import parse


def connect(
    url: str,
    *,
    namespace: str = "",
    handover_timeout: float = 30.0,
    may_declare: bool = True,
    may_create: bool = True,
) -> Broker:
    """Return the broker that `url` names. Nothing is opened before its first use.

    Args:
        url: see `dibs.url`.
        namespace: put before every name in the broker, so that several apps can share it.
        handover_timeout: seconds that `send` waits for the broker at the most.
        may_declare: False: make no queues and exchanges (RabbitMQ users without the right to).
        may_create: False: an SQLite file that does not exist is an error.

    Raises:
        BadURL: the URL can't be read, or asks for a broker whose driver is not installed.
    """
    address = parse(url)
    match address.scheme:
        case "sqlite":
            from dibs.brokers.sqlite import SqliteBroker  # noqa: PLC0415

            return SqliteBroker(
                address, namespace=namespace, handover_timeout=handover_timeout, may_create=may_create
            )
        case "memory":
            from dibs.brokers.memory import MemoryBroker  # noqa: PLC0415

            return MemoryBroker()
        case _:
            from dibs.brokers.rabbitmq import RabbitBroker  # noqa: PLC0415

            return RabbitBroker(
                address, namespace=namespace, handover_timeout=handover_timeout, may_declare=may_declare
            )
