"""A dashboard inside another application: under a path of its own, it finds its pages, files and forms."""

from __future__ import annotations

import httpx
from playwright.sync_api import Browser, expect
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from dibs.dashboard import dashboard
from tests.dashboard.looking import eye
from tests.dashboard.scenes import Scene, busy
from tests.dashboard.serving import serving
from tests.dashboard.test_access import token_of

TOKEN = "a token that is long enough"


def test_it_is_mounted_in_starlette(browser: Browser, scene: Scene) -> None:
    dead = busy(scene)
    outer = Starlette(routes=[Mount("/ops/dibs", dashboard(scene.app, is_guarded=True))])

    with serving(outer) as url, eye(browser) as tab:
        page = tab.open(f"{url}/ops/dibs/")
        tab.wait_live()
        for name in ("Queues", "Jobs", "Workers", "Dead 3", "Overview"):
            page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
            tab.wait_live()
            tab.check()
        page.locator("#find").fill(dead)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Replay").click()

        expect(page.locator(".notice[role=status]")).to_have_text("1 put back into their queues.")
        assert page.url.startswith(f"{url}/ops/dibs/job?id=")


def test_its_login_and_cookies_stay_below_its_path(scene: Scene) -> None:
    outer = Starlette(routes=[Mount("/ops/dibs", dashboard(scene.app, token=TOKEN))])

    with (
        serving(outer) as url,
        httpx.Client(base_url=url, headers={"accept": "text/html"}, trust_env=False) as client,
    ):
        first = client.get("/ops/dibs/jobs")
        login = client.get(first.headers["location"])
        entered = client.post("/ops/dibs/login", data={"token": token_of(login.text), "secret": TOKEN})
        page = client.get("/ops/dibs/jobs")

    assert first.headers["location"] == "/ops/dibs/login?back=/jobs"
    assert entered.headers["location"] == "/ops/dibs/"
    assert "Path=/ops/dibs" in entered.headers["set-cookie"]
    assert page.status_code == 200


def test_an_application_that_is_no_framework_sends_what_is_below_a_path(scene: Scene) -> None:
    inner: ASGIApp = dashboard(scene.app, is_guarded=True)

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:  # as Django's asgi.py in the docs does
        if scope["type"] == "http" and scope["path"].startswith("/dibs/"):
            await inner({**scope, "root_path": "/dibs"}, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    with serving(outer) as url:
        page = httpx.get(f"{url}/dibs/queues", trust_env=False)
        style = httpx.get(f"{url}/dibs/static/dibs.css", trust_env=False)
        other = httpx.get(f"{url}/queues", trust_env=False)

    assert (page.status_code, style.status_code, other.status_code) == (200, 200, 404)
    assert 'href="/dibs/jobs"' in page.text
