"""A page that stays open: news come without a reload, the broker goes and comes back, and nothing is disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from dibs import BrokerUnavailable, Dibs
from dibs.outcome import Dead, Done
from tests.dashboard.looking import eye
from tests.dashboard.scenes import Scene, a_run, busy
from tests.dashboard.serving import served
from tests.waiting import until
from tests.workers import Worker

TASKS = """\
import time
from pathlib import Path
from dibs import Dibs

app = Dibs()


@app.task(name="hang_once")
def hang_once(path: str) -> None:
    if not Path(path).exists():
        Path(path).touch()
        time.sleep(600)


@app.task(name="slow")
def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task(name="fail", queue="fragile", retries=0)
def fail(text: str) -> None:
    raise ValueError(text)
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Dibs, dict[str, str]]]:
    """An app on an SQLite file, and the environment that a worker of it needs."""
    (tmp_path / "busy_tasks.py").write_text(TASKS)
    url = f"sqlite:///{tmp_path}/queue.db"
    app = Dibs(url)

    @app.task(name="slow")
    def slow(seconds: float) -> float:
        return seconds

    @app.task(name="fail", queue="fragile", retries=0)
    def fail(text: str) -> None:
        raise ValueError(text)

    @app.task(name="hang_once")
    def hang_once(path: str) -> None:
        return None

    yield app, {"DIBS_URL": url, "PYTHONPATH": str(tmp_path)}
    app.close()


def test_what_workers_do_is_seen_without_a_reload(
    browser: Browser, world: tuple[Dibs, dict[str, str]], tmp_path: Path
) -> None:
    app, env = world
    slow, fail = app.get_task("slow"), app.get_task("fail")

    with (
        served(app) as dashboard,
        eye(browser) as tab,
        Worker("busy_tasks:app", "-p", "1", directory=tmp_path / "logs", env=env) as worker,
    ):
        worker.wait_ready()
        page = tab.open(f"{dashboard.url}/")
        page.evaluate("window.isSame = true")

        slow.enqueue(0.0)
        fail.enqueue("it was <b>me</b>")

        expect(page.locator("[data-live=live_failures]")).to_contain_text("ValueError: it was <b>me</b>")
        long = slow.enqueue(60.0)
        expect(page.locator("[data-live=live_timeline] .bar rect.running")).to_have_count(1)
        expect(page.locator("[data-live=live_nav] .badge")).to_have_text("1")
        expect(page.locator("[data-live=live_timeline] .bar rect.done")).to_have_count(1)
        assert page.evaluate("window.isSame")

        page = tab.open(f"{dashboard.url}/job?id={long.id}")
        expect(page.locator(".title .status")).to_contain_text("running")
        tab.check()
        tab.check_access()


def test_a_worker_that_is_killed_is_seen_with_the_job_that_another_one_took(
    browser: Browser, world: tuple[Dibs, dict[str, str]], tmp_path: Path
) -> None:
    app, env = world
    begun = tmp_path / "begun"
    job = app.get_task("hang_once").enqueue(str(begun))

    with served(app) as dashboard, eye(browser) as tab:
        page = tab.open(f"{dashboard.url}/")
        with Worker("busy_tasks:app", "-p", "1", directory=tmp_path / "logs", env=env) as first:
            until(begun.exists)
            with Worker("busy_tasks:app", "-p", "1", directory=tmp_path / "logs", env=env) as second:
                second.wait_ready()
                first.kill()

                expect(page.locator(".timeline rect.lost")).to_have_count(1)
                expect(page.locator(".timeline .link")).to_have_count(1)
                expect(page.locator(".timeline .bar rect.done")).to_have_count(1)

        page = tab.open(f"{dashboard.url}/job?id={job.id}")
        steps = page.locator(".steps").inner_text()
    assert "lost" in steps
    assert "done" in steps


