"""`dibs send` and `dibs enqueue`: what they hand over, and what they refuse."""

from __future__ import annotations

import uuid

import pytest

from tests.cli.conftest import Shell


def test_send_hands_texts_over_and_prints_their_ids(shell: Shell) -> None:
    ran = shell.ok("send", "task_queue", "Pune........", "Grüße")

    assert [uuid.UUID(line).version for line in ran.out.split()] == [7, 7]
    assert shell.counts("task_queue").ready == 2


def test_what_was_sent_is_heard_by_its_consumer(shell: Shell) -> None:
    shell.ok("send", "plain", "Pune........", "--app", "tasks:app")

    ran = shell.ok("worker", "tasks:app", "-p", "1", "--burst")

    assert "heard Pune........" in ran.out


def test_a_delayed_message_waits(shell: Shell) -> None:
    shell.ok("send", "q", "later", "--delay", "60")

    counts = shell.counts("q")
    assert (counts.ready, counts.delayed) == (0, 1)


def test_enqueue_takes_json_and_keywords(shell: Shell) -> None:
    first = shell.ok("enqueue", "tasks:app.add", "1", "--kw", "right=-3").out.strip()
    second = shell.ok("enqueue", "tasks:app.tasks.add", "-1", "--id", "mine", "--delay", "0").out.strip()

    assert uuid.UUID(first).version == 7
    assert second == "mine"
    shell.ok("worker", "tasks:app", "-p", "1", "--burst")
    assert shell.counts("default") == (0, 0, 0)


def test_enqueue_can_name_another_queue_of_the_app(shell: Shell) -> None:
    shell.ok("enqueue", "tasks:app.add", "1", "--queue", "fragile")

    assert shell.counts("fragile").ready == 1


def test_an_app_in_a_file_is_found(shell: Shell) -> None:
    shell.ok("enqueue", "tasks.py:app.add", "1")

    assert shell.counts("default").ready == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tasks"], "module:app.task"),
        (["tasks:app"], "module:app.task"),
        (["tasks:app.nosuch"], "'nosuch'; it has: tasks.add, tasks.fail"),
        (["nosuch:app.add"], "no module 'nosuch'"),
        (["tasks.nosuch:app.add"], "no module 'tasks.nosuch'"),
        ([":app.add"], "names no module"),
        (["..tasks:app.add"], "names no module"),
        (["tasks:nosuch.add"], "has no 'nosuch'. Write tasks:app."),
        (["tasks:Bury.add"], "no Dibs app"),
        (["tasks:app.add", "a.png"], "Argument 1 is no JSON: 'a.png'"),
        (["tasks:app.add", "{1}"], "Argument 1 is no JSON"),
        (["tasks:app.add", "1", "--kw", "right"], "write NAME=JSON"),
        (["tasks:app.add", "1", "--kw", "right=x"], "--kw right is no JSON"),
        (["tasks:app.add"], "'left'"),
        (["tasks:app.add", '"1"'], "'left'"),
        (["tasks:app.add", "1", "2", "3"], "too many"),
        (["tasks:app.add", "1", "--kw", "other=1"], "'other'"),
        (["tasks:app.add", "NaN"], "'left'"),
        (["tasks:app.add", "1", "--delay", "-1"], "delay=-1.0"),
        (["tasks:app.add", "1", "--delay", "nan"], "delay=nan"),
        (["tasks:app.add", "1", "--queue", "nosuch"], "'nosuch'"),
        (["tasks:app.add", "1", "--queue", "a*"], "'a*'"),
        (["tasks:app.add", "1", "--id", ""], "job id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_job_that_can_not_be_is_refused_in_one_line(shell: Shell, arguments: list[str], said: str) -> None:
    assert said in shell.refused("enqueue", *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["", "x"], "queue name"),
        (["a*", "x"], "wildcards"),
        (["dibs", "x"], "reserved"),
        (["q", "x", "--delay", "1e12"], "400 days"),
        (["nosuch", "x", "--app", "tasks:app"], "'nosuch'"),
        (["q", "x", "--app", "nosuch:app"], "no module 'nosuch'"),
        (["q", "\udcff"], "UTF-8"),
    ],
    ids=ascii,
)
def test_a_message_that_can_not_be_is_refused_in_one_line(shell: Shell, arguments: list[str], said: str) -> None:
    assert said in shell.refused("send", *arguments)


def test_an_id_is_not_taken_twice(shell: Shell) -> None:
    shell.ok("enqueue", "tasks:app.add", "1", "--id", "mine")

    assert "mine" in shell.refused("enqueue", "tasks:app.add", "1", "--id", "mine", code=1)


BROKEN = {
    "import": ("import nosuch_package\n", "No module named 'nosuch_package'"),
    "syntax": ("def f(:\n", "SyntaxError"),
    "raise": ("x = 1 / 0\n", "ZeroDivisionError"),
    "exit": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "task": ("from dibs import Dibs\napp = Dibs()\napp.task(lambda: 1)\n", "errors.BadTask: <lambda>"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize(
    "command", [["enqueue", "broken:app.x"], ["worker", "broken:app", "-p", "2"]], ids=lambda c: c[0]
)
def test_a_module_that_can_not_be_imported_shows_its_traceback_once(
    shell: Shell, fault: str, command: list[str]
) -> None:
    code, said = BROKEN[fault]
    (shell.directory / "broken.py").write_text(code)

    ran = shell.dibs(*command)

    assert ran.code == 2
    assert ran.err.count(said) == 1
    assert ran.err.count("Traceback") == (0 if fault == "syntax" else 1)
    assert 'broken.py", line' in ran.err
    assert "importlib" not in ran.err
    assert "loading.py" not in ran.err


def test_without_a_url_only_somebody_at_a_terminal_creates_the_file(shell: Shell) -> None:
    shell.env["DIBS_URL"] = ""

    said = shell.refused("send", "q", "x", code=1)

    assert str(shell.directory / "dibs.db") in said
    assert "DIBS_URL" in said
    assert not (shell.directory / "dibs.db").exists()

    assert shell.at_terminal("send", "q", "x", answer="").code == 0
    assert (shell.directory / "dibs.db").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["send", "q", "x"],
        ["enqueue", "tasks:app.add", "1"],
        ["queues"],
        ["purge", "q", "--yes"],
        ["dead", "list", "q"],
    ],
    ids=" ".join,
)
def test_a_broker_inside_the_command_itself_is_refused(shell: Shell, command: list[str]) -> None:
    assert "memory://" in shell.refused(*command, "--url", "memory://")
