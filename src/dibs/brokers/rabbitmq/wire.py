"""A `Message` as AMQP properties, headers and body, and back (design: "On the wire").

What dibs publishes any AMQP client can read, and what any client publishes can be read here: a stranger's
message may have anything, or nothing, in every place. What would act again if it were published again (an
expiration, copies to others, the broker's own marks) travels in one header, `dibs-original`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from dibs.brokers.rabbitmq import fields, plainform
from dibs.brokers.rabbitmq.plainform import Plain
from dibs.message import DEFAULT_KEEP, DEFAULT_PRIORITY, Message, new_id
from dibs.outcome import DeadLetter, clip_error

#: The most that properties and headers of a new message may take.
HEADER_BYTES = 64 * 1024
#: The most that they can take: they must fit one frame of 128 KiB, a larger one closes the whole connection.
_FRAME_BYTES = 127 * 1024
#: Longest text that AMQP carries as a property, a name or a routing key.
SHORT_STRING_BYTES = fields.SHORT_STRING_BYTES

#: Properties that are carried as they are.
_CARRIED = ("content_encoding", "correlation_id", "reply_to", "app_id")
#: Properties that act: the message would expire, or be refused under another login.
_ACTING = ("expiration", "user_id", "cluster_id")
#: Headers that act, or that are the broker's to set.
_ACTING_HEADERS = frozenset({"CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count"})
_ACTING_PREFIXES = ("x-first-death-", "x-last-death-")
#: A delay level or a lease queue, in any namespace.
_OWN_QUEUE = re.compile(r"(?:^|\.)dibs\.(delay|lease)\.")
#: The last second that has four digits of a year.
_LAST_SECOND = 253_402_300_799


class Burial(msgspec.Struct, frozen=True):
    """What a dead letter says beyond its message."""

    reason: str
    error: str
    #: None: whoever set it aside did not say.
    died: int | None
    worker: str | None


class Marks(msgspec.Struct, frozen=True, kw_only=True, rename=lambda name: f"dibs-{name.replace('_', '-')}"):
    """The headers that are dibs' own, under their wire names: those that are there and have the right type."""

    attempt: int = 1
    crashes: int = 0
    suspect: bool = False
    due: int | None = None
    expires: int | None = None
    unknown_since: int | None = None
    error: str | None = None
    keep: float = DEFAULT_KEEP
    private: bool = False
    reason: str | None = None
    died: int | None = None
    worker: str | None = None
    put: str | None = None
    original: dict[str, Any] = {}


def _is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LAST_SECOND * 1000


def _is_duration(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LAST_SECOND


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_original(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("headers", {}), dict)


#: Each header of dibs with the test of its value; one that fails it is a stranger's own and is left to him.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "dibs-attempt": lambda value: type(value) is int and value >= 1,
    "dibs-crashes": lambda value: type(value) is int and value >= 0,
    "dibs-suspect": lambda value: type(value) is bool,
    "dibs-due": _is_time,
    "dibs-expires": _is_time,
    "dibs-unknown-since": _is_time,
    "dibs-error": _is_text,
    "dibs-keep": _is_duration,
    "dibs-private": lambda value: type(value) is bool,
    "dibs-reason": _is_text,
    "dibs-died": _is_time,
    "dibs-worker": _is_text,
    "dibs-put": _is_text,
    "dibs-original": _is_original,
}


class Received(msgspec.Struct, frozen=True):
    """A message as it came from the broker."""

    message: Message
    marks: Marks
    #: How often it was given back before; None where it was, and the queue's type does not count.
    returns: int | None
    #: Whether somebody had it before.
    is_again: bool

    @property
    def letter(self) -> DeadLetter:
        """The message as the dead letter that it is; another client's says what it says."""
        return DeadLetter(
            message=self.message,
            reason=self.marks.reason or "",
            error=self.message.error or "",
            died=self.marks.died,
            worker=self.marks.worker,
        )


