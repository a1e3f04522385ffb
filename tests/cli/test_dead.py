"""`dibs dead`: what it shows, what it puts back and destroys, and when it doesn't."""

from __future__ import annotations

import base64
import datetime as dt
import json

import pytest

from dibs.message import Message
from dibs.outcome import Dead
from tests.cli.conftest import Shell


def bury(shell: Shell, *messages: Message) -> None:
    """Have these messages set aside as they are, in the queue "odd"."""
    app = shell.open()
    app.broker.send(messages)
    consumer = app.broker.consume(["odd"], limit=len(messages))
    consumer.settle([(delivery, Dead("unreadable", "no\x1b[2Jgood")) for delivery in consumer.receive(len(messages))])
    app.close()


def left(shell: Shell, queue: str = "fragile") -> list[str]:
    """Return the ids of the dead letters of a queue."""
    return [letter["id"] for letter in shell.ok("dead", "list", queue, "--json").json()]


def test_the_dead_are_listed_with_what_is_needed_to_judge_them(shell: Shell) -> None:
    (job_id,) = shell.make_dead("boom")

    (letter,) = shell.ok("dead", "list", "fragile", "--json").json()
    lines = shell.ok("dead", "list", "fragile").out.splitlines()

    assert (letter["id"], letter["task"], letter["queue"], letter["reason"]) == (
        job_id, "tasks.fail", "fragile", "failed"
    )  # fmt: skip
    assert (letter["attempts"], letter["crashes"]) == (1, 0)
    assert letter["error"].rstrip().endswith("ValueError: boom")
    assert letter["worker"]
    for name in ("died", "enqueued"):
        assert abs(dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(letter[name])) < dt.timedelta(minutes=5)
    assert lines[0] == f"{job_id}  failed  tasks.fail"
    assert lines[1].endswith(" ago, 1 attempt: ValueError: boom")


def test_a_list_fits_80_columns(shell: Shell) -> None:
    (job_id,) = shell.make_dead("no such customer: " + "x" * 200)

    for command in (["dead", "list", "fragile"], ["dead", "list"]):
        out = shell.ok(*command, COLUMNS="80").out
        assert max(map(len, out.splitlines())) <= 80, out
        assert "ValueError: no such customer" in out
    assert job_id in shell.ok("dead", "list", "fragile", COLUMNS="20").out


def test_without_a_queue_all_are_counted_by_task_and_reason(shell: Shell) -> None:
    shell.make_dead("boom", "bang")
    bury(shell, Message(body=b"x", queue="odd", id="one"))

    rows = shell.ok("dead", "list", "--json").json()
    table = shell.ok("dead", "list").out.splitlines()

    assert [(row["queue"], row["task"], row["reason"], row["count"]) for row in rows] == [
        ("fragile", "tasks.fail", "failed", 2),
        ("odd", None, "unreadable", 1),
    ]
    assert rows[0]["error"] == "ValueError: bang"
    assert rows[0]["oldest"] <= rows[0]["newest"]
    assert table[0].split() == ["queue", "task", "reason", "count", "newest", "error"]
    assert table[1].split()[:4] == ["fragile", "tasks.fail", "failed", "2"]
    assert shell.ok("dead", "list", "--reason", "expired").out == "no dead letters\n"


def test_one_dead_letter_is_shown_whole_whatever_queue_it_is_in(shell: Shell) -> None:
    (job_id,) = shell.make_dead("boom")

    shown = shell.ok("dead", "show", job_id, TZ="Asia/Tokyo").out
    as_json = shell.ok("dead", "show", job_id, "--json").json()

    assert all(word in shown for word in (job_id, "fragile", "tasks.fail", "Traceback", "in fail", "attempts:"))
    assert shown.endswith('body, 29 bytes:\n{\n  "args": [\n    "boom"\n  ],\n  "kwargs": {}\n}\n')
    assert shown.count("+09:00") == 2
    assert as_json["body"] == '{"args":["boom"],"kwargs":{}}'
    assert (as_json["id"], as_json["crashes"], as_json["body_base64"]) == (job_id, 0, None)


