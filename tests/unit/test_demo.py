"""The demo's picture and verdict: from what happened to what is shown, to the letter."""

from __future__ import annotations

import msgspec
import pytest

from dibs.demo.history import History, Kill, Run, Sent, collect
from dibs.demo.timeline import PLAIN, Timeline, text_of
from dibs.demo.verdict import Ending, judge
from dibs.trial.evidence import Event
from dibs.trial.table import Line, table

SENT = (Sent("A", 1.0, 9.0), Sent("B", 2.0, 9.0), Sent("C", 3.0, 9.0), Sent("D", 1.0, 12.5))
#: Worker 2 is killed in the middle of C, while worker 1 has nothing to do and worker 3 is busy.
HISTORY = History(
    sent=SENT,
    ready={1: 10.0, 2: 10.0, 3: 10.0},
    runs=(
        Run("A", 1, 10.0, 11.0),
        Run("B", 3, 10.0, 12.0),
        Run("C", 2, 10.0, None),
        Run("C", 1, 11.5, 14.5),
        Run("D", 3, 12.5, 13.5),
    ),
    kill=Kill(2, 11.4),
)
IN_ORDER = Ending(left=0, is_tree_gone=True, is_orderly=True)


def draw(history: History, *, width: int = 62) -> list[str]:
    return [text_of(line) for line in Timeline(history, width=width).lines()]


def verdict(history: History, ending: Ending = IN_ORDER) -> dict[str, Line]:
    return {line.name: line for line in judge(history, ending, restart_limit=0.5)}


def test_the_picture_has_a_row_per_worker_and_a_block_per_run() -> None:
    assert draw(HISTORY) == [
        " sent      ▼ A–C before               ▼ D",
        " worker 1  A█████████▌·····C███████████████████████████████▌",
        "                           ▲ C again, 100 ms after the kill",
        " worker 2  C░░░░░░░░░░░░░░✗ killed (SIGKILL)",
        "",
        " worker 3  B████████████████████▌·····D█████████▌···········",
        "           └──────────┴──────────┴──────────┴──────────┴─────",
        "           0 s        1          2          3          4",
    ]


def test_the_arrow_leads_from_the_killed_worker_to_its_neighbour_wherever_that_is() -> None:
    runs = [msgspec.structs.replace(run, worker={1: 3, 3: 1}.get(run.worker, run.worker)) for run in HISTORY.runs]
    far = [msgspec.structs.replace(run, worker={1: 3, 2: 1, 3: 2}[run.worker]) for run in HISTORY.runs]

    below = draw(msgspec.structs.replace(HISTORY, runs=runs))
    adjacent = draw(msgspec.structs.replace(HISTORY, runs=far, kill=Kill(1, 11.4)))

    assert [line[:9] for line in below[1::2][:3]] == [" worker 1", " worker 2", " worker 3"]
    assert below[4] == "                           ▼ C again, 100 ms after the kill"
    assert [line[:9] for line in adjacent[1::2][:3]] == [" worker 2", " worker 1", " worker 3"]
    assert adjacent[4] == "                           ▼ C again, 100 ms after the kill"


def test_the_picture_can_do_without_box_drawing() -> None:
    lines = [text_of(line) for line in Timeline(HISTORY, width=62, glyphs=PLAIN).lines()]

    assert "\n".join(lines).isascii()
    assert lines[1] == " worker 1  A=========|.....C===============================|"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    worst = Ending(left=3, is_tree_gone=False, is_orderly=False)

    assert all(len(line) <= width for line in draw(HISTORY, width=width))
    assert all(len(text_of(row)) <= 80 for row in table(judge(HISTORY, IN_ORDER, restart_limit=0.5)))
    assert "messages" in text_of(table(judge(HISTORY, worst, restart_limit=0.5))[-1])


