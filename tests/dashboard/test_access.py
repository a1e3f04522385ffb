"""Who may look and who may write, as requests that no browser would make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from dibs import BadOption
from dibs.dashboard import dashboard
from dibs.dashboard.access import Access, is_loopback
from dibs.dashboard.source import Source
from tests.dashboard.scenes import Scene, busy
from tests.dashboard.serving import served

TOKEN = "a token that is long enough"


@contextmanager
def visiting(scene: Scene, **options: object) -> Iterator[httpx.Client]:
    """Yield a client with cookies of its own, as a browser would be."""
    with (
        served(scene.app, **options) as dashboard,
        httpx.Client(base_url=dashboard.url, headers={"accept": "text/html"}, trust_env=False) as client,
    ):
        yield client


def token_of(page: str) -> str:
    """Return what a page's forms carry."""
    found = re.search(r'name="token" value="([0-9a-f]+)"', page)
    assert found, page
    return found[1]


def paused(scene: Scene, queue: str = "default") -> bool:
    """Tell whether a queue is paused."""
    return next(info.is_paused for info in scene.broker.queues() if info.name == queue)


def test_a_form_of_ours_is_believed(scene: Scene) -> None:
    busy(scene)

    with visiting(scene) as client:
        token = token_of(client.get("/queues").text)
        answer = client.post("/act", data={"token": token, "do": "pause default", "back": "/queues"})

    assert (answer.status_code, answer.headers["location"]) == (303, "/queues?did=pause&n=1")
    assert paused(scene)


@pytest.mark.parametrize("token", ["", "0" * 32, "é", "x" * 1000])
def test_a_form_without_the_right_token_changes_nothing_and_says_why(scene: Scene, token: str) -> None:
    busy(scene)

    with visiting(scene) as client:
        client.get("/queues")
        answer = client.post("/act", data={"token": token, "do": "pause default"})

    assert answer.status_code == 403
    assert "nothing was done" in answer.text
    assert not paused(scene)


def test_a_form_of_a_former_visit_changes_nothing(scene: Scene) -> None:
    busy(scene)

    with visiting(scene) as client:
        token = token_of(client.get("/queues").text)
        client.cookies.clear()
        answer = client.post("/act", data={"token": token, "do": "pause default"})

    assert answer.status_code == 403
    assert "out of date" in answer.text
    assert not paused(scene)


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_another_sites_form_changes_nothing(scene: Scene, headers: dict[str, str]) -> None:
    busy(scene)

    with visiting(scene) as client:
        token = token_of(client.get("/queues").text)
        answer = client.post("/act", data={"token": token, "do": "pause default"}, headers=headers)

    assert answer.status_code == 403
    assert not paused(scene)


def test_what_destroys_asks_first(scene: Scene) -> None:
    busy(scene)

    with visiting(scene) as client:
        token = token_of(client.get("/queues").text)
        asked = client.post("/act", data={"token": token, "do": "purge reports", "back": "/queues"})
        before = next(info.ready for info in scene.broker.queues() if info.name == "reports")
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
        done = client.post("/act", data={**fields, "sure": "1"})

    assert "Delete every job that waits in queue reports, for good?" in asked.text
    assert before == 2
    assert done.headers["location"] == "/queues?did=purge&n=3"
    assert next(info.ready for info in scene.broker.queues() if info.name == "reports") == 0


def test_a_read_only_dashboard_has_no_buttons_and_changes_nothing(scene: Scene) -> None:
    dead = busy(scene)

    with visiting(scene, read_only=True) as client:
        pages = [client.get(path).text for path in ("/queues", "/dead", f"/job?id={dead}")]
        answer = client.post("/act", data={"do": "pause default"})

    assert not any('name="do"' in page or "/act" in page for page in pages)
    assert answer.status_code == 403
    assert "read-only" in answer.text
    assert not paused(scene)


def test_hidden_arguments_are_nowhere(scene: Scene) -> None:
    dead = busy(scene)

    with visiting(scene, hide_arguments=True) as client:
        page = client.get(f"/job?id={dead}").text

    assert "hides arguments and results" in page
    assert "order" not in page
    hidden = Source(scene.app, hides_arguments=True).job(dead)
    assert hidden is not None
    assert (hidden.body, hidden.result) == (None, None)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:5555", "127.0.0.1.evil.example", ""])
def test_a_name_that_somebody_pointed_here_is_refused(scene: Scene, host: str) -> None:
    with visiting(scene, is_local=True) as client:
        refused = client.get("/jobs", headers={"host": host})
        let_in = client.get("/jobs", headers={"host": "localhost:5555"})

    assert (refused.status_code, let_in.status_code) == (403, 200)


