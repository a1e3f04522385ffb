"""Evidence: what a process wrote is read once, in order, and a half line of one that was killed is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dibs.trial.evidence import Evidence, Pen


def test_what_was_written_is_read_once_and_in_order(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path)
    first, second = Pen(tmp_path, 1), Pen(tmp_path, 2)

    first.write("start", "a", run="r1")
    second.write("told", "b", "c")
    first.write("end", "a", run="r1")

    assert [(event.kind, event.number, event.pid, event.job, event.run) for event in evidence.news()] == [
        ("start", 1, os.getpid(), "a", "r1"),
        ("told", 2, os.getpid(), "b", ""),
        ("told", 2, os.getpid(), "c", ""),
        ("end", 1, os.getpid(), "a", "r1"),
    ]
    assert evidence.news() == []


def test_a_half_line_at_the_end_waits_for_the_rest(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path)
    Pen(tmp_path, 1).write("told", "a")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()

    file.write_bytes(whole + whole[:9])
    before = evidence.news()
    file.write_bytes(whole + whole)

    assert [event.job for event in before] == ["a"]
    assert [event.job for event in evidence.news()] == ["a"]


def test_a_torn_line_that_is_not_the_last_one_is_no_evidence(tmp_path: Path) -> None:
    Pen(tmp_path, 1).write("told", "a")
    (file,) = tmp_path.iterdir()
    file.write_bytes(b'["told",1.' + file.read_bytes())

    with pytest.raises(OSError, match="damaged"):
        Evidence(tmp_path).news()
