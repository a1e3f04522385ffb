"""A job's own log: what is logged while it runs, by its thread or its coroutine, is kept along with it.

Loggers that don't hand on to the root logger are not heard. Nothing is logged here, least of all arguments.
"""

from __future__ import annotations

import logging
import sys

from dibs.current import watch_here
from dibs.outcome import LOG_LINES
from dibs.text import visible

#: As the supervisor writes its own.
FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
#: Longest line that is kept, in characters.
_LINE_CHARACTERS = 500


def listen() -> None:
    """Keep from now on what jobs log. Where the app has not configured logging at all, it goes to stderr too."""
    root = logging.getLogger()
    if not root.handlers:
        # Python prints warnings that no handler wants; with the one that is added below there is always one.
        root.addHandler(_Unheard() if _is_configured(root) else _on_stderr(root))
    root.addHandler(JobLog())


def _is_configured(root: logging.Logger) -> bool:
    loggers = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    heard = [handler for one in loggers for handler in one.handlers if not isinstance(handler, logging.NullHandler)]
    return root.level != logging.WARNING or bool(heard)


def _on_stderr(root: logging.Logger) -> logging.Handler:
    root.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler


class JobLog(logging.Handler):
    """Hands records to the run that they are of. Takes no lock: an interrupted job can't leave one behind."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))

    def createLock(self) -> None:  # noqa: N802 -- the name is logging's
        """Make none."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep a record, should it be of a job."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, should it be of a job."""
        watch = watch_here()
        if watch is None or not watch.keeps_log:
            return
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 -- the values' own conversions run here, and may raise anything
            text = f"{record.levelname} a line that can't be formatted: {type(error).__name__}"
        watch.log([_shown(line) for line in text.splitlines()[-LOG_LINES:]])


class _Unheard(logging.Handler):
    """Prints what no other handler gets, as Python itself does where a logger finds none."""

    def emit(self, record: logging.LogRecord) -> None:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(not isinstance(handler, (JobLog, _Unheard)) for handler in logger.handlers):
                return
            logger = logger.parent
        if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)


def _shown(line: str) -> str:
    cut = line if len(line) <= _LINE_CHARACTERS else f"{line[: _LINE_CHARACTERS - 1]}…"
    return cut if cut.isprintable() else visible(cut)