@pytest.mark.parametrize(
    ("host", "is_it"),
    [("127.0.0.1", True), ("127.8.8.8:1", True), ("localhost:5555", True), ("[::1]:5555", True)]
    + [(host, False) for host in ("10.0.0.1", "127.evil.example", "[::2]", "local host", "", "[", "0.0.0.0")],
)
def test_only_this_machine_is_loopback(host: str, is_it: bool) -> None:
    assert is_loopback(host) is is_it


def test_without_a_session_nothing_is_shown(scene: Scene) -> None:
    busy(scene)

    with visiting(scene, token=TOKEN) as client:
        page = client.get("/jobs?status=dead")
        events = client.get("/jobs", headers={"accept": "text/event-stream"})
        form = client.post("/act", data={"do": "pause default"})
        static = client.get("/static/dibs.css")

    assert (page.status_code, page.headers["location"]) == (303, "/login?back=/jobs%3Fstatus%3Ddead")
    assert (events.status_code, form.status_code, static.status_code) == (401, 401, 200)
    assert "shop" not in page.text + events.text + form.text
    assert not paused(scene)


def test_a_token_lets_in_and_back_to_the_page_that_was_asked_for(scene: Scene) -> None:
    with visiting(scene, token=TOKEN) as client:
        login = client.get("/login?back=/jobs%3Fstatus%3Ddead").text
        entered = client.post("/login", data={"token": token_of(login), "secret": TOKEN, "back": "/jobs?status=dead"})
        page = client.get("/jobs")
        left = client.post("/logout", data={"token": token_of(page.text)})
        after = client.get("/jobs")

    assert (entered.status_code, entered.headers["location"]) == (303, "/jobs?status=dead")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert (page.status_code, left.status_code, after.status_code) == (200, 303, 303)


def test_a_wrong_token_does_not_let_in(scene: Scene) -> None:
    with visiting(scene, token=TOKEN) as client:
        login = client.get("/login").text
        answer = client.post("/login", data={"token": token_of(login), "secret": "guess"})
        page = client.get("/jobs")

    assert answer.status_code == 403
    assert "That is not right." in answer.text
    assert page.status_code == 303


def test_a_user_needs_name_and_password(scene: Scene) -> None:
    with visiting(scene, user="ann", password="correct horse") as client:
        token = token_of(client.get("/login").text)
        wrong = client.post("/login", data={"token": token, "user": "bob", "secret": "correct horse"})
        right = client.post("/login", data={"token": token, "user": "ann", "secret": "correct horse"})

    assert (wrong.status_code, right.status_code) == (403, 303)


def test_a_program_sends_the_token_as_its_bearer(scene: Scene) -> None:
    with visiting(scene, token=TOKEN) as client:
        right = client.get("/jobs", headers={"authorization": f"Bearer {TOKEN}"})
        wrong = client.get("/jobs", headers={"authorization": "Bearer guess"})

    assert (right.status_code, wrong.status_code) == (200, 303)


@pytest.mark.parametrize("session", ["", ".", "9999999999.aa.bb", "x.y", "é", "9" * 5000])
def test_a_session_that_was_made_up_does_not_let_in(session: str) -> None:
    access = Access(token=TOKEN)

    assert access.admits(access.issue(), None)
    assert not access.admits(session, None)
    assert not Access(token=TOKEN + "!").admits(access.issue(), None)


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "/nowhere", "javascript:1", "/\\evil"])
def test_a_login_leads_nowhere_else(scene: Scene, back: str) -> None:
    with visiting(scene, token=TOKEN) as client:
        login = client.get("/login", params={"back": back}).text
        answer = client.post("/login", data={"token": token_of(login), "secret": TOKEN, "back": back})

    assert answer.headers["location"] == "/"
    assert 'name="back" value="/"' in login


@pytest.mark.parametrize(
    "options",
    [{}, {"token": "short"}, {"user": "ann"}, {"user": "ann", "password": "short"}, {"password": "long enough"}],
)
def test_a_mounted_dashboard_is_not_open_to_everybody_by_mistake(scene: Scene, options: dict[str, str]) -> None:
    with pytest.raises(BadOption):
        dashboard(scene.app, **options)  # type: ignore[arg-type]  # strings all of them


def test_every_answer_forbids_scripts_that_stand_in_a_page(scene: Scene) -> None:
    with visiting(scene) as client:
        answers = [client.get(path) for path in ("/", "/nowhere", "/static/dibs.js", "/jobs?status=odd")]

    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert answers[0].headers["cache-control"] == "no-store"
    assert "immutable" in answers[2].headers["cache-control"]
