"""The app: nothing is opened early, queues are known before they are used, and texts say what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dibs import (
    BadArguments,
    BadName,
    BadOption,
    BadTask,
    BadURL,
    BrokerError,
    Dibs,
    Done,
    JobExists,
    Message,
    UnknownQueue,
)
from dibs.broker import Queue
from tests.ids import stable


def work(number: int = 0) -> int:
    return number


def listen(message: Message) -> None: ...


@pytest.fixture
def app() -> Dibs:
    return Dibs("memory://")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and nothing said in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIBS_URL", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "url", ["", "dibs.db", "ampq://host", "amqp://host:port", "amqp://host?hartbeat=5", "sqlite:///f?x=1"]
)
def test_a_wrong_url_is_told_when_the_app_is_made(url: str) -> None:
    with pytest.raises(BadURL):
        Dibs(url)


@pytest.mark.parametrize("url", ["amqp://user:secret@nosuch.invalid/", "sqlite:////nosuch/folder/dibs.db"])
def test_making_an_app_and_registering_open_nothing(url: str) -> None:
    app = Dibs(url, namespace="shop")

    app.task(work)
    app.consumer("plain")(listen)
    app.queue("other")
    app.close()

    assert app.queue_names == {"default", "plain", "other"}


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"namespace": "a*"}, BadName),
        ({"namespace": "x" * 181}, BadName),
        ({"handover_timeout": 0}, BadOption),
        ({"handover_timeout": float("nan")}, BadOption),
        ({"handover_timeout": float("inf")}, BadOption),
        ({"unknown_task_limit": -1}, BadOption),
        ({"unknown_task_limit": float("nan")}, BadOption),
    ],
    ids=str,
)
def test_an_option_of_the_app_out_of_bounds_is_refused(option: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Dibs("memory://", **option)


def test_without_a_url_the_environment_names_the_broker(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIBS_URL", f"sqlite:///{here}/named.db")
    app = Dibs()
    task = app.task(work)

    task.enqueue()
    app.close()

    assert (here / "named.db").exists()


def test_a_wrong_url_in_the_environment_is_told_at_first_use(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIBS_URL", "ampq://host")
    app = Dibs()

    with pytest.raises(BadURL, match="ampq"):
        app.task(work).enqueue()


@pytest.mark.parametrize("value", [None, ""])
def test_without_any_url_a_producer_creates_no_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("DIBS_URL", value)
    app = Dibs()

    with pytest.raises(BrokerError, match=r"dibs\.db.*worker.*DIBS_URL"):
        app.task(work).enqueue()

    assert not list(here.iterdir())


def test_without_any_url_the_file_that_a_worker_made_is_used(here: Path) -> None:
    worker, producer = Dibs(), Dibs()
    worker.use(may_create=True)
    worker.broker.declare([Queue(name="default")])

    producer.task(work).enqueue()

    assert producer.broker.queues()[0].ready == 1
    assert producer.broker.location == str(here / "dibs.db")
    worker.close()
    producer.close()


def test_a_queue_that_is_neither_a_tasks_nor_declared_is_refused(app: Dibs) -> None:
    task = app.task(work)

    for handing_over in (lambda: app.send("other", "x"), lambda: task.using(queue="other").enqueue()):
        with pytest.raises(UnknownQueue, match=r"'other'.*default.*app\.queue\('other'\)"):
            handing_over()
    assert {info.name for info in app.broker.queues()} == {"default"}

    app.queue("other")
    app.send("other", "x")
    task.using(queue="other").enqueue()
    assert {info.name: info.ready for info in app.broker.queues()} == {"default": 0, "other": 2}


def test_queues_are_made_as_their_use_asks(app: Dibs) -> None:
    app.queue("declared first")
    app.task(name="a", queue="jobs")(work)
    app.task(name="e", queue="declared first")(work)
    app.task(name="b", queue="told classic")(work)
    app.task(name="c", queue="mixed")(work)
    app.task(name="d", queue="also declared")(work)
    app.consumer("plain")(listen)
    app.consumer("mixed")(listen)
    app.consumer("told quorum")(listen)
    app.queue("bare")
    app.queue("also declared")
    app.queue("told classic", type="classic")
    app.queue("told quorum", type="quorum")

    assert {queue.name: queue.type for queue in app.declared()} == {
        "jobs": "quorum",
        "also declared": "quorum",
        "declared first": "quorum",
        "told quorum": "quorum",
        "plain": "classic",
        "mixed": "classic",
        "bare": "classic",
        "told classic": "classic",
    }


def test_a_queue_of_an_unknown_type_or_name_is_refused(app: Dibs) -> None:
    with pytest.raises(BadOption, match="'stream'"):
        app.queue("q", type="stream")  # type: ignore[arg-type]  # what the test is about
    for register in (app.queue, app.consumer, lambda name: app.task(queue=name)):
        with pytest.raises(BadName):
            register("a*")
    assert not app.queue_names


def test_a_queue_has_one_consumer(app: Dibs) -> None:
    app.consumer("plain")(listen)

    with pytest.raises(BadTask, match="already"):
        app.consumer("plain")(listen)


def test_a_queue_that_is_registered_later_is_declared_later(app: Dibs) -> None:
    app.task(work).enqueue()

    app.queue("late")

    assert [info.name for info in app.broker.queues()] == ["default", "late"]


def test_many_calls_go_over_at_once_all_or_none(app: Dibs) -> None:
    task = app.task(work)

    jobs = app.enqueue_many(task.prepare(number) for number in range(3))

    assert len({job.id for job in jobs}) == 3
    with pytest.raises(JobExists) as caught:
        app.enqueue_many([task.prepare(3), task.using(id=jobs[0].id).prepare(4)])
    assert caught.value.ids == (jobs[0].id,)
    assert app.broker.queues()[0].ready == 3


def test_none_at_all_needs_no_broker() -> None:
    app = Dibs("sqlite:////nosuch/folder/dibs.db")
    app.queue("q")

    assert app.enqueue_many([]) == []


def test_a_plain_message_carries_headers_and_options(app: Dibs) -> None:
    app.queue("plain")

    job_id = app.send("plain", {"a": 1}, headers={"tenant": "x"}, priority=9, id="mine")

    (delivery,) = app.broker.consume(["plain"], limit=1).receive(1)
    message = delivery.message
    assert job_id == message.id == "mine"
    assert (message.body, message.content_type, message.task) == (b'{"a":1}', "application/json", None)
    assert (message.headers, message.priority) == ({"tenant": "x"}, 9)


@pytest.mark.parametrize("bad", [{"body": object()}, {"body": "x", "headers": {"dibs-attempt": 3}}], ids=stable)
def test_a_plain_message_that_nobody_could_carry_is_refused(app: Dibs, bad: dict[str, Any]) -> None:
    app.queue("plain")

    with pytest.raises(BadArguments):
        app.send("plain", **bad)

    assert app.broker.queues()[0].ready == 0


def test_enqueue_in_needs_sqlite(app: Dibs) -> None:
    with pytest.raises(BadOption, match="memory://"):
        app.enqueue_in(None, [])  # type: ignore[arg-type]  # never looked at


def test_two_namespaces_of_one_file_do_not_see_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/dibs.db"
    one, two = Dibs(url, namespace="one"), Dibs(url, namespace="two")
    tasks = [app.task(work) for app in (one, two)]

    tasks[0].enqueue(1)

    assert two.drain() == []
    assert one.drain() == [Done(b"1")]
    one.close()
    two.close()


def test_after_a_close_the_next_use_opens_again(tmp_path: Path) -> None:
    app = Dibs(f"sqlite:///{tmp_path}/dibs.db")
    task = app.task(work)
    task.enqueue(1)

    app.close()
    app.close()
    task.enqueue(2)

    assert sorted(str(outcome) for outcome in app.drain()) == [str(Done(b"1")), str(Done(b"2"))]
    app.close()


def test_a_forked_child_hands_over_and_leaves_its_parent_able_to(tmp_path: Path) -> None:
    app = Dibs(f"sqlite:///{tmp_path}/dibs.db")
    task = app.task(work)
    task.enqueue(1)

    child = os.fork()
    if child == 0:
        try:
            task.enqueue(2)
        except BaseException:  # noqa: BLE001
            os._exit(1)
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    task.enqueue(3)
    assert app.broker.queues()[0].ready == 3
    app.close()


def test_use_points_an_app_at_another_broker_with_all_its_queues(app: Dibs, tmp_path: Path) -> None:
    task = app.task(work)
    app.consumer("plain")(listen)
    task.enqueue(1)

    app.use(f"sqlite:///{tmp_path}/dibs.db")
    task.enqueue(2)

    assert {info.name: info.ready for info in app.broker.queues()} == {"default": 1, "plain": 0}
    app.close()


def test_importing_a_module_with_an_app_opens_no_file_and_no_socket(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from dibs import Dibs\n"
        "one = Dibs('sqlite:///one.db')\n"
        "two = Dibs('amqp://user:secret@127.0.0.1:1/')\n"
        "three = Dibs()\n"
        "for app in (one, two, three):\n"
        "    app.queue('q')\n"
        "    @app.task\n"
        "    def work() -> None: ...\n"
    )
    code = (
        "import sys\n"
        "seen = []\n"
        "bad = ('socket', 'sqlite3')\n"
        "sys.addaudithook(lambda event, args: seen.append(event) if event.startswith(bad) else None)\n"
        "import shop\n"
        "import os; print(seen, [name for name in os.listdir() if 'db' in name])"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.stdout.strip() == "[] []", ran.stderr
