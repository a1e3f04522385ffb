"""A job's own log: its lines and nobody else's, in whatever way they are logged; the app's logging is left alone."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest

from dibs import CurrentJob, Message
from dibs.current import RUNNING, Watch
from dibs.outcome import LOG_LINES
from dibs.worker.joblog import JobLog, listen


class FakeWatch:
    """What surrounds a run, and only keeps its log."""

    def __init__(self, *, keeps_log: bool = True) -> None:
        self.keeps_log = keeps_log
        self.kept: list[str] = []

    def log(self, lines: Sequence[str]) -> None:
        self.kept += lines


@pytest.fixture
def shop() -> Iterator[logging.Logger]:
    """A logger below the root that has a job log, as one of an executor has."""
    root, handler = logging.getLogger(), JobLog()
    root.addHandler(handler)
    logger = logging.getLogger("shop.job")
    logger.setLevel(logging.INFO)
    yield logger
    root.removeHandler(handler)


def running(watch: FakeWatch) -> CurrentJob:
    return CurrentJob(Message(body=b"", queue="q", id="1"), cast("Watch", watch))


def test_lines_go_to_the_job_that_runs_and_outside_of_it_to_none(shop: logging.Logger) -> None:
    watch = FakeWatch()

    shop.info("before")
    token = RUNNING.set(running(watch))
    shop.warning("in it: %d", 3)
    shop.debug("below the level")
    RUNNING.reset(token)
    shop.info("behind")

    (line,) = watch.kept
    assert line.endswith("WARNING in it: 3")


def test_each_thread_and_each_coroutine_has_a_log_of_its_own(shop: logging.Logger) -> None:
    watches = [FakeWatch() for _ in range(4)]

    def work(number: int) -> None:
        RUNNING.set(running(watches[number]))
        for _ in range(20):
            shop.info("%d", number)

    async def awork(number: int) -> None:
        RUNNING.set(running(watches[number]))
        for _ in range(20):
            await asyncio.sleep(0)
            shop.info("%d", number)

    async def both() -> None:
        await asyncio.gather(awork(2), awork(3))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    asyncio.run(both())
    for thread in threads:
        thread.join()

    for number, watch in enumerate(watches):
        assert [line[-1] for line in watch.kept] == [str(number)] * 20


def test_a_private_job_keeps_no_log_and_formats_nothing() -> None:
    class Secret:
        def __str__(self) -> str:
            asked.append(self)
            return "secret"

    asked: list[Secret] = []
    watch = FakeWatch(keeps_log=False)
    token = RUNNING.set(running(watch))

    JobLog().handle(logging.getLogger().makeRecord("shop.job", logging.INFO, "", 0, "%s", (Secret(),), None))

    RUNNING.reset(token)
    assert (watch.kept, asked) == ([], [])


class Broken:
    def __str__(self) -> str:
        raise RecursionError("so deep")


@pytest.mark.parametrize(
    ("text", "args"), [("%d", ("x",)), ("%s", (Broken(),)), ("%(a)s", ({"b": 1},)), ("%s %s", (1,))]
)
def test_what_cant_be_formatted_hurts_nobody_and_is_said(text: str, args: tuple[Any, ...]) -> None:
    watch, logger = FakeWatch(), logging.getLogger("shop.job")
    token = RUNNING.set(running(watch))

    JobLog().handle(logger.makeRecord("shop.job", logging.INFO, "", 0, text, args, None))

    RUNNING.reset(token)
    (line,) = watch.kept
    assert line.startswith("INFO a line that can't be formatted: ")


def test_lines_are_cut_and_shown_whole_and_a_traceback_is_several(shop: logging.Logger) -> None:
    watch = FakeWatch()
    token = RUNNING.set(running(watch))

    shop.info("\x1b[2J" + "x" * 10_000)
    shop.info("\n".join(map(str, range(3 * LOG_LINES))))
    try:
        raise ValueError("boom")
    except ValueError:
        shop.exception("it failed")

    RUNNING.reset(token)
    long, *lines = watch.kept
    assert r"INFO    \x1b[2Jxxx" in long
    assert (long[-1], len(long)) == ("…", 500 + len(r"\x1b") - 1)
    assert lines[:LOG_LINES] == [str(number) for number in range(2 * LOG_LINES, 3 * LOG_LINES)]
    assert lines[LOG_LINES].endswith("ERROR   it failed")
    assert lines[-1] == "ValueError: boom"


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """Have the root logger as Python has it at first. No fixture: pytest adds its own handlers behind those."""
    logger = logging.getLogger()
    handlers, level, known = logger.handlers, logger.level, logger.manager.loggerDict
    logger.handlers = []
    logger.setLevel(logging.WARNING)
    # What other tests in this process have imported may have handlers of its own.
    logger.manager.loggerDict = {name: one for name, one in known.items() if name.partition(".")[0] == "shop"}
    yield logger
    logger.handlers, logger.manager.loggerDict = handlers, known
    logger.setLevel(level)


def test_where_the_app_configured_nothing_its_infos_are_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with bare_root():
        listen()
        logging.getLogger("shop.sales").info("hello")

    assert capsys.readouterr().err.endswith("INFO    hello\n")


def test_an_apps_own_logging_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with bare_root() as root:
        root.addHandler(logging.NullHandler())
        root.setLevel(logging.ERROR)
        listen()
        logging.getLogger("shop.sales").warning("hello")
        handlers, level = root.handlers, root.level

    assert level == logging.ERROR
    assert [type(handler) for handler in handlers] == [logging.NullHandler, JobLog]
    assert capsys.readouterr().err == ""


def test_where_only_some_loggers_have_handlers_nothing_is_seen_twice_and_no_warning_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sales, seen = logging.getLogger("shop.sales"), list[str]()

    class Own(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler = Own()
    sales.addHandler(handler)
    with bare_root() as root:
        listen()
        logging.getLogger("shop.sales.today").warning("heard")
        logging.getLogger("shop.stock").warning("unheard")
        logging.getLogger("shop.stock").info("quiet")
        level = root.level
    sales.removeHandler(handler)

    assert seen == ["heard"]
    assert capsys.readouterr().err == "unheard\n"
    assert level == logging.WARNING
