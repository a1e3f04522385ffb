"""What the query of a broker's URL may say, read without the broker: neither it nor its driver is imported."""

from __future__ import annotations

import re

import msgspec

from dibs.errors import BadURL
from dibs.url import Address, check_options

_RABBITMQ = {"heartbeat", "index", "ledger", "ledger_age", "ledger_bytes"}
_OPTIONS: dict[str, set[str]] = {
    "sqlite": {"unsafe_fs", "share"},
    "amqp": _RABBITMQ,
    "amqps": _RABBITMQ | {"cacert", "cert", "key"},
}
#: Seconds between signs of life. A frozen peer is noticed after three of them at the latest.
HEARTBEAT = 15
#: How RabbitMQ writes the units of an age.
_UNITS = {"d": "D", "h": "h", "m": "m", "s": "s"}
#: The least that the ledger may be limited to.
_LEAST_BYTES = 1_000_000


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """How long RabbitMQ's ledger keeps what stands in it."""

    #: As RabbitMQ writes it: "7D".
    age: str = "7D"
    size_bytes: int = 5 * 1000 * 1000 * 1000


def check(address: Address) -> None:
    """Raise if the address has an option that is unknown or makes no sense. Opens nothing.

    Raises:
        BadURL: says which one.
    """
    if address.scheme != "memory":
        check_options(address, _OPTIONS[address.scheme])
    if address.scheme in {"amqp", "amqps"}:
        _check_rabbitmq(address)


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


def _check_rabbitmq(address: Address) -> None:
    heartbeat = address.options.get("heartbeat", str(HEARTBEAT))
    if not (heartbeat.isdigit() and 1 <= int(heartbeat) <= 3600):
        raise BadURL(f"{address.masked}: heartbeat={heartbeat} is not a number of seconds from 1 to 3600.")
    if ("cert" in address.options) != ("key" in address.options):
        raise BadURL(f"{address.masked}: cert and key belong together; one of them is missing.")
    keeping(address)