def test_a_message_that_is_no_text_is_shown_as_it_came(shell: Shell) -> None:
    body = b'\xff\x00{"a": 1, "a": NaN}\x1b'
    message = Message(
        body=body, queue="odd", id="one", headers={"k\x1b": {"x": [1]}}, properties={"reply_to": "me"}, attempt=3,
        crashes=2, content_type="text/plain", priority=7,
    )  # fmt: skip
    bury(shell, message)

    shown = shell.ok("dead", "show", "one").out
    letter = shell.ok("dead", "show", "one", "--json").json()
    listed = shell.ok("dead", "list", "odd").out

    assert letter["body"] is None
    assert base64.b64decode(letter["body_base64"]) == body
    assert (letter["headers"], letter["properties"]) == (message.headers, message.properties)
    assert (letter["priority"], letter["content_type"]) == (7, "text/plain")
    for text in (shown, listed):
        assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert "3 attempts, 2 crashes" in listed
    assert all(word in shown for word in ("reply_to", "{'x': [1]}", r"\xff\x00", r"no\x1b[2Jgood", "text/plain"))


def test_listing_goes_on_behind_a_letter(shell: Shell) -> None:
    ids = shell.make_dead("boom", "bang", "bump")

    first = shell.dibs("dead", "list", "fragile", "--json", "--limit", "2")
    text = shell.dibs("dead", "list", "fragile", "--limit", "2")
    rest = shell.ok("dead", "list", "fragile", "--json", "--after", first.json()[1]["id"])

    assert [letter["id"] for letter in first.json() + rest.json()] == ids
    assert text.err == f"There are more: go on with --after {ids[1]}, or give --limit.\n"
    assert first.err == rest.err == ""


def test_a_strangers_text_can_not_command_the_terminal(shell: Shell) -> None:
    (job_id,) = shell.make_dead("\x1b]0;owned\x07\x1b[2J\r\u202e")

    for command in (["list", "fragile"], ["show", job_id], ["list"]):
        out = shell.ok("dead", *command).out
        assert all(sign.isprintable() or sign in "\n\t" for sign in out)
        assert "owned" in out


def test_replay_puts_a_letter_back(shell: Shell) -> None:
    first, second = shell.make_dead("boom", "bang")

    assert shell.ok("dead", "replay", first).out == "replayed 1\n"

    counts = shell.counts("fragile")
    assert (counts.ready, counts.dead) == (1, 1)
    assert left(shell) == [second]


def test_drop_deletes_a_letter(shell: Shell) -> None:
    first, second = shell.make_dead("boom", "bang")

    assert shell.ok("dead", "drop", first, "--yes").out == "dropped 1\n"

    assert left(shell) == [second]


@pytest.mark.parametrize(("verb", "now"), [("replay", (2, 0)), ("drop", (0, 0))])
@pytest.mark.parametrize("chosen", [["--all"], ["-q", "fragile", "--all"], ["--task", "tasks.fail"]], ids=" ".join)
def test_all_means_all(shell: Shell, verb: str, now: tuple[int, int], chosen: list[str]) -> None:
    shell.make_dead("boom", "bang")

    ran = shell.ok("dead", verb, *chosen, "--yes")

    assert ran.out.endswith("ed 2\n")
    counts = shell.counts("fragile")
    assert (counts.ready, counts.dead) == now


FILTERS = [
    (["--task", "tasks.fail"], 2),
    (["--task", "tasks.add"], 0),
    (["--reason", "failed"], 2),
    (["--reason", "crashed"], 0),
    (["--newer", "1h"], 2),
    (["--older", "1.5h"], 0),
    (["--older", "0s", "--reason", "failed"], 2),
]


