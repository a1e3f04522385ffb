"""A hundred thousand jobs: pages stay as long as they are, lead on to older ones, and find one by its id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from dibs import Dibs
from dibs.message import Message, new_id, now_ms
from dibs.outcome import Dead, Done
from tests.dashboard.looking import MODES, Mode, eye
from tests.dashboard.scenes import TRACEBACK, a_run
from tests.dashboard.serving import served
from tests.waiting import receive

_JOBS, _OVER = 100_000, 3000


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dibs]:
    """An app on a file with that many jobs, a part of them over."""
    path: Path = tmp_path_factory.mktemp("crowd") / "queue.db"
    app = Dibs(f"sqlite:///{path}")
    queues = ("default", "mail", "reports")
    app.broker.send(
        [
            Message(
                body=b'{"args": [1]}', queue=queues[at % 3], id=new_id(), task=f"shop.task{at % 7}", enqueued=now_ms()
            )
            for at in range(_JOBS)
        ]
    )
    consumer = app.broker.consume(queues, limit=1000)
    for _ in range(_OVER // 1000):
        got = receive(consumer, 1000)
        dead = Dead("failed", TRACEBACK, run=a_run())
        consumer.settle([(each, dead if at % 15 == 0 else Done(b"1", None, a_run())) for at, each in enumerate(got)])
    consumer.close()
    yield app
    app.close()


@pytest.mark.parametrize("mode", MODES)
def test_every_page_is_as_long_as_it_is(browser: Browser, crowd: Dibs, mode: Mode) -> None:
    with served(crowd) as dashboard, eye(browser, mode) as tab:
        for path in ("/", "/queues", "/jobs", "/jobs?status=done", "/jobs?queue=mail&task=shop.task3", "/dead"):
            page = tab.open(dashboard.url + path)

            tab.wait_live()
            tab.check()
            assert page.get_by_role("row").count() <= 61
            assert len(page.content()) < 250_000


def test_a_list_leads_on_to_older_jobs(browser: Browser, crowd: Dibs) -> None:
    with served(crowd) as dashboard, eye(browser) as tab:
        page = tab.open(f"{dashboard.url}/jobs")
        seen = page.locator("tbody tr").evaluate_all("(rows) => rows.map((row) => row.dataset.key)")
        page.get_by_role("link", name="Older →").click()
        page.get_by_role("link", name="← Newest").wait_for()

        older = page.locator("tbody tr").evaluate_all("(rows) => rows.map((row) => row.dataset.key)")
    assert len(seen) == len(older) == 50
    assert not set(seen) & set(older)


def test_one_job_among_them_is_found_by_its_id(browser: Browser, crowd: Dibs) -> None:
    wanted = crowd.broker.dead("mail", limit=1)[0].message.id

    with served(crowd) as dashboard, eye(browser) as tab:
        page = tab.open(dashboard.url)
        page.locator("#find").fill(wanted)
        page.keyboard.press("Enter")

        expect(page.locator(".title")).to_contain_text(wanted)
        expect(page.locator(".trace")).to_contain_text("ConnectionError")


def test_all_dead_letters_of_a_queue_are_replayed_at_once(browser: Browser, crowd: Dibs) -> None:
    dead = {info.name: info.dead for info in crowd.broker.queues()}

    with served(crowd) as dashboard, eye(browser) as tab:
        page = tab.open(f"{dashboard.url}/dead?queue=reports")
        page.get_by_role("button", name="Replay all that fit…").click()
        page.get_by_role("button", name="Put them back").click()

        expect(page.locator(".notice[role=status]")).to_have_text(f"{dead['reports']} put back into their queues.")
    after = {info.name: info.dead for info in crowd.broker.queues()}
    assert after == {**dead, "reports": 0}
