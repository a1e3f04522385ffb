"""Frames: however the bytes are split on their way, the same frames come out."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibs.broker import Queue
from dibs.ledger.life import Note, Progress
from dibs.message import Message
from dibs.outcome import Cancelled, Dead, Done, Released, RetryIn, Run
from dibs.worker.frames import (
    Began,
    Cancel,
    Finished,
    Frame,
    Inbox,
    Keep,
    Lost,
    Overdue,
    Ready,
    Refused,
    Said,
    Setup,
    Start,
    Stop,
    Worn,
    pack,
)

texts = st.text(max_size=20)
bodies = st.binary(max_size=300)
messages = st.builds(
    Message,
    body=bodies,
    queue=texts,
    id=texts,
    task=st.none() | texts,
    headers=st.dictionaries(texts, st.integers(-(2**63), 2**63) | texts | bodies | st.none(), max_size=3),
    priority=st.integers(0, 9),
    attempt=st.integers(1, 99),
    due=st.none() | st.integers(0, 2**53),
    error=st.none() | texts,
)
runs = st.none() | st.builds(Run, st.integers(0, 2**53), st.integers(0, 2**53), st.lists(texts, max_size=3))
outcomes = (
    st.builds(Done, st.none() | bodies, st.none() | texts, runs)
    | st.builds(RetryIn, st.floats(0, 1e6), messages, runs)
    | st.builds(Dead, st.sampled_from(["failed", "crashed"]), texts, st.none() | st.integers(0, 3), runs)
    | st.builds(Cancelled, runs)
    | st.builds(Released)
)
notes = st.builds(
    Note,
    st.none() | st.builds(Progress, st.floats(0, 1e6) | st.integers(0, 2**53), st.none() | st.floats(0, 1e6), texts),
    st.none() | st.lists(texts, max_size=3),
)
frames = (
    st.builds(Setup, texts, st.none() | texts, st.integers(1, 9))
    | st.builds(Start, st.integers(0, 2**40), st.integers(0, 255), messages)
    | st.builds(Keep)
    | st.builds(Stop)
    | st.builds(
        Ready,
        texts,
        texts,
        st.booleans(),
        st.lists(st.builds(Queue, name=texts, type=st.sampled_from(["quorum", "classic"])), max_size=3),
        st.lists(texts, max_size=3),
    )
    | st.builds(Refused, texts)
    | st.builds(Finished, st.integers(0, 2**40), outcomes)
    | st.builds(Began, st.integers(0, 2**40), st.floats(0, 1e6), st.none() | st.floats(0, 1e6), st.just("failed"))
    | st.builds(Overdue, st.integers(0, 2**40))
    | st.builds(Worn)
    | st.builds(Lost, st.lists(st.integers(0, 2**40), max_size=3))
    | st.builds(Cancel, st.lists(st.integers(0, 2**40), max_size=3))
    | st.builds(Said, st.integers(0, 2**40), notes)
)


@given(st.lists(frames, max_size=6), st.data())
def test_any_split_of_the_bytes_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    packed = pack(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(packed)), max_size=8)))
    inbox = Inbox()

    got: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(packed)], strict=True):
        got += inbox.feed(packed[start:end])

    assert got == sent


@given(st.lists(frames, min_size=1, max_size=3))
def test_byte_by_byte_a_frame_comes_out_with_its_last_byte(sent: list[Frame]) -> None:
    inbox = Inbox()
    packed = pack(sent)

    counts = [len(inbox.feed(packed[place : place + 1])) for place in range(len(packed))]

    ends = [len(pack(sent[: number + 1])) - 1 for number in range(len(sent))]
    assert [place for place, count in enumerate(counts) if count] == ends


def test_a_body_of_many_megabytes_arrives_in_pieces() -> None:
    sent = Start(1, 0, Message(body=bytes(8 * 1024 * 1024), queue="q", id="1"))
    packed = pack([sent])
    inbox = Inbox()

    got = [frame for start in range(0, len(packed), 65536) for frame in inbox.feed(packed[start : start + 65536])]

    assert got == [sent]


def test_bytes_that_are_no_frames_are_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        Inbox().feed(b"\0\0\0\x05hello")
