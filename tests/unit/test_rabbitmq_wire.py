"""Messages on the wire: what dibs writes, and what strangers write. Needs no server."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest

from dibs.brokers.rabbitmq import fields, plainform, wire
from dibs.message import Message
from dibs.outcome import ERROR_BYTES

MESSAGE = Message(id="id-1", body=b"{}", queue="q", task="t")


def decoded(properties: dict[str, Any], *, redelivered: bool = False) -> wire.Received:
    """Return what a message with these properties is read as."""
    return wire.decode(fields.encode(properties), b"x", "q", redelivered=redelivered)


def headers_of(message: Message) -> dict[str, Any]:
    """Return the headers under which a message is published."""
    headers = fields.decode(wire.encode(message, "nonce-0"))["headers"]
    assert isinstance(headers, dict)
    return headers


def test_a_message_reads_as_it_was_written() -> None:
    message = msgspec.structs.replace(
        MESSAGE,
        content_type="application/json",
        headers={"ratio": 1.5, "big": 2**40, "yes": True, "none": None, "list": [1, ["x"]], "table": {"a": {"b": 1}}},
        properties={"correlation_id": "c", "reply_to": "r", "content_encoding": "gzip", "app_id": "other"},
        priority=9,
        attempt=3,
        crashes=1,
        enqueued=1_700_000_000_000,
        due=1_700_000_000_500,
        expires=1_800_000_000_000,
        unknown_since=1_700_000_100_000,
        error="boom",
        keep=0.5,
        is_private=True,
    )

    received = wire.decode(wire.encode(message, "nonce-0"), message.body, "q", redelivered=False)

    assert received.message == message


def test_headers_at_their_default_are_left_out() -> None:
    assert headers_of(MESSAGE) == {"dibs-put": "nonce-0"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dibs-attempt", "3"),
        ("dibs-attempt", 0),
        ("dibs-attempt", True),
        ("dibs-crashes", -1),
        ("dibs-suspect", 1),
        ("dibs-due", "tomorrow"),
        ("dibs-expires", 2**62),
        ("dibs-error", 7),
        ("dibs-keep", "a day"),
        ("dibs-keep", -1),
        ("dibs-keep", float("inf")),
        ("dibs-keep", True),
        ("dibs-private", 1),
        ("dibs-put", ["x"]),
        ("dibs-original", "x"),
        ("dibs-original", {"headers": 1}),
    ],
)
def test_a_strangers_value_of_the_wrong_type_is_left_to_him(name: str, value: object) -> None:
    received = decoded({"headers": {name: value}})

    assert received.message.headers == {name: value}
    assert (received.message.attempt, received.message.crashes) == (1, 0)
    assert (received.message.keep, received.message.is_private) == (86400.0, False)
    assert (received.message.due, received.message.expires, received.message.error) == (None, None, None)


def test_a_message_with_nothing_but_a_body_gets_an_id() -> None:
    first, second = decoded({}).message, decoded({"message_id": ""}).message

    assert first.id
    assert first.id != second.id
    assert (first.task, first.content_type, first.enqueued, first.priority) == (None, None, None, 4)


@pytest.mark.parametrize("kind_and_value", [b"T" + struct.pack(">Q", 2**63), b"T" + b"\xff" * 8])
def test_a_time_beyond_the_calendar_is_read_as_a_number(kind_and_value: bytes) -> None:
    table = b"\x04when" + kind_and_value
    data = struct.pack(">H", 1 << 13) + struct.pack(">I", len(table)) + table

    headers = fields.decode(data)["headers"]

    assert headers == {"when": struct.unpack(">Q", kind_and_value[1:])[0]}


def test_strangers_types_become_plain_values() -> None:
    table = (
        b"\x01tT" + struct.pack(">Q", 0)
        + b"\x01dD" + struct.pack(">Bi", 2, 314)
        + b"\x01xx" + struct.pack(">I", 2) + b"\xff\x00"
        + b"\x01fd" + struct.pack(">d", float("inf"))
        + b"\x01ss" + struct.pack(">h", -2)
    )  # fmt: skip
    data = struct.pack(">H", 1 << 13) + struct.pack(">I", len(table)) + table

    headers = fields.decode(data)["headers"]

    assert headers == {"t": "1970-01-01T00:00:00+00:00", "d": "3.14", "x": "\\xff\x00", "f": float("inf"), "s": -2}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(headers)) == headers


@pytest.mark.parametrize("kind", [b"A", b"F"])
def test_headers_are_read_so_deep_that_they_can_be_written_again(kind: bytes) -> None:
    value = b"V"
    for _ in range(1000):
        value = kind + struct.pack(">I", len(value) + (kind == b"F")) + b"\x00" * (kind == b"F") + value
    table = b"\x01h" + value
    data = struct.pack(">HI", 1 << 13 | 1 << 7, len(table)) + table + b"\x01m"

    received = wire.decode(data, b"x", "q", redelivered=False)

    inner, depth = received.message.headers["h"], 0
    while isinstance(inner, dict | list):
        inner, depth = inner[""] if isinstance(inner, dict) else inner[0], depth + 1
    assert (inner, depth) == ("(nested too deep)", 64)
    assert received.message.id == "m"
    again = wire.decode(wire.encode(received.message, "nonce-0"), b"x", "q", redelivered=False)
    assert again.message == received.message


def test_what_follows_a_header_of_an_unknown_type_is_read() -> None:
    table = b"\x01ab\x01" + b"\x01l" + b"A" + struct.pack(">I", 3) + b"b\x02?" + b"\x01z?" + b"\x01bb\x02"
    data = struct.pack(">HI", 1 << 13 | 1 << 7 | 1 << 5, len(table)) + table + b"\x01m" + b"\x01t"

    message = wire.decode(data, b"x", "q", redelivered=False).message

    assert (message.headers, message.id, message.task) == ({"a": 1, "l": [2]}, "m", "t")


def test_a_strangers_error_is_cut_like_ours() -> None:
    message = decoded({"headers": {"dibs-error": "e" * 100_000}}).message

    assert message.error is not None
    assert len(message.error) <= ERROR_BYTES


def test_properties_that_are_cut_short_are_read_as_far_as_they_go() -> None:
    whole = fields.encode({"content_type": "text/plain", "headers": {"a": "b"}, "message_id": "m"})

    for length in range(len(whole)):
        assert fields.decode(whole[:length]).keys() <= {"content_type", "headers", "message_id"}


def test_what_acts_again_is_not_published_as_such_and_reads_back() -> None:
    acting = {"CC": ["other"], "BCC": ["third"], "x-death": [{"queue": "old"}], "x-first-death-queue": "old"}
    message = msgspec.structs.replace(
        MESSAGE, headers={"mine": 1, **acting}, properties={"expiration": "60000", "user_id": "mallory"}
    )

    written = fields.decode(wire.encode(message, "nonce-0"))
    received = wire.decode(wire.encode(message, "nonce-0"), b"{}", "q", redelivered=False)

    assert written.keys().isdisjoint({"expiration", "user_id"})
    assert written["headers"].keys() == {"mine", "dibs-put", "dibs-original"}
    assert received.message == message


def test_the_delay_levels_leave_no_marks() -> None:
    marks = {"x-death": [{"count": 1}], "x-first-death-queue": "ns.dibs.delay.03", "x-first-death-reason": "expired"}

    assert decoded({"headers": {"mine": 1, **marks}}).message.headers == {"mine": 1}


def test_a_replay_begins_anew_and_keeps_the_senders_headers() -> None:
    headers = {"mine": 1, "CC": ["other"], "x-death": [{"queue": "old"}], "x-first-death-queue": "old"}
    message = msgspec.structs.replace(MESSAGE, headers=headers, attempt=9, crashes=2, error="boom", due=5)

    anew = wire.without_history(message)

    assert anew.headers == {"mine": 1, "CC": ["other"]}
    assert (anew.attempt, anew.crashes, anew.error, anew.due) == (1, 0, None, None)


def test_headers_that_fill_a_frame_shrink_and_say_what_was_left_out() -> None:
    message = msgspec.structs.replace(MESSAGE, headers={"small": "s", "large": "x" * 100_000, "medium": "y" * 40_000})

    data = wire.encode(message, "nonce-0", wire.Burial("failed", "e" * 8192, 1, "host:1"))

    headers = fields.decode(data)["headers"]
    assert len(data) < 128 * 1024
    assert headers["dibs-left-out"] == ["large"]
    assert (headers["small"], headers["dibs-reason"], headers["dibs-error"]) == ("s", "failed", "e" * 8192)


def test_returns_are_the_servers_count_or_the_redelivered_flag() -> None:
    assert decoded({"headers": {"x-delivery-count": 3}}).returns == 3
    assert decoded({"headers": {"x-delivery-count": 0}}, redelivered=True).returns == 0
    assert decoded({}, redelivered=True).returns is None
    assert decoded({}).returns == 0


def test_a_whole_number_of_seconds_to_keep_is_written_as_one() -> None:
    assert headers_of(msgspec.structs.replace(MESSAGE, keep=60.0))["dibs-keep"] == 60
    assert headers_of(msgspec.structs.replace(MESSAGE, keep=0.0))["dibs-keep"] == 0


def test_who_waits_is_named_unless_the_message_names_somebody() -> None:
    own = msgspec.structs.replace(MESSAGE, properties={"reply_to": "mine"})

    assert fields.decode(wire.encode(MESSAGE, "nonce-0", reply_to="ours"))["reply_to"] == "ours"
    assert fields.decode(wire.encode(own, "nonce-0", reply_to="ours"))["reply_to"] == "mine"


@pytest.mark.parametrize("reply_to", [None, "dibs.reply.1"])
def test_the_short_way_writes_what_the_long_way_does(reply_to: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    message = a_job()
    short = plainform.encode(message, "0123-45", reply_to)
    monkeypatch.setattr(plainform, "encode", lambda *_: None)

    long = wire.encode(message, "0123-45", reply_to=reply_to)

    assert short == long


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"x": 1}},
        {"properties": {"reply_to": "theirs"}},
        {"content_type": "text/plain"},
        {"task": None},
        {"enqueued": None},
        {"attempt": 2},
        {"crashes": 1},
        {"is_suspect": True},
        {"is_private": True},
        {"keep": 1.0},
        {"due": 1},
        {"expires": 1},
        {"unknown_since": 1},
        {"error": "no"},
        {"priority": 256},
        {"task": "t" * 256},
    ],
)
def test_what_says_more_than_most_jobs_goes_the_long_way(changes: dict[str, Any]) -> None:
    assert plainform.encode(msgspec.structs.replace(a_job(), **changes), "0123-45", None) is None


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x10x-delivery-countl" + bytes(8),
        b"\x10x-delivery-countl" + bytes(7) + b"\x03",
        b"\x10x-acquired-countl" + bytes(8),
        b"\x04mineI" + bytes(4),
    ],
)
@pytest.mark.parametrize("reply_to", [None, "dibs.reply.1"])
def test_the_short_way_reads_what_the_long_way_does_even_of_damaged_bytes(
    header: bytes, reply_to: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_header(wire.encode(a_job(), "0123-45", reply_to=reply_to), header)
    damaged = [data[:end] for end in range(len(data) + 1)]
    damaged += [
        data[:place] + bytes((data[place] ^ change,)) + data[place + 1 :]
        for place in range(len(data))
        for change in (1, 0x80)
    ]
    short = [read(each) for each in damaged]
    monkeypatch.setattr(plainform, "decode", lambda _: None)

    long = [read(each) for each in damaged]

    assert short == long


def with_header(data: bytes, header: bytes) -> bytes:
    """Return properties with one more header behind those that there are."""
    table = 2 + 1 + len("application/json")
    size = struct.unpack_from(">I", data, table)[0]
    end = table + 4 + size
    return data[:table] + struct.pack(">I", size + len(header)) + data[table + 4 : end] + header + data[end:]


def a_job() -> Message:
    """Return one as most are."""
    return Message(
        body=b"{}", queue="a", id="0192-é", task="t", content_type="application/json", enqueued=1_700_000_000_000
    )


def read(data: bytes) -> wire.Received:
    return wire.decode(data, b"{}", "a", redelivered=False, make_id=lambda: "made")
