"""`dibs jobs` and `dibs job`: what became of whom."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from dibs.message import new_id
from tests.cli.conftest import DIBS, Shell
from tests.waiting import until


def enqueue(shell: Shell, task: str, *arguments: str) -> str:
    """Hand a job over and return its id."""
    return shell.ok("enqueue", f"tasks:app.{task}", *arguments).out.strip()


def work(shell: Shell) -> None:
    """Run all that is ready."""
    shell.ok("worker", "tasks:app", "-p", "1", "--burst")


def ids(shell: Shell, *arguments: str) -> list[str]:
    """Return the ids that `dibs jobs` lists."""
    return [job["id"] for job in shell.ok("jobs", "--json", *arguments).json()["jobs"]]


@pytest.fixture
def three(shell: Shell) -> Sequence[str]:
    """A job that is done, one that is dead and one that waits; made here, as that costs no process."""
    app = shell.open()
    add = app.task(name="tasks.add")(lambda left, right=2: left + right)
    made = [add.enqueue(1), app.get_task("tasks.fail").enqueue("no \x1b[31m route")]
    app.drain()
    made.append(add.using(delay=60).enqueue(5))
    app.close()
    return [job.id for job in made]


def test_jobs_are_listed_newest_first_with_what_they_say(shell: Shell, three: Sequence[str]) -> None:
    done, dead, delayed = three

    lines = shell.ok("jobs").out.splitlines()

    assert lines[0].split() == ["id", "status", "queue", "task", "attempt", "last", "took", "says"]
    assert [line.split()[:4] for line in lines[1:]] == [
        [delayed, "delayed", "default", "tasks.add"],
        [dead, "dead", "fragile", "tasks.fail"],
        [done, "done", "default", "tasks.add"],
    ]
    assert "failed: ValueError: no \\x1b[31m route" in lines[2]


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (60, "id status queue task last"),
        (100, "id status queue task attempt last took"),
        (140, "id status queue task attempt last took says"),
    ],
)
def test_a_terminal_is_shown_what_it_has_room_for(
    shell: Shell, three: Sequence[str], width: int, header: str
) -> None:
    ours, theirs = pty.openpty()
    env = shell.env | {"COLUMNS": str(width)}

    subprocess.run([*DIBS, "jobs"], cwd=shell.directory, env=env, stdout=theirs, check=True)

    os.close(theirs)
    lines = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert lines[0].split() == header.split()
    assert [line.split()[0] for line in lines[1:]] == list(reversed(three))
    assert max(map(len, lines)) <= max(width, 86)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--state", "dead"], [1]),
        (["--state", "dead", "--state", "done"], [1, 0]),
        (["--queue", "fragile"], [1]),
        (["--task", "tasks.add"], [2, 0]),
        (["--task", "tasks.add", "--state", "done"], [0]),
        (["--since", "1h"], [2, 1, 0]),
        (["--limit", "2"], [2, 1]),
        (["--queue", "nosuch"], []),
    ],
    ids=str,
)
def test_filters_choose(shell: Shell, three: Sequence[str], arguments: list[str], expected: list[int]) -> None:
    assert ids(shell, *arguments) == [three[number] for number in expected]


def test_a_long_list_says_how_to_go_on(shell: Shell, three: Sequence[str]) -> None:
    ran = shell.ok("jobs", "--limit", "2")
    page = shell.ok("jobs", "--limit", "2", "--json").json()

    assert f"--after {page['next']}" in ran.err
    assert ids(shell, "--after", page["next"]) == [three[0]]
    assert shell.ok("jobs", "--json").json()["next"] is None


def test_no_jobs_is_no_error(shell: Shell) -> None:
    shell.ok("queues", "--app", "tasks:app")

    assert shell.ok("jobs").out == "no jobs\n"
    assert shell.ok("jobs", "--json").json() == {"jobs": [], "next": None, "is_cut": False}


@pytest.mark.parametrize(
    "arguments",
    [["--state", "lost"], ["--since", "yesterday"], ["--limit", "0"], ["--limit", "many"]],
    ids=" ".join,
)
def test_a_filter_that_makes_no_sense_is_refused(shell: Shell, arguments: list[str]) -> None:
    ran = shell.dibs("jobs", *arguments)

    assert ran.code == 2
    assert arguments[0] in ran.err


def test_following_and_going_back_at_once_is_refused(shell: Shell) -> None:
    assert "--follow" in shell.refused("jobs", "--follow", "--after", "1")


def test_a_follower_sees_each_step_of_a_job(shell: Shell) -> None:
    first = enqueue(shell, "add", "1")
    log = shell.directory / "followed"
    with (
        log.open("w") as out,
        subprocess.Popen([*DIBS, "jobs", "--follow"], cwd=shell.directory, env=shell.env, stdout=out) as follower,
    ):
        until(lambda: first in log.read_text())
        second = enqueue(shell, "fail", '"boom"')
        until(lambda: f"ready      {second}" in log.read_text())
        work(shell)
        until(lambda: f"done       {first}" in log.read_text() and f"dead       {second}" in log.read_text())
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130

    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines))
    (dead,) = [line for line in lines if " dead " in line]
    assert dead.endswith("failed: ValueError: boom")


# One job


def test_a_job_is_shown_whole(shell: Shell, three: Sequence[str]) -> None:
    page = shell.ok("job", three[0]).out

    lines = [line.split(":", 1) for line in page.split("\n\n")[0].splitlines()]
    head = {name: value.strip() for name, value in lines}
    assert (head["id"], head["task"], head["queue"], head["status"]) == (three[0], "tasks.add", "default", "done")
    assert head["enqueued"].endswith("ago)")
    assert "\nresult:\n3\n" in page
    assert '"args": [\n    1\n  ]' in page
    assert "\nruns:\n    1  " in page


def test_a_dead_job_is_shown_with_its_error(shell: Shell, three: Sequence[str]) -> None:
    page = shell.ok("job", three[1]).out

    assert "status:     dead: failed\n" in page
    assert "Traceback (most recent call last):\n" in page
    assert "ValueError: no \\x1b[31m route" in page
    assert "\x1b" not in page


def test_all_of_a_job_is_there_for_programs(shell: Shell, three: Sequence[str]) -> None:
    done, dead, delayed = (shell.ok("job", job_id, "--json").json() for job_id in three)

    assert (done["status"], done["result"], done["body"]) == ("done", 3, '{"args":[1],"kwargs":{}}')
    assert [run["outcome"] for run in done["runs"]] == ["done"]
    assert done["enqueued"].endswith("+00:00")
    assert (dead["reason"], dead["result"]) == ("failed", None)
    assert dead["error"].endswith("ValueError: no \x1b[31m route\n")
    assert (delayed["status"], delayed["runs"], delayed["ended"]) == ("delayed", [], None)
    assert delayed["due"] > delayed["enqueued"]


def test_of_a_private_job_nothing_is_shown(shell: Shell) -> None:
    tasks = shell.directory / "tasks.py"
    tasks.write_text(
        tasks.read_text() + "\n\n@app.task(private=True)\ndef hide(text: str) -> str:\n    return text\n"
    )
    job_id = enqueue(shell, "hide", '"s3cret"')
    work(shell)

    page, listed, whole = shell.ok("job", job_id), shell.ok("jobs"), shell.ok("job", job_id, "--json")

    assert "private: not shown" in page.out
    assert "s3cret" not in page.out + listed.out + whole.out
    assert (whole.json()["private"], whole.json()["body"], whole.json()["result"]) == (True, None, None)


@pytest.mark.parametrize("command", ["job", "result", "cancel"])
def test_an_id_that_nobody_knows_is_told_in_one_line(shell: Shell, command: str) -> None:
    shell.ok("send", "q", "x")
    job_id = new_id()

    said = shell.refused(command, job_id)

    assert job_id in said
    assert "queue.db" in said


@pytest.mark.parametrize("command", ["job", "result", "cancel"])
def test_an_id_that_can_be_none_is_told_in_one_line(shell: Shell, command: str) -> None:
    assert "job id" in shell.refused(command, "a\x07b")


# Results


def test_a_result_is_printed_as_json(shell: Shell, three: Sequence[str]) -> None:
    ran = shell.ok("result", three[0])

    assert (ran.out, ran.err) == ("3\n", "")


def test_a_result_is_laid_out_at_a_terminal(shell: Shell) -> None:
    tasks = shell.directory / "tasks.py"
    tasks.write_text(tasks.read_text() + "\n\n@app.task\ndef both() -> dict[str, int]:\n    return {'a': 1}\n")
    job_id = enqueue(shell, "both")
    work(shell)
    ours, theirs = pty.openpty()

    subprocess.run([*DIBS, "result", job_id], cwd=shell.directory, env=shell.env, stdout=theirs, check=True)

    os.close(theirs)
    assert os.read(ours, 1000).split() == [b"{", b'"a":', b"1", b"}"]
    os.close(ours)


def test_why_there_is_no_result_is_told_by_the_exit_code(shell: Shell, three: Sequence[str]) -> None:
    _, dead, delayed = three
    failed = shell.dibs("result", dead)

    assert (failed.code, failed.out) == (5, "")
    assert failed.err.startswith("Traceback (most recent call last):\n")
    assert failed.err.splitlines()[-1].startswith("dibs: Job ")
    assert "\x1b" not in failed.err
    assert "is not over yet" in shell.refused("result", delayed, code=7)
    assert "0.2 s" in shell.refused("result", delayed, "--wait", "0.2", code=7)
    shell.ok("cancel", delayed)
    assert "was cancelled" in shell.refused("result", delayed, code=6)


def test_what_a_failed_job_said_is_one_line_below_its_traceback(shell: Shell) -> None:
    app = shell.open()
    job = app.get_task("tasks.fail").enqueue("first\n" + "e" * 5000)
    app.drain()
    app.close()

    *above, last = shell.dibs("result", job.id).err.splitlines()

    assert "ValueError: first" in above
    assert last.startswith(f"dibs: Job {job.id} is dead (failed): ValueError: first eee")
    assert len(last) < 400


def test_what_was_not_kept_is_told_by_the_exit_code(shell: Shell) -> None:
    tasks = shell.directory / "tasks.py"
    tasks.write_text(tasks.read_text() + "\n\n@app.task(private=True)\ndef hide() -> int:\n    return 1\n")
    job_id = enqueue(shell, "hide")
    work(shell)

    assert "private" in shell.refused("result", job_id, code=8)


def test_a_waiting_shell_has_the_result_when_the_job_is_done(shell: Shell) -> None:
    job_id = enqueue(shell, "add", "40")
    with subprocess.Popen(
        [*DIBS, "result", job_id, "--wait"], cwd=shell.directory, env=shell.env, stdout=subprocess.PIPE, text=True
    ) as waiting:
        work(shell)
        out, _ = waiting.communicate(timeout=60)

    assert (waiting.returncode, out) == (0, "42\n")


def test_a_wait_ends_with_ctrl_c(shell: Shell, three: Sequence[str]) -> None:
    with subprocess.Popen(
        [*DIBS, "result", three[2], "--wait", "3600"], cwd=shell.directory, env=shell.env, stderr=subprocess.PIPE
    ) as waiting:
        threads = Path(f"/proc/{waiting.pid}/task")
        until(lambda: len(list(threads.iterdir())) > 1)
        waiting.send_signal(signal.SIGINT)
        assert (waiting.wait(20), waiting.stderr and waiting.stderr.read()) == (130, b"")


@pytest.mark.parametrize("seconds", ["-1", "nan", "soon"])
def test_a_time_to_wait_that_is_none_is_refused(shell: Shell, seconds: str) -> None:
    ran = shell.dibs("result", "x", f"--wait={seconds}")

    assert (ran.code, ran.out) == (2, "")
    assert "--wait" in ran.err
