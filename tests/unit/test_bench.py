"""The bench's own sums and tables, and a run of it that is real but tiny."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import venvs
from bench.figures import Figure, Metric, Reading, in_turn, percentile
from bench.job import RECORD, WARM_UP
from bench.picture import svg
from bench.processes import Tree
from bench.records import Record, Records, summary
from bench.report import BEGIN, END, cell, losses, markdown, replace_section, text
from bench.results import Results, load, save
from bench.scenario import FULL, QUICK, is_asked, why_not
from bench.scenarios import SCENARIOS
from bench.system import Load, Store
from bench.systems import SYSTEMS
from bench.targets import targets

ROOT = Path(__file__).parent.parent.parent
RATE = Metric("slots", "8 slots", "jobs/s")
WAIT = Metric("p50", "p50", "ms", more_is_better=False, digits=1)
SECOND = 1_000_000_000


def figure(*values: float | None, lost: int = 0, note: str = "") -> Figure:
    return Figure([Reading(value, lost=lost, note=note) for value in values])


def results(**medians: float) -> Results:
    """Return results with one metric, the drain of eight slots, for these systems."""
    found = Results(metrics={"drain.slots": RATE}, versions={name: {name: "1.0"} for name in medians})
    for name, value in medians.items():
        found.add("drain.slots", name, Reading(value))
    return found


# Figures


def test_a_figure_is_the_middle_of_its_readings_with_the_lowest_and_the_highest() -> None:
    found = figure(30.0, 10.0, 20.0)

    assert (found.median, found.lowest, found.highest) == (20.0, 10.0, 30.0)


def test_a_reading_without_a_value_counts_for_nothing_but_its_note_and_what_it_lost() -> None:
    found = figure(None, 10.0, None, lost=2, note="not within 90 s")

    assert found.median == 10.0
    assert found.lost == 6
    assert found.notes == ["not within 90 s"]
    assert figure(None).median is None


def test_each_round_begins_with_the_next_system_and_leaves_none_out() -> None:
    rounds = [in_turn(["a", "b", "c"], turn) for turn in range(4)]

    assert rounds == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]
    assert in_turn([], 3) == []


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 201)]

    assert percentile(values, 50) == 100.0
    assert percentile(values, 99) == 198.0
    assert percentile([7.0], 99) == 7.0
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


# Records


def test_a_drain_is_timed_from_the_first_start_to_the_last_end() -> None:
    records = [Record(0, 2 * SECOND, 3 * SECOND, 1), Record(1, 1 * SECOND, 5 * SECOND, 1)]

    found = summary(records, 2, is_cut=False)

    assert found.seconds == 4.0
    assert found.rate == 0.5
    assert found.lost == 0


def test_a_job_that_ran_twice_counts_once_and_one_that_never_ended_is_lost() -> None:
    records = [Record(0, 0, 1, 1), Record(0, 2, 3, 2), Record(1, 4, 0, 1)]

    found = summary(records, 2, is_cut=False)

    assert (found.done, found.lost) == (1, 1)


def test_what_a_slow_system_had_no_time_for_is_not_lost() -> None:
    found = summary([Record(0, 0, SECOND, 1)], 100, is_cut=True)

    assert (found.done, found.lost, found.is_cut) == (1, 0, True)


def test_records_leave_out_warm_ups_and_a_line_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "records"
    path.write_bytes(RECORD.pack(1, 2, 3, 4) + RECORD.pack(WARM_UP, 5, 6, 7) + b"half a record")
    records = Records(path)

    assert RECORD.size == struct.calcsize("<QQQQ") == 32
    assert records.read() == [Record(1, 2, 3, 4)]
    assert records.warm_ups() == [Record(WARM_UP, 5, 6, 7)]


def test_what_is_missing_when_nothing_happens_any_more_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "records"
    path.write_bytes(RECORD.pack(0, 0, SECOND, 1))

    found = Records(path).drain(3, limit=30.0, quiet=0.1)

    assert (found.done, found.lost, found.is_cut) == (1, 2, False)


# Systems and scenarios


def test_each_system_says_how_it_is_started_and_what_makes_it_durable() -> None:
    for system in SYSTEMS.values():
        commands = system.worker(Load(slots=8, executors=2, name="one", url="place"))

        assert system.durability
        assert commands
        assert all(command for command in commands)
        assert (ROOT / f"{system.app.replace('.', '/')}.py").exists()


def test_what_a_system_lacks_is_something_that_is_asked() -> None:
    asked = set(SCENARIOS) | {
        f"{name}.{metric.key}"
        for name, scenario in SCENARIOS.items()
        for part in scenario.parts(FULL)
        for metric in part.metrics
    }

    assert {key for system in SYSTEMS.values() for key in system.lacks} <= asked


def test_a_part_that_a_system_lacks_is_not_asked_of_it() -> None:
    one, _, bulk = SCENARIOS["enqueue"].parts(QUICK)

    assert why_not(SYSTEMS["huey"], SCENARIOS["enqueue"], bulk) == "has no bulk hand-over"
    assert why_not(SYSTEMS["huey"], SCENARIOS["enqueue"], one) is None


def test_dibs_without_its_ledger_is_asked_where_the_ledger_has_work() -> None:
    asked = {name for name, scenario in SCENARIOS.items() if is_asked(SYSTEMS["dibs-no-ledger"], scenario)}

    assert asked == {"enqueue", "drain"}


def test_a_target_asks_for_something_that_is_measured() -> None:
    everything = Results()
    for name, scenario in SCENARIOS.items():
        for part in scenario.parts(FULL):
            for metric in part.metrics:
                for system in SYSTEMS.values():
                    if is_asked(system, scenario):
                        everything.add(f"{name}.{metric.key}", system.name, Reading(1.0))

    assert [target.what for target in targets() if target.look(everything) is None] == []


# The report


def test_a_cell_has_the_median_the_spread_and_what_was_lost() -> None:
    assert cell(figure(1000.0, 3000.0, 2000.0), RATE) == "2,000 (1,000 to 3,000)"
    assert cell(figure(1.25), WAIT) == "1.2"
    assert cell(figure(5.0, lost=3), RATE) == "5, 3 lost"
    assert cell(figure(None, note="not within 90 s", lost=1), WAIT) == "none\\*, 1 lost"
    assert cell(None, RATE) == "–"


def test_the_best_peer_is_one_that_lost_nothing() -> None:
    found = results(dibs=1000.0, huey=900.0, potatoq=100.0)
    found.add("redelivery.median", "huey", Reading(None, lost=1))

    [target] = [each for each in targets() if each.store is Store.SQLITE and "best peer" in each.unit]

    assert target.look(found) == 10.0
    assert target.verdict(10.0) == "reached: 1.00 × the goal"
    assert target.verdict(5.0) == "missed: 0.50 × the goal"


def test_a_limit_is_missed_by_what_lies_above_it() -> None:
    [target] = [each for each in targets() if each.store is Store.RABBITMQ and each.what == "latency, p50"]

    assert target.verdict(1.0) == "reached: 0.50 × the limit"
    assert target.verdict(3.0) == "missed: 1.50 × the limit"


def test_the_worst_case_is_the_worst_of_all_rounds() -> None:
    found = Results()
    for value in (0.1, 0.9, 0.1):
        found.add("redelivery.worst", "dibs", Reading(value))

    [target] = [each for each in targets() if each.store is Store.SQLITE and each.what == "redelivery, worst"]

    assert target.look(found) == 0.9


def test_the_report_says_where_dibs_loses() -> None:
    found = results(dibs=1000.0, huey=2000.0, sqlite3=3000.0, potatoq=500.0, celery=9000.0)

    lines = list(losses(found))

    assert [line.partition(": ")[2].partition(",")[0] for line in lines] == ["huey 2", "sqlite3 (no work queue) 3"]
    assert "a worker's death loses it" in lines[0]


def test_dibs_does_not_lose_to_itself() -> None:
    found = results(**{"dibs-rabbitmq": 1000.0, "dibs-no-ledger": 2000.0})

    assert list(losses(found)) == []
    assert "dibs-no-ledger (RabbitMQ)" in text(found)


def test_a_peer_that_failed_is_shown_with_the_reason() -> None:
    found = results(dibs=1000.0)
    found.absent["taskito"] = "pip install taskito failed"
    found.versions["huey"] = {"huey": "3.5"}
    found.excuse("drain.slots", "huey", "failed: The worker did no job within 10 s.")

    for report in (text(found), markdown(found, "benchmarks.svg")):
        assert "taskito (SQLite) was not run: pip install taskito failed" in report
        assert "huey, 8 slots: failed: The worker did no job within 10 s." in report


def test_a_quick_run_says_that_its_figures_mean_nothing() -> None:
    found = results(dibs=1000.0)
    found.is_quick = True

    assert "mean nothing" in text(found)
    assert "mean nothing" not in text(results(dibs=1000.0))


def test_the_table_of_the_docs_has_a_row_for_each_system_and_dibs_first() -> None:
    rows = [
        line
        for line in markdown(results(sqlite3=3.0, huey=2.0, dibs=1.0), "a.svg").splitlines()
        if "(SQLite) |" in line
    ]

    assert rows == ["| dibs (SQLite) | 1 |", "| huey (SQLite) | 2 |", "| sqlite3 (SQLite) | 3 |"]


def test_a_section_replaces_what_stood_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    replace_section(page, "new")

    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="bench:begin"):
        replace_section(page, "new")


def test_the_page_of_the_docs_has_its_marks() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()

    assert page.index(BEGIN) < page.index(END)


def test_the_picture_is_well_formed_and_draws_the_best_first() -> None:
    drawn = ElementTree.fromstring(svg(results(huey=2000.0, dibs=1000.0)))

    bars = [part.get("class") for part in drawn.iter() if part.tag.endswith("rect")]
    assert bars == ["bar", "dibs"]


def test_results_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    found = results(dibs=1000.0, huey=2000.0)
    found.add("drain.slots", "dibs", Reading(None, lost=2, note="cut"))
    found.excuse("drain.slots", "taskito", "failed")

    save(found, tmp_path / "results.json")

    assert load(tmp_path / "results.json") == found


# What is real


def test_a_failed_installation_says_why(tmp_path: Path) -> None:
    with pytest.raises(venvs.InstallFailed, match=r"pip install .*nowhere\.whl failed: \w"):
        venvs.interpreter([str(tmp_path / "nowhere.whl")], tmp_path)

    assert not list(tmp_path.glob("*/.installed"))


def test_an_environment_is_made_once_for_the_same_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> str:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()
        return ""

    monkeypatch.setattr(venvs, "_run", run)

    pythons = [venvs.interpreter(["huey"], tmp_path), venvs.interpreter(["huey"], tmp_path)]
    other = venvs.interpreter(["huey", "rq"], tmp_path)

    assert pythons[0] == pythons[1] != other
    assert len([command for command in commands if "install" in command]) == 2


def test_a_tree_is_killed_with_what_left_its_session(tmp_path: Path) -> None:
    # The second sleep has another session and, its parent gone, another parent: only its environment tells.
    script = "sleep 600 & (setsid sleep 600 &) ; wait"
    tree = Tree([["sh", "-c", script]], environment=dict(os.environ), directory=tmp_path, log=tmp_path / "log")
    deadline = time.monotonic() + 20
    while len(members := tree.members()) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(members) == 3
    assert tree.memory_bytes() > 0
    assert tree.cpu_seconds() > 0

    tree.kill()

    assert tree.members() == set()
    assert [pid for pid in members if Path(f"/proc/{pid}").exists() and pid in tree.members()] == []


def run_bench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "bench",
        "--systems",
        "dibs,sqlite3",
        "--quick",
        "--json",
        "--folder",
        str(folder),
    ]
    return subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_the_bench_runs_dibs_beside_the_bare_driver(tmp_path: Path) -> None:
    ran = run_bench(tmp_path, "--scenarios", "enqueue,payload")

    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["is_quick"]
    assert found["absent"] == {}
    assert found["reasons"] == {}
    assert {"enqueue.one", "enqueue.threads", "enqueue.bulk", "payload.drain-1024"} <= found["figures"].keys()
    for by_system in found["figures"].values():
        assert by_system.keys() == {"dibs", "sqlite3"}
        for [reading] in (figure["readings"] for figure in by_system.values()):
            assert reading["value"] > 0
            assert reading["lost"] == 0
    assert load(tmp_path / "results.json").median("enqueue.one", "dibs")


def test_a_run_that_was_cut_off_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    first = json.loads(run_bench(tmp_path, "--scenarios", "enqueue").stdout)

    ran = run_bench(tmp_path, "--scenarios", "enqueue,startup", "--go-on")

    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert {key: found["figures"][key] for key in first["figures"]} == first["figures"]
    assert found["figures"].keys() - first["figures"].keys() == {"startup.import", "startup.help", "startup.first"}
    assert ", went on at " in found["conditions"]["Date"]


def test_figures_of_another_commit_are_not_mixed_in(tmp_path: Path) -> None:
    save(Results(is_quick=True, conditions={"dibs at": "0123abc"}), tmp_path / "results.json")

    ran = run_bench(tmp_path, "--scenarios", "enqueue", "--go-on")

    assert ran.returncode == 2
    assert "The results are of dibs at 0123abc" in ran.stderr


def test_there_may_be_nothing_to_go_on_with(tmp_path: Path) -> None:
    ran = run_bench(tmp_path, "--scenarios", "enqueue", "--go-on")

    assert ran.returncode == 2
    assert f"{tmp_path / 'results.json'} is not there" in ran.stderr
