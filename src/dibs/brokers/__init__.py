"""From a URL to its broker. Each broker, and its driver, is imported only when it is connected to."""

from __future__ import annotations

import os

import msgspec

from dibs import settings
from dibs.broker import Broker
from dibs.errors import BadURL
from dibs.url import Address, parse


def read(url: str) -> Address:
    """Return what a URL names, as it is seen from the working directory. Imports no broker, and opens nothing.

    Raises:
        BadURL: the URL can't be read, or asks for a broker whose driver is not installed.
    """
    address = parse(url)
    settings.check(address)
    if address.scheme in {"amqp", "amqps"}:
        from importlib.util import find_spec  # noqa: PLC0415 -- costs the others half a millisecond

        if find_spec("pika") is None:
            raise BadURL(
                "amqp:// URLs need the RabbitMQ client, which is not installed: pip install 'dibs[rabbitmq]'."
            )
    if address.scheme == "sqlite":
        path = os.path.abspath(address.path or "")  # noqa: PTH100  # resolve() would follow links
        return msgspec.structs.replace(address, path=path)
    return address


def connect(
    url: str | Address,
    *,
    namespace: str = "",
    handover_timeout: float = 30.0,
    may_declare: bool = True,
    may_create: bool = True,
) -> Broker:
    """Return the broker that `url` names. Nothing is opened before its first use.

    Args:
        url: see `dibs.url`; or what `read` made of it.
        namespace: put before every name in the broker, so that several apps can share it.
        handover_timeout: seconds that `send` waits for the broker at the most.
        may_declare: False: make no queues and exchanges (RabbitMQ users without the right to).
        may_create: False: an SQLite file that does not exist is an error.

    Raises:
        BadURL: the URL can't be read, or asks for a broker whose driver is not installed.
    """
    address = url if isinstance(url, Address) else read(url)
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
