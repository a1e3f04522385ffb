"""The drawing of a view: what stands where, at several sizes, whatever strangers wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dibs.top.cells import Line, plain, width_of
from dibs.top.drawing import draw, share, snapshot
from dibs.top.look import Look
from dibs.top.terminal import STYLES
from dibs.top.view import Cursor, Deed, State, View
from tests.top.views import NOW, busy, failure, queue, running, worker

AT_80 = """\
dibs top  /srv/dibs.db                                                  08:00:00
1,237 ready   2 of 4 slots busy   120/s done   0.5/s failed   1 dead
▸ QUEUES 2                ready running delayed  dead    done   change consumers
▸ default                 1,234       2       7     0   118/s    +12/s         2
  mail           paused       3       0       0     1     0/s                  0

  WORKERS 1                                slots    done   failed   memory    up
  web1:4711  default, mail                   2/4   120/s    0.5/s    45 MB    2h
      3m10s  tasks.report               default      attempt 3
       3.2s  tasks.resize               default      ████░░░░░░ 45% page 45

  FAILURES 2       task                       error
  07:59:59  dead   tasks.welcome              ConnectionError: smtp.example.com
  07:59:58  retry  tasks.welcome              TimeoutError








 queue default
 p pause/resume   ↑↓ choose   Tab pane   ? help   q quit"""

HOSTILE = "\x1b[2Jevil\n\u202etxt.exe\t世界 e\u0301"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day are those of the reader: here of one in Greenwich."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def text_of(lines: list[Line]) -> str:
    return "\n".join(map(plain, lines))


def crowd(count: int = 60, **fields: object) -> View:
    """More of everything than fits."""
    look = Look(
        at=NOW,
        queues=[queue(f"queue-{number:02}") for number in range(count)],
        workers=[worker(f"web{number}:1", running(number)) for number in range(count)],
        failures=[failure(number) for number in range(count)],
    )
    return busy(look=look, **fields)


def test_a_busy_broker_at_80_by_24() -> None:
    assert text_of(draw(busy(), 80, 24)) == AT_80


def test_a_snapshot_has_all_of_it_and_nothing_for_keys() -> None:
    lines = text_of(snapshot(crowd(), 80)).splitlines()

    assert sum("queue-" in line for line in lines) == 60
    assert sum("tasks.welcome" in line for line in lines) == 60
    assert not any("▸" in line or "quit" in line for line in lines)


@pytest.mark.parametrize("height", [1, 3, 5, 10, 14, 24, 40, 200])
@pytest.mark.parametrize("width", [1, 20, 60, 80, 120, 300])
@pytest.mark.parametrize("view", [busy(), crowd(), busy(look=None), busy(state=State(is_help=True))])
def test_it_fills_the_screen_exactly_and_is_never_too_wide(view: View, width: int, height: int) -> None:
    lines = draw(view, width, height)

    assert len(lines) == height
    assert max(width_of("".join(text for text, _ in line)) for line in lines) <= width


@pytest.mark.parametrize("width", [20, 80, 120])
def test_strangers_text_stays_in_its_place(width: int) -> None:
    look = Look(
        at=NOW,
        queues=[queue(HOSTILE)],
        workers=[worker(HOSTILE, running(1, task=HOSTILE, queue=HOSTILE), queues=[HOSTILE], version=HOSTILE)],
        failures=[failure(1, task=HOSTILE, queue=HOSTILE, id=HOSTILE)],
    )

    for pane in ("queues", "workers", "failures"):
        lines = draw(busy(look=look, state=State(pane=pane)), width, 24)
        shown = "".join(text for line in lines for text, _ in line)
        assert shown.isprintable()
        assert max(width_of("".join(text for text, _ in line)) for line in lines) <= width
    assert "\\x1b[2Jevil" in text_of(snapshot(busy(look=look), 200))


def test_wide_signs_take_two_columns_and_accents_none() -> None:
    assert (width_of("世界"), width_of("e\u0301"), width_of("abc")) == (4, 1, 3)


def test_the_chosen_row_is_in_sight_and_the_title_says_where_that_is() -> None:
    view = crowd(state=State(pane="failures", cursors={"failures": Cursor("dead-50", 50)}))

    shown = text_of(draw(view, 80, 24))

    assert "job dead-50 · queue mail" in shown
    assert "▸ FAILURES " in shown
    assert " of 60" in shown


def test_a_row_that_is_gone_leaves_its_place_to_the_next_one() -> None:
    view = busy(state=State(pane="failures", cursors={"failures": Cursor("gone", 1)}))

    assert "job dead-2" in text_of(draw(view, 80, 24))


def test_a_low_terminal_shows_the_pane_in_use_alone() -> None:
    shown = text_of(draw(crowd(state=State(pane="workers")), 80, 10))

    assert "WORKERS" in shown
    assert "QUEUES" not in shown


def test_rows_that_one_pane_does_not_need_go_to_the_others() -> None:
    assert share([2, 3, 4], 0, 30) == [2, 3, 4]
    assert share([50, 1, 50], 0, 30) == [19, 1, 10]
    assert share([50, 50, 50], 2, 31) == [10, 10, 11]
    assert share([5, 5, 5], 0, -3) == [0, 0, 0]


def test_a_broker_that_is_gone_is_named_above_what_was_seen_last() -> None:
    text = " ".join(["refused"] * 20)

    lines = text_of(draw(busy(trouble=text), 80, 24)).splitlines()

    assert lines[1] == "no answer; shown is what was seen at 08:00:00"
    assert " ".join(lines[2:4]) == text
    assert lines[5].startswith("▸ default")


def test_without_a_ledger_it_does_not_say_that_there_are_no_workers() -> None:
    look = Look(at=NOW, queues=[queue("default")], has_ledger=False, note="No workers to be seen: ledger=off.")

    shown = text_of(draw(busy(look=look), 80, 24))

    assert "ledger=off" in shown
    assert "workers can't be seen" in shown
    assert "failures can't be seen" in shown


def test_what_is_to_be_done_is_asked_first() -> None:
    shown = draw(busy(state=State(question=Deed("pause", "default", name="default"))), 80, 24)

    assert plain(shown[-1]) == " Pause queue default? y/n"


def test_red_is_for_what_wants_to_be_looked_at() -> None:
    look = Look(at=NOW, queues=[queue("dead", dead=1), queue("lonely", ready=5, consumers=0), queue("fine", ready=5)])

    lines = draw(busy(look=look), 80, 24)

    red = {plain(line).split()[0]: [text.strip() for text, style in line if "bad" in style] for line in lines[4:6]}
    assert red == {"lonely": ["0"], "fine": []}
    assert ("1", "bad title") in [(text.strip(), style) for text, style in lines[3]]


def test_every_style_is_one_that_a_terminal_has() -> None:
    used = {
        name
        for view in (busy(), crowd())
        for line in draw(view, 80, 24)
        for _, style in line
        for name in style.split()
    }

    assert used <= STYLES.keys()
