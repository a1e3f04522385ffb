"""A line of the log as a JSON object: the sentence is fixed, and each field is a key that no value can forge."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from dibs.message import Delivery, Message
from dibs.outcome import Dead, RetryIn, Run
from dibs.worker.jsonlog import JsonFormatter
from dibs.worker.report import report


def line(record: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    read: dict[str, Any] = json.loads(text)
    return read


def make(text: str, *args: object, name: str = "dibs.worker") -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, text, args, None)


def test_an_outcome_is_a_sentence_and_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    message = Message(body=b"secret", queue="mail", id="1", task="shop.add", attempt=3)

    report(
        Delivery(message=message, receipt=None), RetryIn(2.5, message.after_failure("x\nValueError: boom"), Run(1, 2))
    )

    assert {key: value for key, value in line(caplog.records[0]).items() if key != "time"} == {
        "level": "WARNING",
        "logger": "dibs.worker",
        "message": "job will be tried again",
        "delay": 2.5,
        "job": "1",
        "task": "shop.add",
        "queue": "mail",
        "attempt": 3,
        "error": "ValueError: boom",
    }
    assert caplog.records[0].getMessage().startswith("job will be tried again delay=2.5s job=1 task=shop.add")


def test_a_strangers_name_makes_no_field(caplog: pytest.LogCaptureFixture) -> None:
    message = Message(body=b"", queue="q", id='1 level=forged %s "', task="t\nreason=forged")

    report(Delivery(message=message, receipt=None), Dead("buried", "message=forged"))

    read = line(caplog.records[0])
    assert (read["level"], read["reason"], read["message"]) == ("ERROR", "buried", "job set aside")
    assert read["job"] == '1 level=forged %s "'


def test_a_value_in_the_midst_of_a_sentence_stays_there() -> None:
    read = line(make("the broker refuses; trying again in %.1f s: %s (100%%) jobs=%d", 2.0, "no\nroute", 3))

    assert read["message"] == "the broker refuses; trying again in 2.0 s: no\nroute (100%)"
    assert read["jobs"] == 3


def test_what_is_no_json_value_is_shown_as_text() -> None:
    assert line(make("executor died cause=%s pids=%s", ValueError("boom"), [1, 2])) | {"time": ""} == {
        "cause": "boom",
        "pids": [1, 2],
        "time": "",
        "level": "INFO",
        "logger": "dibs.worker",
        "message": "executor died",
    }


def test_what_others_log_is_one_message() -> None:
    assert line(make("got a=%s", 1, name="pika"))["message"] == "got a=1"


def test_an_exception_comes_with_its_traceback() -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        record = logging.LogRecord("dibs", logging.ERROR, __file__, 1, "it broke", (), sys.exc_info())

    assert line(record)["exception"].splitlines()[-1] == "ValueError: boom"
