"""What a worker logs of its jobs: one event a line, a fixed sentence plus fields, never arguments."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dibs.message import Delivery, Message
from dibs.outcome import Cancelled, Dead, Outcome, RetryIn
from dibs.raised import raised_in
from dibs.text import visible

log = logging.getLogger("dibs.worker")

#: What an error begins with that was raised; others are the words of a job that asked to be set aside.
_TRACEBACK = "Traceback (most recent call last):\n"


def report(delivery: Delivery, outcome: Outcome) -> None:
    """Log an outcome that an operator wants to know of: work will be redone, or was set aside."""
    if not isinstance(outcome, RetryIn | Dead | Cancelled):
        return
    message = delivery.message
    fields = (_one_line(message.id), _one_line(message.task or "none"), _one_line(message.queue), message.attempt)
    match outcome:
        case RetryIn(message=again) if again.is_suspect and (again.attempt, again.crashes) == (
            message.attempt,
            message.crashes,
        ):
            if not message.is_suspect:
                log.warning(
                    "job is suspect, it came back again and again and will run alone job=%s task=%s queue=%s",
                    *fields[:3],
                )
        case RetryIn(delay=delay, message=next_message):
            text = "job will be tried again delay=%.1fs job=%s task=%s queue=%s attempt=%d error=%s"
            log.warning(text, delay, *fields, _gist(message, next_message.error or ""))
        case Dead(reason=reason, error=error):
            text = "job set aside reason=%s job=%s task=%s queue=%s attempt=%d error=%s"
            log.error(text, reason, *fields, _gist(message, error))
        case Cancelled():
            log.info("job cancelled job=%s task=%s queue=%s attempt=%d", *fields)


def ids(deliveries: Iterable[Delivery]) -> str:
    """Return the ids of some jobs, for a log line."""
    return ",".join(_one_line(delivery.message.id) for delivery in deliveries) or "none"


def _gist(message: Message, error: str) -> str:
    """Return the last line of what an error says; of a private job the name of what was raised, and no word of it."""
    if message.is_private:
        name = raised_in(error)[0] if _TRACEBACK in error else ""  # else a word of the job's own might pass for one
        return _one_line(name[:200]) or "private"
    lines = error.strip().splitlines()
    return _one_line(lines[-1][:200]) if lines else ""


def _one_line(text: str) -> str:
    """Return what a stranger may have written so that it can't begin a line of the log or steer a terminal."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")
