"""The dashboard on RabbitMQ: the same pages, and a server that is killed while one is open."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from dibs import Dibs
from tests.dashboard.looking import eye
from tests.dashboard.serving import served
from tests.dashboard.test_live import TASKS
from tests.rabbit_node import Node
from tests.workers import Worker


def test_pages_show_what_workers_do_and_survive_the_server(
    browser: Browser, rabbit_node: Node, tmp_path: Path
) -> None:
    (tmp_path / "busy_tasks.py").write_text(TASKS)
    app = Dibs(rabbit_node.url, namespace="eyes", handover_timeout=5.0)

    @app.task(name="slow")
    def slow(seconds: float) -> float:
        return seconds

    @app.task(name="fail", queue="fragile", retries=0)
    def fail(text: str) -> None:
        raise ValueError(text)

    (tmp_path / "busy_tasks.py").write_text(TASKS.replace("Dibs()", 'Dibs(namespace="eyes")'))
    env = {"DIBS_URL": rabbit_node.url, "PYTHONPATH": str(tmp_path)}

    with (
        served(app) as dashboard,
        eye(browser) as tab,
        Worker("busy_tasks:app", "-p", "1", directory=tmp_path / "logs", env=env) as worker,
    ):
        worker.wait_ready()
        page = tab.open(f"{dashboard.url}/")
        fail.enqueue("it was me")
        expect(page.locator("[data-live=live_failures]")).to_contain_text("ValueError: it was me")
        expect(page.locator("[data-live=live_timeline] .bar rect.dead")).to_have_count(1)
        running = slow.enqueue(600.0)
        expect(page.locator("[data-live=live_timeline] .bar rect.running")).to_have_count(1)
        for path in ("/queues", "/jobs", f"/job?id={running.id}", "/dead", "/workers"):
            tab.open(dashboard.url + path)
            tab.check()

        page = tab.open(f"{dashboard.url}/queues")
        tab.wait_live()
        rabbit_node.kill()
        try:
            expect(page.locator("#gone")).to_be_visible(timeout=40_000)
            expect(page.locator("#live")).to_have_attribute("data-state", "lost")
        finally:
            rabbit_node.start()
        expect(page.locator("#gone")).to_be_hidden(timeout=60_000)
        expect(page.locator("[data-live=live_queues]")).to_contain_text("fragile")

        page = tab.open(f"{dashboard.url}/dead")
        page.get_by_role("button", name="Replay all…").click()
        page.get_by_role("button", name="Put them back").click()
        expect(page.locator(".notice[role=status]")).to_have_text("1 put back into their queues.")
    app.close()


def test_without_a_ledger_queues_are_shown_and_it_is_said_why(browser: Browser, rabbit_node: Node) -> None:
    app = Dibs(f"{rabbit_node.url}?ledger=off", namespace="blind", handover_timeout=5.0)

    @app.task(name="slow")
    def slow(seconds: float) -> float:
        return seconds

    slow.enqueue(1.0)
    with served(app) as dashboard, eye(browser) as tab:
        for path in ("/", "/queues", "/jobs", "/dead", "/workers", "/job?id=1"):
            page = tab.open(dashboard.url + path)
            tab.check()
            expect(page.locator(".notice.warn")).to_contain_text("what became of jobs is not known")
        page = tab.open(f"{dashboard.url}/queues")
        expect(page.locator("tr[data-key=default]")).to_contain_text("1")
    app.close()
