"""Each page in a real browser: empty, with a job in every state, and with content that attacks it."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from tests.dashboard.looking import MODES, Mode, eye
from tests.dashboard.scenes import ARABIC, IMAGE, SCRIPT, Scene, busy, hostile
from tests.dashboard.serving import served

PAGES = ("/", "/queues", "/jobs", "/dead", "/workers")


@pytest.mark.parametrize("mode", MODES)
def test_every_page_says_what_is_to_be_done_where_there_is_nothing(
    browser: Browser, scene: Scene, mode: Mode
) -> None:
    with served(scene.app) as dashboard, eye(browser, mode) as tab:
        for path in (*PAGES, "/job?id=nobody"):
            tab.open(dashboard.url + path)

            tab.check()
            assert tab.page.locator(".empty, h1").count() > 0
            if mode == "light":
                tab.check_access()


@pytest.mark.parametrize("mode", MODES)
def test_every_page_shows_a_job_in_each_state(browser: Browser, scene: Scene, mode: Mode) -> None:
    dead = busy(scene)

    with served(scene.app) as dashboard, eye(browser, mode) as tab:
        for path in (*PAGES, f"/job?id={dead}"):
            tab.open(dashboard.url + path)

            tab.check()
            if mode != "phone":
                tab.check_access()

        seen = tab.open(f"{dashboard.url}/jobs").locator("main").inner_text()
        for state in ("delayed", "ready", "running", "done", "dead", "cancelled"):
            assert state in seen
        assert "plain message" in seen


@pytest.mark.parametrize("mode", MODES)
def test_content_that_attacks_a_page_is_only_text_on_it(browser: Browser, scene: Scene, mode: Mode) -> None:
    worst = hostile(scene)

    with served(scene.app) as dashboard, eye(browser, mode) as tab:
        for path in (*PAGES, f"/job?id={worst}", f"/job?id={quote(f'id {IMAGE}', safe='')}"):
            tab.open(dashboard.url + path)
            tab.wait_live()

            tab.check()

        tab.open(f"{dashboard.url}/dead")
        assert IMAGE in tab.page.locator("main").inner_text()
        assert tab.page.locator("main img, main script").count() == 0
        assert ARABIC in tab.page.locator("main").inner_text()


def test_a_long_error_is_cut_in_its_middle_and_says_so(browser: Browser, scene: Scene) -> None:
    worst = hostile(scene)

    with served(scene.app) as dashboard, eye(browser) as tab:
        tab.open(f"{dashboard.url}/job?id={worst}")

        said = tab.page.locator(".trace").inner_text()
    assert said.startswith(SCRIPT)
    assert re.search(r"characters left out …\]", said)
    assert len(said) < 100_000


def test_a_private_job_shows_neither_arguments_nor_error(browser: Browser, scene: Scene) -> None:
    hostile(scene)

    with served(scene.app) as dashboard, eye(browser) as tab:
        tab.open(f"{dashboard.url}/dead")
        tab.page.get_by_role("link", name="shop.secret").click()

        tab.page.get_by_text("Its task is private").wait_for()
        assert "swordfish" not in tab.page.content()


def test_a_page_reads_without_javascript(browser: Browser, scene: Scene) -> None:
    dead = busy(scene)

    with served(scene.app) as dashboard, eye(browser, java_script_enabled=False) as tab:
        tab.open(dashboard.url)
        tab.page.get_by_role("link", name="Dead 3").click()
        tab.page.locator(f"tr[data-key='{dead}'] a").click()

        assert "ConnectionError: no answer within 10 s" in tab.page.locator(".trace").inner_text()
        tab.page.get_by_role("button", name="Replay").click()
        assert "1 put back into their queues." in tab.page.locator("main").inner_text()


def test_a_page_is_walked_through_with_the_keyboard(browser: Browser, scene: Scene) -> None:
    dead = busy(scene)

    with served(scene.app) as dashboard, eye(browser) as tab:
        tab.open(dashboard.url)
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate("document.activeElement.className") == "skip"
        tab.page.keyboard.press("/")
        tab.page.keyboard.type(dead)
        tab.page.keyboard.press("Enter")

        tab.page.get_by_role("heading", name="shop.deliver").wait_for()
