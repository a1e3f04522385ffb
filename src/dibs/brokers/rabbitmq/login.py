"""From an address to what pika wants to know for logging in."""

from __future__ import annotations

import ssl
from pathlib import Path

import pika

from dibs.errors import BadURL
from dibs.settings import HEARTBEAT
from dibs.url import Address

#: Seconds for a TCP connect, and for the whole login.
_CONNECT_TIMEOUT = 5.0
_PORTS = {"amqp": 5672, "amqps": 5671}


def parameters(address: Address, role: str) -> list[pika.ConnectionParameters]:
    """Return the parameters of each host, in the order given.

    Raises:
        BadURL: a certificate or key can't be read.
    """
    context = _tls(address) if address.scheme == "amqps" else None
    return [
        pika.ConnectionParameters(
            host=host,
            port=port or _PORTS[address.scheme],
            virtual_host=address.path or "/",
            credentials=pika.PlainCredentials(*credentials(address)),
            heartbeat=int(address.options.get("heartbeat", HEARTBEAT)),
            socket_timeout=_CONNECT_TIMEOUT,
            stack_timeout=_CONNECT_TIMEOUT * 2,
            ssl_options=None if context is None else pika.SSLOptions(context, host),
            client_properties={"connection_name": f"dibs {role}"},
        )
        for host, port in address.hosts
    ]


def credentials(address: Address) -> tuple[str, str]:
    """Return user and password."""
    if address.user is None:
        return "guest", "guest" if address.password is None else address.password
    return address.user, address.password or ""


def _tls(address: Address) -> ssl.SSLContext:
    cacert, cert, key = (address.options.get(name) for name in ("cacert", "cert", "key"))
    for path in (cacert, cert, key):
        if path is not None and not Path(path).is_file():
            raise BadURL(f"{address.masked}: there is no file {path!r}.")
    try:
        context = ssl.create_default_context(cafile=cacert)
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise BadURL(f"{address.masked}: a certificate or key can't be used: {error}.") from error
    return context
