"""`dibs queues` and `purge`: what they show, what they destroy, and when they don't."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.cli.conftest import DIBS, Shell


def test_queues_shows_the_place_and_a_table(shell: Shell) -> None:
    shell.ok("send", "q", "x")

    lines = shell.ok("queues").out.splitlines()

    assert lines[0] == str(shell.directory / "queue.db")
    assert lines[1].split() == ["name", "ready", "running", "delayed", "dead", "consumers"]
    assert lines[2].split() == ["q", "1", "0", "0", "0", "0"]


def test_queues_says_when_there_are_none(shell: Shell) -> None:
    assert shell.ok("queues").out.splitlines()[1:] == ["no queues"]
    assert shell.ok("queues", "--json").json() == []


def test_an_app_adds_its_queues(shell: Shell) -> None:
    names = [info["name"] for info in shell.ok("queues", "--json", "--app", "tasks:app").json()]

    assert names == ["default", "fragile", "plain"]
    assert names == [info["name"] for info in shell.ok("queues", "--json", DIBS_APP="tasks:app").json()]


def test_purge_of_an_unknown_queue_is_refused(shell: Shell) -> None:
    assert "no queue 'nosuch'" in shell.refused("purge", "nosuch", "--yes")


@pytest.mark.parametrize(("state", "left"), [("ready", (0, 1)), ("delayed", (1, 0))])
def test_purge_deletes_what_is_in_that_state_and_nothing_else(
    shell: Shell, state: str, left: tuple[int, int]
) -> None:
    shell.ok("send", "q", "now")
    shell.ok("send", "q", "later", "--delay", "60")

    assert shell.ok("purge", "q", "--state", state, "--yes").out == "purged 1\n"

    counts = shell.counts("q")
    assert (counts.ready, counts.delayed) == left


def test_purge_leaves_the_dead_alone(shell: Shell) -> None:
    shell.make_dead("boom")

    assert shell.ok("purge", "fragile", "--yes").out == "purged 0\n"
    assert shell.dibs("purge", "fragile", "--state", "dead", "--yes").code == 2

    assert shell.counts("fragile").dead == 1


def test_without_a_terminal_nothing_is_purged_unasked(shell: Shell) -> None:
    shell.ok("send", "q", "x")

    assert "--yes" in shell.refused("purge", "q", code=3)

    assert shell.counts("q").ready == 1


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04", "yes please\n"], ids=repr)
def test_whoever_does_not_say_yes_keeps_everything(shell: Shell, answer: str) -> None:
    shell.ok("send", "q", "x")

    ran = shell.at_terminal("purge", "q", answer=answer)

    assert ran.code == 3, ran.err
    assert "Traceback" not in ran.err
    assert shell.counts("q").ready == 1


def run_into(shell: Shell, output: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DIBS, "queues"],
        cwd=shell.directory,
        env=shell.env,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_a_reader_that_has_seen_enough_is_no_error(shell: Shell) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    ran = run_into(shell, writer)

    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_output_that_can_not_be_written_is_one_line(shell: Shell) -> None:
    full = os.open("/dev/full", os.O_WRONLY)

    ran = run_into(shell, full)

    os.close(full)
    assert ran.returncode == 1
    assert "No space left" in ran.stderr
    assert ran.stderr.count("\n") == 1