@pytest.mark.parametrize(("filters", "count"), FILTERS, ids=str)
def test_filters_choose_alike_what_is_listed_and_what_is_changed(
    shell: Shell, filters: list[str], count: int
) -> None:
    ids = shell.make_dead("boom", "bang")

    listed = shell.ok("dead", "list", "fragile", "--json", *filters).json()
    ran = shell.ok("dead", "drop", "-q", "fragile", *filters, "--yes")

    assert len(listed) == count
    assert ran.out == f"dropped {count}\n"
    assert left(shell) == ([] if count else ids)


def test_filters_narrow_down_ids(shell: Shell) -> None:
    (job_id,) = shell.make_dead("boom")

    assert job_id in shell.refused("dead", "drop", job_id, "--reason", "crashed", "--yes")

    assert left(shell) == [job_id]


def test_ids_that_are_not_there_are_named_and_the_others_are_done(shell: Shell) -> None:
    (job_id,) = shell.make_dead("boom")

    ran = shell.dibs("dead", "replay", job_id, "nosuch")

    assert (ran.code, ran.out) == (2, "replayed 1\n")
    assert "nosuch" in ran.err
    assert job_id not in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "nosuch"], "no queue 'nosuch'"),
        (["list", "--limit", "3"], "name it"),
        (["show", "x", "-q", "nosuch"], "no queue 'nosuch'"),
        (["show", "nosuch"], "no dead letter 'nosuch'"),
        (["replay", "x", "-q", "nosuch"], "no queue 'nosuch'"),
        (["drop", "x", "-q", "nosuch", "--yes"], "no queue 'nosuch'"),
        (["drop", "x", "--yes"], "queue 'q': x"),
        (["replay"], "--all"),
        (["replay", "-q", "q"], "--all"),
        (["replay", "x", "--all"], "--all"),
        (["drop", "--task", "t", "--all", "--yes"], "--all"),
        (["drop", "--yes"], "--all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_told_in_one_line(shell: Shell, arguments: list[str], said: str) -> None:
    shell.ok("send", "q", "x")

    assert said in shell.refused("dead", *arguments)


@pytest.mark.parametrize("limit", ["0", "-1", "x"])
def test_a_page_has_at_least_one_letter(shell: Shell, limit: str) -> None:
    ran = shell.dibs("dead", "list", "q", "--limit", limit)

    assert ran.code == 2
    assert "--limit" in ran.err


@pytest.mark.parametrize("age", ["", "7", "d", "-1d", "1w", "1e9d", "nan", "9999999999d", "1 d", "१d"])
def test_an_age_that_is_none_is_told(shell: Shell, age: str) -> None:
    ran = shell.dibs("dead", "list", "q", f"--older={age}")

    assert (ran.code, ran.out) == (2, "")
    assert f"--older: {age!r} is" in ran.err


def test_without_a_terminal_nothing_is_done_unasked(shell: Shell) -> None:
    (job_id,) = shell.make_dead("boom")

    for command in (["drop", "--all"], ["replay", "--all"], ["replay", "--reason", "failed"], ["drop", job_id]):
        assert "--yes" in shell.refused("dead", *command, code=3)

    assert shell.counts("fragile").dead == 1


@pytest.mark.parametrize(("answer", "code", "now"), [("y\n", 0, 0), ("n\n", 3, 2)])
def test_the_question_says_how_many_and_where(shell: Shell, answer: str, code: int, now: int) -> None:
    shell.make_dead("boom", "bang")

    ran = shell.at_terminal("dead", "drop", "--reason", "failed", answer=answer)

    assert ran.code == code, ran.err
    assert "Delete 2 dead letters of fragile at " in ran.out
    assert "queue.db" in ran.out
    assert shell.counts("fragile").dead == now


def test_a_long_list_is_json_too(shell: Shell) -> None:
    ids = shell.make_dead(*map(str, range(60)))

    ran = shell.ok("dead", "list", "fragile", "--json", "--limit", "1000")

    assert [letter["id"] for letter in json.loads(ran.out)] == ids
    assert shell.ok("dead", "list", "fragile", "--json", "--newer", "0s").out == "[]\n"