def test_a_broker_that_goes_away_is_told_and_its_return_too(
    browser: Browser, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(scene)

    def refuse(*_: object) -> None:
        raise BrokerUnavailable("amqp://host is not reachable.")

    with served(scene.app) as dashboard, eye(browser) as tab:
        page = tab.open(f"{dashboard.url}/queues")
        tab.wait_live()
        with monkeypatch.context() as gone:
            gone.setattr(scene.broker, "queues", refuse)
            expect(page.locator("#gone")).to_have_text("amqp://host is not reachable.")
            expect(page.locator("#live")).to_have_attribute("data-state", "lost")
            assert page.get_by_role("row").count() > 1  # what was last known stays

            other = tab.page.context.new_page()
            answer = other.goto(f"{dashboard.url}/jobs")
            assert answer is not None
            assert answer.status == 503
            expect(other.locator("#gone")).to_have_text("amqp://host is not reachable.")

        expect(page.locator("#gone")).to_be_hidden()
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
        expect(other.locator("table.jobs")).to_be_visible()


def test_a_dashboard_that_ends_is_told_and_its_return_too(browser: Browser, scene: Scene) -> None:
    busy(scene)

    with eye(browser) as tab:
        with served(scene.app) as dashboard:
            page = tab.open(f"{dashboard.url}/queues")
            tab.wait_live()

        expect(page.locator("#gone")).to_contain_text("The dashboard can’t be reached")
        expect(page.locator("#live")).to_have_attribute("data-state", "lost")


def test_news_leave_alone_what_somebody_is_at(browser: Browser, scene: Scene) -> None:
    busy(scene)

    with served(scene.app) as dashboard, eye(browser) as tab:
        page = tab.open(f"{dashboard.url}/dead")
        tab.wait_live()
        box = page.locator("input[name=letter]").nth(1)
        ticked = box.get_attribute("value")
        box.check()
        box.focus()

        scene.ran("hooks", Dead("failed", "a new one", run=a_run()), "shop.deliver")

        expect(page.locator("input[name=letter]")).to_have_count(4)
        assert page.evaluate(
            "[...document.querySelectorAll('input[name=letter]:checked')].map((box) => box.value)"
        ) == [ticked]
        assert page.evaluate("document.activeElement.value") == ticked


def test_updates_can_be_paused(browser: Browser, scene: Scene) -> None:
    busy(scene)

    with served(scene.app) as dashboard, eye(browser) as tab:
        page = tab.open(f"{dashboard.url}/jobs")
        tab.wait_live()
        page.locator("#live").click()
        expect(page.locator("#live")).to_have_text("Paused")
        until(lambda: dashboard.site.watch.is_idle)

        scene.ran("default", Done(), "shop.late")
        page.locator("#live").click()

        expect(page.locator("table.jobs")).to_contain_text("shop.late")


def test_letters_are_ticked_all_at_once_and_replayed(browser: Browser, scene: Scene) -> None:
    busy(scene)

    with served(scene.app) as dashboard, eye(browser) as tab:
        page = tab.open(f"{dashboard.url}/dead")
        page.get_by_label("Tick all of this page").check()
        page.get_by_role("button", name="Replay ticked").click()

        expect(page.locator(".notice[role=status]")).to_have_text("3 put back into their queues.")
        expect(page.locator("[data-live=live_dead]")).to_contain_text("Nothing was set aside.")
    assert [info.ready for info in scene.broker.queues() if info.name == "hooks"] == [3]


def test_letters_that_fit_a_filter_are_dropped_after_a_question(browser: Browser, scene: Scene) -> None:
    busy(scene)
    scene.ran("hooks", Dead("buried", "customer is gone", run=a_run()), "shop.other")

    with served(scene.app) as dashboard, eye(browser) as tab:
        page = tab.open(f"{dashboard.url}/dead")
        page.get_by_label("Reason").select_option("buried")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("input[name=letter]")).to_have_count(1)
        page.get_by_role("button", name="Drop all that fit…").click()
        expect(page.get_by_role("heading")).to_have_text("Drop every dead letter of all queues, with reason buried?")
        page.get_by_role("button", name="Drop them for good").click()

        expect(page.locator(".notice[role=status]")).to_have_text("1 dropped.")
    assert [info.dead for info in scene.broker.queues() if info.name == "hooks"] == [3]


def test_a_running_job_is_cancelled_after_a_question(browser: Browser, scene: Scene) -> None:
    job_id = scene.running("mail", "shop.send_mail")

    with served(scene.app) as dashboard, eye(browser) as tab:
        page = tab.open(f"{dashboard.url}/job?id={job_id}")
        page.get_by_role("button", name="Cancel…").click()
        page.get_by_role("button", name="Cancel it").click()

        expect(page.locator(".notice[role=status]")).to_contain_text("Cancelling was asked for")
    assert [delivery.message.id for delivery in scene.held_to_cancel()] == [job_id]
