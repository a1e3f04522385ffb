"""`dibs queues`, `dead` and `purge`: what they show, what they destroy, and when they don't."""

from __future__ import annotations

import datetime as dt
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


def test_the_dead_are_listed_with_what_is_needed_to_judge_them(shell: Shell) -> None:
    (job_id,) = shell.make_dead("boom")

    (letter,) = shell.ok("dead", "list", "fragile", "--json").json()
    table = shell.ok("dead", "list", "fragile").out

    assert (letter["id"], letter["task"], letter["queue"], letter["reason"]) == (
        job_id, "tasks.fail", "fragile", "failed"
    )  # fmt: skip
    assert letter["attempts"] == 1
    assert letter["error"].rstrip().endswith("ValueError: boom")
    assert abs(dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(letter["died"])) < dt.timedelta(minutes=5)
    assert all(word in table for word in (job_id, "tasks.fail", "failed", "ValueError: boom"))


def test_one_dead_letter_is_shown_whole(shell: Shell) -> None:
    (job_id,) = shell.make_dead("boom")

    shown = shell.ok("dead", "show", "fragile", job_id)
    as_json = shell.ok("dead", "show", "fragile", job_id, "--json").json()

    assert all(
        word in shown.out for word in (job_id, "reason:", "Traceback", "in fail", '{"args":["boom"],"kwargs":{}}')
    )
    assert as_json["body"] == '{"args":["boom"],"kwargs":{}}'
    assert (as_json["id"], as_json["crashes"]) == (job_id, 0)


def test_listing_goes_on_behind_a_letter(shell: Shell) -> None:
    shell.make_dead("boom", "bang", "bump")

    (first, second) = shell.ok("dead", "list", "fragile", "--json", "--limit", "2").json()
    (third,) = shell.ok("dead", "list", "fragile", "--json", "--after", second["id"]).json()

    assert len({first["id"], second["id"], third["id"]}) == 3


def test_a_strangers_text_can_not_command_the_terminal(shell: Shell) -> None:
    (job_id,) = shell.make_dead("\x1b]0;owned\x07\x1b[2J\r\u202e")

    for ran in (shell.ok("dead", "list", "fragile"), shell.ok("dead", "show", "fragile", job_id)):
        assert all(sign.isprintable() or sign in "\n\t" for sign in ran.out)
        assert "owned" in ran.out


def test_replay_puts_a_letter_back(shell: Shell) -> None:
    first, second = shell.make_dead("boom", "bang")

    assert shell.ok("dead", "replay", "fragile", first).out == "replayed 1\n"

    counts = shell.counts("fragile")
    assert (counts.ready, counts.dead) == (1, 1)
    assert [letter["id"] for letter in shell.ok("dead", "list", "fragile", "--json").json()] == [second]


def test_drop_deletes_a_letter(shell: Shell) -> None:
    first, second = shell.make_dead("boom", "bang")

    assert shell.ok("dead", "drop", "fragile", first, "--yes").out == "dropped 1\n"

    assert [letter["id"] for letter in shell.ok("dead", "list", "fragile", "--json").json()] == [second]


@pytest.mark.parametrize(("verb", "left"), [("replay", (2, 0)), ("drop", (0, 0))])
def test_all_means_all(shell: Shell, verb: str, left: tuple[int, int]) -> None:
    shell.make_dead("boom", "bang")

    ran = shell.ok("dead", verb, "fragile", "--all", "--yes")

    assert ran.out.endswith("ed 2\n")
    counts = shell.counts("fragile")
    assert (counts.ready, counts.dead) == left


def test_ids_that_are_not_there_are_told_and_the_others_are_done(shell: Shell) -> None:
    (job_id,) = shell.make_dead("boom")

    ran = shell.dibs("dead", "replay", "fragile", job_id, "nosuch")

    assert (ran.code, ran.out) == (2, "replayed 1\n")
    assert "1 of the ids" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "nosuch"], "no queue 'nosuch'"),
        (["show", "nosuch", "x"], "no queue 'nosuch'"),
        (["show", "q", "nosuch"], "no dead letter 'nosuch'"),
        (["replay", "nosuch", "x"], "no queue 'nosuch'"),
        (["drop", "nosuch", "x", "--yes"], "no queue 'nosuch'"),
        (["replay", "q"], "--all"),
        (["replay", "q", "x", "--all"], "--all"),
        (["drop", "q", "--yes"], "--all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_told_in_one_line(shell: Shell, arguments: list[str], said: str) -> None:
    shell.ok("send", "q", "x")

    assert said in shell.refused("dead", *arguments)


def test_purge_of_an_unknown_queue_is_refused(shell: Shell) -> None:
    assert "no queue 'nosuch'" in shell.refused("purge", "nosuch", "--yes")


@pytest.mark.parametrize("limit", ["0", "-1", "x"])
def test_a_page_has_at_least_one_letter(shell: Shell, limit: str) -> None:
    ran = shell.dibs("dead", "list", "q", "--limit", limit)

    assert ran.code == 2
    assert "--limit" in ran.err


@pytest.mark.parametrize(("state", "left"), [("ready", (0, 1)), ("delayed", (1, 0))])
def test_purge_deletes_what_is_in_that_state_and_nothing_else(
    shell: Shell, state: str, left: tuple[int, int]
) -> None:
    shell.ok("send", "q", "now")
    shell.ok("send", "q", "later", "--delay", "60")

    assert shell.ok("purge", "q", "--state", state, "--yes").out == "purged 1\n"

    counts = shell.counts("q")
    assert (counts.ready, counts.delayed) == left


def test_purge_deletes_the_dead_when_told_so(shell: Shell) -> None:
    shell.make_dead("boom", "bang")

    assert shell.ok("purge", "fragile", "--state", "dead", "--yes").out == "purged 2\n"


DESTRUCTIVE = [
    ["purge", "fragile", "--state", "dead"],
    ["dead", "drop", "fragile", "--all"],
    ["dead", "replay", "fragile", "--all"],
]


def test_without_a_terminal_nothing_is_destroyed_unasked(shell: Shell) -> None:
    (job_id,) = shell.make_dead("boom")

    for command in [*DESTRUCTIVE, ["dead", "drop", "fragile", job_id]]:
        said = shell.refused(*command, code=3)
        assert "--yes" in said

    assert shell.counts("fragile").dead == 1


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04", "yes please\n"], ids=repr)
def test_whoever_does_not_say_yes_keeps_everything(shell: Shell, answer: str) -> None:
    shell.make_dead("boom")

    ran = shell.at_terminal("purge", "fragile", "--state", "dead", answer=answer)

    assert ran.code == 3, ran.err
    assert "Traceback" not in ran.err
    assert shell.counts("fragile").dead == 1


def test_whoever_says_yes_is_obeyed(shell: Shell) -> None:
    shell.make_dead("boom")

    ran = shell.at_terminal("dead", "drop", "fragile", "--all", answer="y\n")

    assert ran.code == 0, ran.err
    assert "queue.db" in ran.out  # the question names what it is about
    assert shell.counts("fragile").dead == 0


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
