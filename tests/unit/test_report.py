"""A stranger's id or task name can't write lines of its own into the worker's log, nor steer a terminal."""

from __future__ import annotations

import logging

import pytest

from dibs.message import Delivery, Message
from dibs.outcome import Cancelled, Dead, Done
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