def encode(message: Message, put: str, burial: Burial | None = None, *, reply_to: str | None = None) -> bytes:
    """Return the properties of a message in wire form.

    Args:
        message: its body is not looked at.
        put: a nonce for this handover.
        burial: given where the message is set aside.
        reply_to: the queue where this process waits for outcomes, unless the message names one.
    """
    if burial is None and (plain := plainform.encode(message, put, reply_to)) is not None:
        return plain
    kept, original = _split(message)
    properties = {
        "content_type": message.content_type,
        "delivery_mode": 2,
        "priority": max(0, min(message.priority, 255)),
        "message_id": message.id,
        "timestamp": None if message.enqueued is None else max(0, message.enqueued // 1000),
        "type": message.task,
        "app_id": None if message.task is None else "dibs",
        "reply_to": reply_to,
    }
    properties |= {name: str(message.properties[name]) for name in _CARRIED if name in message.properties}
    own = _own_headers(message, put, burial)
    if original:
        own["dibs-original"] = original
    data = fields.encode({**properties, "headers": {**kept, **own}})
    if len(data) > _FRAME_BYTES:
        return fields.encode({**properties, "headers": _fit({**kept, **own})})
    return data


def decode(
    data: bytes, body: bytes, queue: str, *, redelivered: bool, make_id: Callable[[], str] = new_id
) -> Received:
    """Return a message that came from the broker. Never fails, whoever wrote it.

    Args:
        data: its properties.
        body: as it came.
        queue: which one it is for.
        redelivered: it was given out before.
        make_id: gives an id to one that came without.
    """
    if (plain := plainform.decode(data)) is not None:
        return _read_plain(plain, body, queue, redelivered=redelivered)
    properties = fields.decode(data)
    table = properties.get("headers") or {}
    way = _OWN_QUEUE.search(str(table.get("x-first-death-queue")))
    headers, marks = _read_headers(table, is_own_death=way is not None)
    timestamp = properties.get("timestamp")
    message = Message(
        body=body,
        queue=queue,
        id=properties.get("message_id") or make_id(),
        task=properties.get("type") or None,
        content_type=properties.get("content_type"),
        headers=headers | marks.original.get("headers", {}),
        properties=_read_properties(properties, marks.original),
        priority=properties.get("priority", DEFAULT_PRIORITY),
        attempt=marks.attempt,
        crashes=marks.crashes,
        is_suspect=marks.suspect,
        enqueued=timestamp * 1000 if timestamp is not None and timestamp <= _LAST_SECOND else None,
        due=marks.due,
        expires=marks.expires,
        unknown_since=marks.unknown_since,
        error=None if marks.error is None else clip_error(marks.error),
        keep=float(marks.keep),
        is_private=marks.private,
    )
    returns: int | None = None if redelivered else 0
    if type(count := table.get("x-delivery-count")) is int:
        returns = count
    is_lease = way is not None and way[1] == "lease"
    if is_lease and returns is not None:
        returns += 1  # out of the hands of a worker that was lost; what was counted before that is not known
    return Received(message, marks, returns, redelivered or is_lease)


def _read_plain(plain: Plain, body: bytes, queue: str, *, redelivered: bool) -> Received:
    message = Message(
        body=body,
        queue=queue,
        id=plain.id,
        task=plain.task,
        content_type="application/json",
        properties={} if plain.reply_to is None else {"reply_to": plain.reply_to},
        priority=plain.priority,
        enqueued=plain.timestamp * 1000,
    )
    returns = plain.returns if plain.returns is not None else None if redelivered else 0
    return Received(message, Marks(put=plain.put), returns, redelivered)


def without_history(message: Message) -> Message:
    """Return the message as its sender made it: no runs, no errors, no marks of the broker. For a replay."""
    headers = {name: value for name, value in message.headers.items() if name in {"CC", "BCC"} or not _acts(name)}
    return msgspec.structs.replace(
        message,
        headers=headers,
        attempt=1,
        crashes=0,
        is_suspect=False,
        error=None,
        unknown_since=None,
        due=None,
        expires=None,
    )


def _acts(name: str) -> bool:
    return name in _ACTING_HEADERS or name.startswith(_ACTING_PREFIXES)


def _split(message: Message) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the headers that can be published as they are, and what goes into `dibs-original`."""
    kept: dict[str, Any] = {}
    acting: dict[str, Any] = {}
    for name, value in message.headers.items():
        if _acts(name):
            acting[name] = value
        elif name not in _CHECKS or not _CHECKS[name](value):
            kept[name] = value
    original: dict[str, Any] = {name: message.properties[name] for name in _ACTING if name in message.properties}
    if acting:
        original["headers"] = acting
    return kept, original


def _own_headers(message: Message, put: str, burial: Burial | None) -> dict[str, Any]:
    headers: dict[str, Any] = {"dibs-put": put}
    if message.attempt != 1:
        headers["dibs-attempt"] = message.attempt
    if message.crashes:
        headers["dibs-crashes"] = message.crashes
    if message.is_suspect:
        headers["dibs-suspect"] = True
    if message.keep != DEFAULT_KEEP:
        headers["dibs-keep"] = int(message.keep) if message.keep == int(message.keep) else message.keep
    if message.is_private:
        headers["dibs-private"] = True
    optional = {
        "dibs-due": message.due,
        "dibs-expires": message.expires,
        "dibs-unknown-since": message.unknown_since,
        "dibs-error": message.error,
    }
    headers |= {name: value for name, value in optional.items() if value is not None}
    if burial is not None:
        headers |= {"dibs-reason": burial.reason, "dibs-error": burial.error}
        said = {"dibs-died": burial.died, "dibs-worker": burial.worker}
        headers |= {name: value for name, value in said.items() if value is not None}
    return headers


def _fit(headers: dict[str, Any]) -> dict[str, Any]:
    """Leave out the largest headers that are not dibs' own, naming them, until all fit one frame.

    Only a stranger's message that filled its frame gets here: dibs' headers and the original come on top.
    """
    sizes = {name: len(fields.encode({"headers": {name: value}})) for name, value in headers.items()}
    total, left_out = sum(sizes.values()), dict[str, None]()  # a set that keeps their order
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if total <= HEADER_BYTES:
            break
        if name not in _CHECKS or name == "dibs-original":
            total -= sizes[name]
            left_out[name] = None
    kept = {name: value for name, value in headers.items() if name not in left_out}
    return kept | {"dibs-left-out": [name[:100] for name in left_out][:100]}


def _read_headers(headers: dict[str, Any], *, is_own_death: bool) -> tuple[dict[str, Any], Marks]:
    """Return the sender's headers and dibs' own.

    What a message is marked with on its way through a queue of dibs' own is nobody's business.
    """
    marks = {name: value for name, value in headers.items() if name in _CHECKS and _CHECKS[name](value)}
    kept = {
        name: value
        for name, value in headers.items()
        if name not in marks and name != "x-delivery-count" and not (is_own_death and _acts(name))
    }
    return kept, msgspec.convert(marks, Marks)


def _read_properties(properties: dict[str, Any], original: dict[str, Any]) -> dict[str, Any]:
    carried = {name: properties[name] for name in (*_CARRIED, *_ACTING) if name in properties}
    if carried.get("app_id") == "dibs":
        del carried["app_id"]
    return carried | {name: str(original[name]) for name in _ACTING if name in original}