def test_the_table_says_what_happened() -> None:
    assert [text_of(row) for row in table(judge(HISTORY, IN_ORDER, restart_limit=0.5))] == [
        " sent                   4    3 before a worker was there, 1 after the kill",
        " done                   4 ✓",
        " lost                   0 ✓",
        " run twice              1 ✓  C, cut off by the kill after 1.40 s",
        " kill to rerun     100 ms ✓  worker 1 was free; limit 500 ms",
        " idle beside work  100 ms ✓  longest for a free slot beside a ready job",
        " makespan          4.50 s    2.3 % above the ideal, 4.40 s (a lower bound)",
        " left over              0 ✓  the killed worker's executor died with it",
    ]


def test_a_job_that_never_ended_is_lost() -> None:
    line = verdict(msgspec.structs.replace(HISTORY, runs=HISTORY.runs[:-1]))["lost"]

    assert (line.value, line.note, line.is_kept) == ("1", "D", False)


def test_a_job_that_ran_twice_though_nobody_was_killed_breaks_a_promise() -> None:
    again = Run("A", 3, 14.0, 15.0)

    line = verdict(msgspec.structs.replace(HISTORY, runs=(*HISTORY.runs, again)))["run twice"]

    assert (line.value, line.is_kept) == ("2", False)


def test_a_late_rerun_breaks_a_promise_unless_no_slot_was_free() -> None:
    late = msgspec.structs.replace(HISTORY.runs[3], start=12.3)
    busy = msgspec.structs.replace(HISTORY.runs[0], end=12.2)

    idle = verdict(msgspec.structs.replace(HISTORY, runs=(*HISTORY.runs[:3], late)))["kill to rerun"]
    taken = verdict(msgspec.structs.replace(HISTORY, runs=(busy, *HISTORY.runs[1:3], late)))["kill to rerun"]

    assert (idle.value, idle.is_kept) == ("900 ms", False)
    # Worker 3 was free from 12.0 on, though worker 1 took the job.
    assert (taken.value, taken.is_kept) == ("900 ms", True)


def test_a_job_that_never_ran_again_breaks_a_promise() -> None:
    line = verdict(msgspec.structs.replace(HISTORY, runs=HISTORY.runs[:3]))["kill to rerun"]

    assert (line.value, line.is_kept) == ("never", False)


def test_a_kill_that_hit_nothing_proves_nothing() -> None:
    runs = [run for run in HISTORY.runs if run.job != "C"]

    assert verdict(msgspec.structs.replace(HISTORY, runs=runs))["run twice"].is_kept is False


def test_a_slot_that_idles_beside_a_ready_job_is_seen() -> None:
    # D is ready from 12.5 on, and worker 3 lies idle from 12.0 until it starts it at 13.4.
    late = msgspec.structs.replace(HISTORY.runs[4], start=13.4, end=14.4)

    line = verdict(msgspec.structs.replace(HISTORY, runs=(*HISTORY.runs[:4], late)))["idle beside work"]

    assert (line.value, line.is_kept) == ("900 ms", False)


def test_the_ideal_is_bound_by_the_work_and_by_the_longest_job() -> None:
    by_job = HISTORY
    work = [Sent(letter, 2.0, 9.0) for letter in "EFGH"]
    by_work = msgspec.structs.replace(HISTORY, sent=(*SENT, *work))

    # C, three seconds long, can begin anew at the kill, 1.4 s after the beginning, but not before.
    assert by_job.ideal == pytest.approx(4.4)
    # 15 s of work and 1.4 wasted; 1.4 s of the killed slot, and two that go on: 1.4 + 2 × 7.5.
    assert by_work.ideal == pytest.approx(7.5)


def test_an_end_belongs_to_the_last_run_of_its_worker() -> None:
    events = [
        Event("ready", 1.0, 1, 11),
        Event("ready", 1.0, 2, 12),
        Event("start", 2.0, 1, 11, "A"),
        Event("start", 3.0, 2, 12, "A"),
        Event("end", 4.0, 2, 12, "A"),
    ]

    history = collect([Sent("A", 1.0, 0.0)], events, Kill(1, 2.5))

    assert history.runs == [Run("A", 1, 2.0, None), Run("A", 2, 3.0, 4.0)]
    assert history.again == Run("A", 2, 3.0, 4.0)
