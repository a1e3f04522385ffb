"""`--log json`: a worker's log as one JSON object a line, for programs that collect logs.

What dibs logs is a fixed sentence with fields behind it, `job set aside job=%s task=%s`: the fields are read off that
sentence, not off what it became, so that no value can pass for another field.
"""

from __future__ import annotations

import datetime as dt
import logging
import re

import msgspec

#: A field with its placeholder and unit (`delay=%.1fs`), or a placeholder in the sentence itself.
_PLACE = re.compile(r"(?:\s*\b(?P<name>\w+)=)?(?P<place>%(?:%|[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]))(?(name)s?\b)?")


class JsonFormatter(logging.Formatter):
    """Makes a line of a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one JSON object: time, level, logger, message, and the fields as keys of their own."""
        message, fields = _parts(record)
        line: dict[str, object] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode({**fields, **line}, enc_hook=str).decode()


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """Return the sentence and the fields; what others log is a sentence as a whole."""
    is_ours = record.name == "dibs" or record.name.startswith("dibs.")
    if not is_ours or not isinstance(record.args, tuple) or not record.args:
        return record.getMessage(), {}
    values = iter(record.args)
    fields: dict[str, object] = {}

    def take(found: re.Match[str]) -> str:
        if found["place"] == "%%":
            return found[0].replace("%%", "%")
        value = next(values)
        if (name := found["name"]) is None:
            return str(found[0] % value)
        fields[name] = value
        return ""

    return _PLACE.sub(take, str(record.msg)), fields
