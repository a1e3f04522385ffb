"""A stranger's id or task name can't write lines of its own into the worker's log, nor steer a terminal."""

from __future__ import annotations

import logging

import msgspec
import pytest

from dibs.message import Delivery, Message
from dibs.outcome import Cancelled, Dead, Done, RetryIn
from dibs.worker.report import report


def test_what_strangers_named_stays_on_its_log_line(caplog: pytest.LogCaptureFixture) -> None:
    message = Message(body=b"", queue="q", id="1\nERROR forged \x1b[2J", task="t\r\nERROR forged")

    report(Delivery(message=message, receipt=None), Dead("buried", "as it asked"))

    (record,) = caplog.records
    assert record.getMessage().isprintable()


def test_a_cancelled_job_is_told_and_one_that_is_done_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    delivery = Delivery(message=Message(body=b"secret", queue="q", id="1", task="t"), receipt=None)

    report(delivery, Done(b"1"))
    report(delivery, Cancelled())

    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", "job cancelled job=1 task=t queue=q attempt=1")


def test_of_a_private_job_the_log_has_what_kind_of_error_it_was_and_no_word_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    f()\nlib.LoginError: hunter2'
    message = Message(body=b"secret", queue="q", id="1", task="t", is_private=True)
    delivery = Delivery(message=message, receipt=None)

    report(delivery, Dead("failed", error))
    report(delivery, RetryIn(1.0, msgspec.structs.replace(message, error=error)))
    report(delivery, Dead("buried", "hunter2"))

    said = [record.getMessage() for record in caplog.records]
    assert not any("hunter2" in line for line in said)
    assert [line.rpartition("error=")[2] for line in said] == ["LoginError", "LoginError", "private"]
