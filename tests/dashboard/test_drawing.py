"""What pictures are made of: numbers in words, minutes in charts, runs in lanes, a life in parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from dibs.dashboard import lifeline, wording
from dibs.dashboard.charts import Series, bars, lines, nice, spark
from dibs.dashboard.hour import Hour
from dibs.dashboard.timeline import Timeline, lay_out
from dibs.ledger.life import JobInfo, RunInfo
from dibs.ledger.statistics import MINUTE, Minute, PastRun, PastRuns

NOW = 1_700_000_040_000


def run(
    job_id: str, started: int, ended: int, outcome: str = "done", worker: str = "w:1", attempt: int = 1
) -> PastRun:
    """Return a run; times are ms before NOW."""
    return PastRun(
        id=job_id,
        task="t",
        queue="a",
        attempt=attempt,
        started=NOW - started,
        ended=NOW - ended,
        worker=worker,
        outcome=outcome,
    )


def timeline(*runs: PastRun, span: int = 300_000, whole_since: int = 0) -> Timeline:
    """Lay out runs without any worker that lives."""
    return lay_out(PastRuns(list(runs), whole_since or NOW - span), [], span=span, now=NOW)


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (9949, "9.9 s"),
        (10_400, "10 s"),
        (59_499, "59 s"),
        (59_500, "1 min"),
        (125_000, "2 min 5 s"),
        (3_600_000, "1 h"),
        (12_000_000, "3 h 20 min"),
        (353_000_000, "4 d 2 h"),
        (None, "–"),
    ],
)
def test_a_length_of_time_in_words(ms: float | None, words: str) -> None:
    assert wording.duration(ms) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (61_000_000, "61 MB"), (2.5e12, "2.5e+03 GB")]
)
def test_a_number_of_bytes_in_words(count: float, words: str) -> None:
    assert wording.size(int(count)) == words


@given(st.text(max_size=50), st.integers(0, 50))
def test_what_a_filter_makes_of_strange_text_is_no_markup(text: str, limit: int) -> None:
    for made in (wording.short_id(text), wording.status(text), wording.moment(1)):
        assert isinstance(made, Markup)
    assert "<script" not in wording.short_id("<script>" + text)
    assert len(wording.clip("x" * limit, 10)) <= 60


@given(st.binary(max_size=200))
def test_any_bytes_can_be_shown(data: bytes) -> None:
    assert isinstance(wording.pretty(data), str)


def test_deep_json_is_shown_as_it_is() -> None:
    deep = b"[" * 100_000

    assert wording.pretty(deep).startswith("[[[[")


@pytest.mark.parametrize(("value", "top"), [(0, 1), (1, 1), (1.1, 2), (3, 5), (7, 10), (101, 200), (1000, 1000)])
def test_a_scale_ends_at_a_round_number(value: float, top: float) -> None:
    assert nice(value) == top


def test_bars_stand_on_each_other_and_the_smallest_is_seen() -> None:
    drawn = bars(
        [NOW], [Series("done", "done", [1_000_000]), Series("dead", "dead", [1])], summary="<all>", say=["<a> & b"]
    )

    assert drawn.top == 2_000_000
    assert 'class="done" x="1" y="50.00" width="8" height="50.00"' in drawn.svg
    assert 'class="dead" x="1" y="47.50" width="8" height="2.50"' in drawn.svg
    assert 'aria-label="&lt;all&gt;"' in drawn.svg
    assert "&lt;a&gt; &amp; b</title>" in drawn.svg


def test_what_nobody_counted_is_a_gap_in_the_line() -> None:
    drawn = lines([NOW] * 5, [Series("depth", "depth", [1, 2, None, 4, None])], summary="", say=[""] * 5)

    assert drawn.svg.count("<polyline") == 2
    assert spark([None, None], "depth", summary="").count("<polyline") == 0


def test_an_hour_sums_up_queues_and_leaves_out_what_is_older() -> None:
    start = NOW - NOW % MINUTE
    hour = Hour(
        [
            Minute(start=start, queue="a", done=3, dead=1, runs=4, ran=400, waits=2, waited=100, longest=80, depth=5),
            Minute(start=start, queue="b", retried=1, runs=1, ran=100),
            Minute(start=start - 60 * MINUTE, queue="a", done=99),
        ],
        NOW,
    )

    totals = hour.totals()
    assert (totals.done, totals.outcomes, totals.failures) == (3, 5, 2)
    assert (totals.wait, totals.longest, totals.run) == (50, 80, 100)
    assert (hour.ended()[-1], hour.ended()[0], len(hour.starts)) == (5, 0, 60)
    assert (hour.depths()[-1], hour.depths()[-2], hour.waits()[-2]) == (5, None, None)
    assert hour.by_queue()["b"].totals().wait is None


def test_runs_at_the_same_time_lie_in_lanes_of_their_own() -> None:
    drawn = timeline(run("a", 100_000, 50_000), run("b", 90_000, 40_000), run("c", 50_000, 10_000))

    tops = {bar.id: bar.top for bar in drawn.bars}
    assert tops["a"] == tops["c"] != tops["b"]
    assert [(band.name, band.is_alive) for band in drawn.bands] == [("w:1", False)]


def test_a_lost_run_is_linked_with_the_one_that_came_instead() -> None:
    drawn = timeline(
        run("a", 100_000, 80_000, "lost", "w:1"), run("a", 79_000, 60_000, "done", "w:2"), run("b", 90_000, 70_000)
    )

    (link,) = drawn.links
    lost, after = (next(bar for bar in drawn.bars if (bar.id, bar.outcome) == ("a", one)) for one in ("lost", "done"))
    assert link.x1 == pytest.approx(lost.left + lost.width, abs=0.02)
    assert link.x2 == after.left
    assert link.y1 < link.y2


def test_short_runs_side_by_side_are_one_bar_but_a_failure_among_them_is_not() -> None:
    runs = [run(f"job {number}", 1000 * number + 90, 1000 * number) for number in range(1, 100) if number != 50]

    drawn = timeline(*runs, run("it", 50_090, 50_000, "dead"), span=3_600_000)

    assert [bar.runs for bar in drawn.bars if bar.outcome == "done"] == [98]
    assert [bar.id for bar in drawn.bars] == [bar.id for bar in drawn.bars if bar.outcome == "done"] + ["it"]


def test_a_picture_has_no_more_bars_than_can_be_told_apart() -> None:
    outcomes = ("done", "dead", "retry")
    runs = [run(f"job {at}", 1000 * at + 90, 1000 * at, outcomes[at % 3]) for at in range(1, 3000)]

    drawn = timeline(*runs, span=3_600_000)

    assert {bar.outcome for bar in drawn.bars} == set(outcomes)
    assert len(drawn.bars) == 3


def test_a_run_of_no_length_is_seen() -> None:
    (bar,) = timeline(run("it", 50_000, 50_000, "dead"), span=3_600_000).bars

    assert bar.width > 0


def test_runs_whose_worker_died_are_never_drawn_together() -> None:
    runs = [run(f"job {at}", 1000 * at + 90, 1000 * at, "lost") for at in range(1, 20)]

    assert len(timeline(*runs, span=3_600_000).bars) == 19


def test_a_run_that_began_before_the_window_begins_at_its_edge() -> None:
    (bar,) = timeline(run("a", 900_000, 150_000)).bars

    assert bar.left == 0
    assert 0 < bar.width < 100


def test_what_was_left_out_is_veiled() -> None:
    assert timeline(run("a", 900, 100)).veil == 0
    assert 70 < timeline(run("a", 900, 100), whole_since=NOW - 60_000).veil < 90


def job(status: str, **fields: object) -> JobInfo:
    """Return what the ledger says of a job."""
    fixed = {"id": "1", "task": "t", "queue": "a", "status": status, "priority": 4, "attempt": 1}
    return JobInfo(**{**fixed, **fields})  # type: ignore[arg-type]  # a test's own keyword arguments


def test_a_life_is_waiting_and_runs_in_turn() -> None:
    runs = [
        RunInfo(attempt=1, started=NOW - 800, ended=NOW - 600, worker="w", outcome="retry"),
        RunInfo(attempt=2, started=NOW - 300, ended=NOW, worker="w", outcome="done"),
    ]

    drawn = lifeline.draw(job("done", enqueued=NOW - 1000, started=NOW - 300, ended=NOW, runs=runs), NOW + 5000)

    assert [(part.kind, part.took) for part in drawn.parts] == [
        ("wait", 200),
        ("retry", 200),
        ("wait", 300),
        ("done", 300),
    ]
    assert [part.width for part in drawn.parts] == [20, 20, 30, 30]
    assert not drawn.is_stretched


def test_a_short_run_in_a_long_life_is_seen() -> None:
    runs = [RunInfo(attempt=1, started=NOW - 5, ended=NOW, worker="w", outcome="done")]

    drawn = lifeline.draw(job("done", enqueued=NOW - 86_400_000, runs=runs), NOW)

    assert drawn.parts[-1].width >= 2
    assert sum(part.width for part in drawn.parts) == pytest.approx(100)
    assert drawn.is_stretched


@pytest.mark.parametrize(
    ("status", "fields", "kinds"),
    [
        ("ready", {"enqueued": NOW - 10}, ["wait"]),
        ("delayed", {"enqueued": NOW - 10, "due": NOW + 10}, ["delay"]),
        ("running", {"enqueued": NOW - 10, "started": NOW - 5}, ["wait", "running"]),
        ("running", {"started": NOW - 5}, ["running"]),
        ("running", {}, ["running"]),
        ("cancelled", {"enqueued": NOW - 10, "ended": NOW}, ["wait"]),
        ("dead", {}, []),
    ],
)
def test_a_life_without_a_run_that_is_over(status: str, fields: dict[str, object], kinds: list[str]) -> None:
    assert [part.kind for part in lifeline.draw(job(status, **fields), NOW).parts] == kinds


@given(st.lists(st.tuples(st.integers(-10, 10**9), st.integers(-10, 10**9)), max_size=30), st.integers(0, 10**9))
def test_any_clocks_make_a_picture(times: list[tuple[int, int]], enqueued: int) -> None:
    runs = [
        RunInfo(attempt=place, started=started, ended=ended, worker="w", outcome="retry")
        for place, (started, ended) in enumerate(times)
    ]

    parts = lifeline.draw(job("ready", enqueued=enqueued, runs=runs), NOW).parts

    assert sum(part.width for part in parts) == pytest.approx(100, abs=0.1)
    assert all(part.width > 0 for part in parts)
