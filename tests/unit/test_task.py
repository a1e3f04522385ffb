"""Tasks: how they get their names, what can't be one, and how a call becomes a message."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dibs import Backoff, BadArguments, BadName, BadOption, BadTask, Dibs, UnknownQueue, UnknownTask
from dibs.message import LONGEST_DELAY, now_ms
from tests.ids import stable


def plain(path: str, width: int = 800) -> str:
    """Resize it."""
    return f"{path} {width}"


async def waiting(path: str) -> str:
    return path


class Shop:
    def method(self, order: str) -> None: ...

    @staticmethod
    def static(order: str) -> None: ...


class Callable_:  # noqa: N801
    async def __call__(self, order: str) -> str:
        return order


@pytest.fixture
def app() -> Dibs:
    return Dibs("memory://")


def test_a_task_is_still_its_function(app: Dibs) -> None:
    task = app.task(plain)

    assert task("a", width=3) == "a 3"
    assert asyncio.run(app.task(waiting)("a")) == "a"
    assert (task.__doc__, task.__name__, task.__qualname__) == ("Resize it.", "plain", "plain")  # type: ignore[attr-defined]
    assert list(inspect.signature(task).parameters) == ["path", "width"]


def test_a_task_is_known_by_module_and_function(app: Dibs) -> None:
    assert app.task(plain).name == "tests.unit.test_task.plain"
    assert app.task(name="other")(plain).name == "other"
    assert set(app.tasks) == {"tests.unit.test_task.plain", "other"}
    assert app.get_task("other").function is plain


def test_an_unknown_task_is_told_with_those_that_there_are(app: Dibs) -> None:
    with pytest.raises(UnknownTask, match="it has: none"):
        app.get_task("nosuch")

    app.task(plain)

    with pytest.raises(UnknownTask, match=r"tests\.unit\.test_task\.plain"):
        app.get_task("nosuch")


PROGRAM = """\
import functools

from dibs import Dibs
from elsewhere import decorated, show_from_a_spawned_child

app = Dibs("memory://")


@app.task
@decorated
def work() -> None: ...


if __name__ == "__main__":
    print(work.name, flush=True)
    show_from_a_spawned_child()
"""
ELSEWHERE = """\
import functools, multiprocessing, sys

def decorated(function):
    return functools.wraps(function)(lambda: function())

def show():
    print(sys.modules["__main__"].work.name, flush=True)

def show_from_a_spawned_child():
    child = multiprocessing.get_context("spawn").Process(target=show)
    child.start()
    child.join()
