"""From an address to what pika wants to know for logging in."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import msgspec
import pika

from dibs.brokers.rabbitmq.ledger.streams import Keeping
from dibs.errors import BadURL
from dibs.url import Address, check_options

#: Seconds between signs of life. A frozen peer is noticed after three of them at the latest.
_HEARTBEAT = 15
#: Seconds for a TCP connect, and for the whole login.
_CONNECT_TIMEOUT = 5.0
_PORTS = {"amqp": 5672, "amqps": 5671}
_COMMON = {"heartbeat", "index", "ledger", "ledger_age", "ledger_bytes"}
_OPTIONS = {"amqp": _COMMON, "amqps": _COMMON | {"cacert", "cert", "key"}}
#: How RabbitMQ writes the units of an age.
_UNITS = {"d": "D", "h": "h", "m": "m", "s": "s"}
#: The least that the ledger may be limited to.
_LEAST_BYTES = 1_000_000


def check(address: Address) -> None:
    """Raise if the address has an option that is unknown or makes no sense. Opens nothing.

    Raises:
        BadURL: says which one.
    """
    check_options(address, _OPTIONS[address.scheme])
    heartbeat = address.options.get("heartbeat", str(_HEARTBEAT))
    if not (heartbeat.isdigit() and 1 <= int(heartbeat) <= 3600):
        raise BadURL(f"{address.masked}: heartbeat={heartbeat} is not a number of seconds from 1 to 3600.")
    if ("cert" in address.options) != ("key" in address.options):
        raise BadURL(f"{address.masked}: cert and key belong together; one of them is missing.")
    keeping(address)


def keeping(address: Address) -> Keeping | None:
    """Return how long the ledger keeps what stands in it; None: there is to be none.

    Raises:
        BadURL: an option makes no sense.
    """
    state, age, size = (address.options.get(name) for name in ("ledger", "ledger_age", "ledger_bytes"))
    if state not in {None, "off"}:
        raise BadURL(f"{address.masked}: ledger={state} is unknown. Write ledger=off, or leave it out to have one.")
    if state == "off":
        return None
    kept = Keeping()
    if age is not None:
        found = re.fullmatch(r"([1-9][0-9]{0,5})([dhms])", age)
        if found is None:
            raise BadURL(f"{address.masked}: ledger_age={age} can't be read. Write 7d, 12h, 30m or 90s.")
        kept = msgspec.structs.replace(kept, age=found[1] + _UNITS[found[2]])
    if size is not None:
        if not (re.fullmatch(r"[0-9]{1,18}", size) and int(size) >= _LEAST_BYTES):
            raise BadURL(f"{address.masked}: ledger_bytes={size} is not a number of bytes from {_LEAST_BYTES} up.")
        kept = msgspec.structs.replace(kept, size_bytes=int(size))
    return kept


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
            heartbeat=int(address.options.get("heartbeat", _HEARTBEAT)),
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
