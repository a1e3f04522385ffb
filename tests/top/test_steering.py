"""What keys do."""

from __future__ import annotations

import pytest

from dibs.top.keys import names
from dibs.top.panes import Row, rows
from dibs.top.steering import chosen, press
from dibs.top.view import PANES, Deed, Pane, State, View
from tests.top.views import busy


def after(*keys: str, view: View | None = None, state: State | None = None) -> tuple[State, list[Deed]]:
    """Return what the user is at after these keys, and what was done."""
    shown: dict[Pane, list[Row]] = {pane: rows(pane, view or busy()) for pane in PANES}
    state, deeds = state or State(), list[Deed]()
    for key in keys:
        state, deed = press(state, key, shown, page=5)
        if deed is not None:
            deeds.append(deed)
    return state, deeds


@pytest.mark.parametrize(
    ("keys", "deed"),
    [
        (["p"], Deed("pause", "default", name="default")),
        (["down", "p"], Deed("resume", "mail", name="mail")),
        (["2", "down", "c"], Deed("cancel", "job-2", name="tasks.report job-2")),
        (["tab", "tab", "r"], Deed("replay", "dead-1", queue="mail", name="tasks.welcome dead-1")),
    ],
)
def test_a_deed_is_done_once_it_is_confirmed(keys: list[str], deed: Deed) -> None:
    asked, done_before = after(*keys)
    state, done = after("y", state=asked)

    assert (asked.question, done_before) == (deed, [])
    assert (state.question, done) == (None, [deed])
    assert after("y", state=state)[1] == []


@pytest.mark.parametrize("key", ["n", "escape", "\n", "q", "Y", "p"])
def test_any_key_but_y_is_a_no(key: str) -> None:
    state, done = after("p", key)

    assert (state.question, state.said, state.is_quitting, done) == (None, "left alone", False, [])


@pytest.mark.parametrize("keys", [["c"], ["r"], ["2", "p"], ["2", "c"], ["3", "down", "r"]])
def test_what_can_not_be_done_to_the_chosen_row_says_what_can(keys: list[str]) -> None:
    state, done = after(*keys, "y")

    assert done == []
    assert after(*keys)[0].said.startswith("Choose a ")
    assert state.question is None


def test_with_nothing_there_no_key_does_harm() -> None:
    for key in [*"pcrjkgGh?q123y", "tab", "back-tab", "up", "down", "page-up", "page-down", "home", "end", "\x00"]:
        state, done = after(key, view=busy(look=None))

        assert (state.question, done) == (None, [])


def test_the_cursor_stays_within_its_pane_and_on_its_row() -> None:
    assert after("3", *["down"] * 5)[0].cursor("failures").key == "dead-2"
    assert after("3", *["down"] * 5, "up")[0].cursor("failures").key == "dead-1"
    state, _ = after("down", "tab", "back-tab", "end", "home", "page-down")

    row = chosen(state, rows("queues", busy()))

    assert row is not None
    assert row.key == "mail"


def test_help_is_left_with_any_key() -> None:
    assert after("?")[0].is_help
    state, _ = after("?", "q")
    assert (state.is_help, state.is_quitting) == (False, False)
    assert after("q")[0].is_quitting


def test_keys_are_known_in_the_forms_that_terminals_send() -> None:
    assert names("\x1b[A\x1bOB\x1b[5~\x1b[Zq\t\x1b") == ["up", "down", "page-up", "back-tab", "q", "tab", "escape"]
    assert names("\x1b[1;5Pj\x1b[200~") == ["j"]
    assert names("é\x1b[<0;12;5M") == ["é"]