"""


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["shop/jobs.py"], ["jobs.work", "jobs.work"]),
        (["-m", "shop.jobs"], ["shop.jobs.work", "shop.jobs.work"]),
        (["-m", "shop"], ["shop.__main__.work"]),  # multiprocessing does not import a package's __main__ anew
    ],
    ids=str,
)
def test_a_program_calls_its_tasks_as_those_who_import_it_do(
    tmp_path: Path, command: list[str], names: list[str]
) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    for file in ("jobs.py", "__main__.py"):
        (package / file).write_text(PROGRAM)
    (package / "elsewhere.py").write_text(ELSEWHERE)

    ran = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.stdout.split() == names, ran.stderr


def generator(order: str) -> Iterator[str]:
    yield order


async def async_generator(order: str) -> Any:
    yield order


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (Shop.method, "is a method"),
        (Shop.static, "is a method"),
        (Shop().method, "is a method"),
        (lambda: None, "Give name="),
        (functools.partial(plain, "a"), "has no name"),
        (generator, "generator"),
        (async_generator, "generator"),
        (Shop, "no function"),
        (7, "no function"),
    ],
    ids=lambda value: getattr(value, "__qualname__", stable(value)),
)
def test_what_a_worker_could_not_call_is_refused_when_it_is_decorated(app: Dibs, function: Any, said: str) -> None:
    with pytest.raises(BadTask, match=said):
        app.task(function)

    assert not app.tasks


def test_a_nested_function_needs_a_name(app: Dibs) -> None:
    def nested() -> None: ...

    with pytest.raises(BadTask, match=r"nested.*Give name="):
        app.task(nested)
    assert app.task(name="nested")(nested).name == "nested"


@pytest.mark.parametrize("function", [Shop.method, generator, Shop], ids=lambda value: value.__qualname__)
def test_a_name_makes_no_task_of_what_can_not_run(app: Dibs, function: Any) -> None:
    with pytest.raises(BadTask):
        app.task(name="x")(function)
    with pytest.raises(BadTask):
        app.consumer("q")(function)


def test_with_a_name_a_bound_method_a_partial_and_an_object_can_be_tasks(app: Dibs) -> None:
    assert not app.task(name="bound")(Shop().method).is_async
    assert not app.task(name="partial")(functools.partial(plain, "a")).is_async
    assert app.task(name="object")(Callable_()).is_async
    assert app.task(name="partial async")(functools.partial(waiting, "a")).is_async


def test_a_name_is_not_given_twice(app: Dibs) -> None:
    app.task(plain)

    with pytest.raises(BadTask, match="already"):
        app.task(plain)
    with pytest.raises(BadTask, match="already"):
        app.task(name="tests.unit.test_task.plain")(waiting)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\0"])
def test_a_task_name_out_of_bounds_is_refused(app: Dibs, name: str) -> None:
    with pytest.raises(BadName, match="task name"):
        app.task(name=name)(plain)


@pytest.mark.parametrize(
    "option",
    [
        {"retries": -1},
        {"retries": 1.5},
        {"retries": "3"},
        {"retries": None},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "30"},
        {"priority": -1},
        {"priority": 10},
        {"priority": 4.5},
        {"priority": "high"},
        {"expires": -1},
        {"expires": float("nan")},
        {"expires": "1"},
        {"backoff": 15},
        {"retry_on": "ValueError"},
        {"retry_on": (ValueError, 7)},
        {"bury_on": KeyboardInterrupt},
    ],
    ids=str,
)
def test_an_option_out_of_bounds_is_refused_by_name(app: Dibs, option: dict[str, Any]) -> None:
    (name,) = option

    with pytest.raises(BadOption, match=name):
        app.task(**option)


def test_one_exception_type_is_as_good_as_a_tuple(app: Dibs) -> None:
    app.task(retry_on=ValueError, bury_on=(KeyError, OSError), backoff=Backoff(first=1))(plain)


@pytest.mark.parametrize(
    "option",
    [
        {"delay": -1},
        {"delay": float("nan")},
        {"delay": float("inf")},
        {"delay": "60"},
        {"delay": dt.timedelta(days=401)},
        {"delay": LONGEST_DELAY + 1},
        {"at": 60},
        {"at": dt.datetime(2030, 1, 1)},  # noqa: DTZ001
        {"at": dt.date(2030, 1, 1)},
        {"expires": dt.datetime(2030, 1, 1)},  # noqa: DTZ001
        {"expires": -dt.timedelta(1)},
    ],
    ids=str,
)
def test_a_time_out_of_bounds_is_refused_by_name(app: Dibs, option: dict[str, Any]) -> None:
    (name,) = option

    with pytest.raises(BadOption, match=f"{name}="):
        app.task(plain).using(**option)


def test_a_time_beyond_what_brokers_can_wait_is_refused_when_it_is_handed_over(app: Dibs) -> None:
    task = app.task(plain).using(at=dt.datetime.now(dt.UTC) + dt.timedelta(days=401))

    with pytest.raises(BadOption, match="400"):
        task.enqueue("a")


def test_delay_and_at_are_not_given_both(app: Dibs) -> None:
    with pytest.raises(BadOption, match="both"):
        app.task(plain).using(delay=1, at=dt.datetime.now(dt.UTC))


def test_using_gives_a_copy_and_leaves_the_task_as_it_was(app: Dibs) -> None:
    task = app.task(queue="mail", priority=7)(plain)

    changed = task.using(queue="slow", priority=0, delay=60, id="mine")

    assert (task.options.queue, task.options.priority, task.options.delay, task.options.id) == ("mail", 7, None, None)
    assert (changed.options.queue, changed.options.priority) == ("slow", 0)
    assert type(changed) is type(task)
    assert changed.name == task.name
    assert changed.using(delay=5).options.queue == "slow"


def test_delay_at_and_expires_become_moments_of_the_hand_over(app: Dibs) -> None:
    task = app.task(plain)
    before = now_ms()
    moment = dt.datetime(2030, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5)))

    by_seconds = task.using(delay=60, expires=dt.timedelta(hours=1)).prepare("a").message
    by_moment = task.using(expires=moment, at=dt.datetime(2000, 1, 1, tzinfo=dt.UTC)).prepare("a").message

    assert by_seconds.due is not None
    assert by_seconds.expires is not None
    assert before + 60_000 <= by_seconds.due <= now_ms() + 60_000
    assert before + 3_600_000 <= by_seconds.expires <= now_ms() + 3_600_000
    assert by_moment.expires == int(moment.timestamp() * 1000)
    assert by_moment.due == 946_684_800_000


def test_a_prepared_call_is_a_message_by_the_book(app: Dibs) -> None:
    message = app.task(queue="mail")(plain).using(id="mine").prepare("a.png", width=3).message

    assert (message.id, message.task, message.queue) == ("mine", "tests.unit.test_task.plain", "mail")
    assert (message.content_type, message.attempt, message.priority) == ("application/json", 1, 4)
    assert json.loads(message.body) == {"args": ["a.png", 3], "kwargs": {}}
    assert message.enqueued is not None


def test_an_enqueued_job_is_in_its_queue_and_tells_its_id(app: Dibs) -> None:
    task = app.task(queue="mail")(plain)

    job = task.enqueue("a.png")

    (info,) = app.broker.queues()
    assert (info.name, info.ready) == ("mail", 1)
    assert (job.queue, job.task) == ("mail", task.name)
    assert job.id in repr(job)
    assert "a.png" not in repr(job)


def test_aenqueue_does_the_same_on_a_loop(app: Dibs) -> None:
    task = app.task(plain)

    job = asyncio.run(task.aenqueue("a.png"))

    assert job.task == task.name
    assert app.broker.queues()[0].ready == 1


def test_a_wrong_call_hands_nothing_over(app: Dibs) -> None:
    task = app.task(plain)

    with pytest.raises(BadArguments, match="'width'"):
        task.enqueue("a", width="b")  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(BadArguments):
        asyncio.run(task.aenqueue())  # type: ignore[call-arg]  # what the test is about
    with pytest.raises(UnknownQueue):
        task.using(queue="nosuch").enqueue("a")

    assert app.broker.queues()[0].ready == 0
