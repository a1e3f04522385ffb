"""A stranger's id or task name can't write lines of its own into the worker's log, nor steer a terminal."""

from __future__ import annotations

import pytest

from dibs.message import Delivery, Message
from dibs.outcome import Dead
from dibs.worker.report import report


def test_what_strangers_named_stays_on_its_log_line(caplog: pytest.LogCaptureFixture) -> None:
    message = Message(body=b"", queue="q", id="1\nERROR forged \x1b[2J", task="t\r\nERROR forged")

    report(Delivery(message=message, receipt=None), Dead("buried", "as it asked"))

    (record,) = caplog.records
    assert record.getMessage().isprintable()
