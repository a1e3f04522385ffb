"""Messages, their ids, and the names that every broker can carry."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibs.errors import BadName
from dibs.message import Message, new_id, now_ms
from dibs.names import check_id, check_queue_name, check_task_name


@pytest.mark.parametrize("name", ["a", "eu.mail", "Grüße 1", "x" * 180, "deadline", "a.dead.b", "dibsy", "mydibs"])
def test_a_queue_name_that_every_broker_can_carry_is_taken(name: str) -> None:
    assert check_queue_name(name) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "0 bytes"),
        ("x" * 181, "181 bytes"),
        ("ü" * 91, "182 bytes"),
        ("a\nb", "control"),
        ("a\0b", "control"),
        ("\x1b[31m", "control"),
        ("\ud800", "unprintable"),
        ("a.*", "wildcards"),
        ("#", "wildcards"),
        (".a", "dot"),
        ("a.", "dot"),
        ("a..b", "dot"),
        ("dibs", "reserved"),
        ("dibs.delay", "reserved"),
        ("mail.dead", "reserved"),
        (None, "NoneType"),
        (7, "int"),
        (b"a", "bytes"),
    ],
)
def test_a_queue_name_out_of_bounds_is_refused_and_says_why(name: Any, said: str) -> None:
    with pytest.raises(BadName, match=r"[Qq]ueue") as caught:
        check_queue_name(name)

    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("check", [check_task_name, check_id])
def test_task_names_and_ids_are_bounded_too(check: Any) -> None:
    assert check("a.b*#") == "a.b*#"
    assert check("ü" * 100) == "ü" * 100
    for wrong in ("", "ü" * 101, "a\tb", 7):
        with pytest.raises(BadName):
            check(wrong)


@given(st.text(max_size=200))
def test_any_name_is_taken_or_refused_as_a_bad_name(name: str) -> None:
    try:
        check_queue_name(name)
    except BadName:
        return

    assert 1 <= len(name.encode()) <= 180


def test_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    before = now_ms()
    early = uuid.UUID(new_id())
    while now_ms() == (early.int >> 80):
        time.sleep(0)  # until the clock shows the next millisecond

    late = uuid.UUID(new_id())

    assert (early.version, early.variant) == (7, uuid.RFC_4122)
    assert before <= early.int >> 80 <= now_ms()
    assert str(early) < str(late)


def test_ids_are_not_given_twice() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_a_forked_child_makes_ids_of_its_own() -> None:
    new_id()  # fetches random numbers for many more
    reading, writing = os.pipe()

    pid = os.fork()
    if pid == 0:
        os.write(writing, " ".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    theirs = os.read(reading, 65536).decode().split()
    mine = [new_id() for _ in range(100)]
    os.close(reading)
    os.close(writing)

    assert len({job_id[14:] for job_id in mine + theirs}) == 200


def test_a_message_reads_its_body_as_text_and_json() -> None:
    assert Message(body="ü".encode(), queue="q", id="1").text == "ü"
    assert Message(body=b'{"a": [1]}', queue="q", id="1").json() == {"a": [1]}
    with pytest.raises(UnicodeDecodeError):
        _ = Message(body=b"\xff", queue="q", id="1").text
    with pytest.raises(msgspec.DecodeError):
        Message(body=b"Pune...", queue="q", id="1").json()
