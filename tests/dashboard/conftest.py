"""One browser for all of these tests, and scenes for a dashboard to show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.dashboard.scenes import Scene

#: It asks nobody outside for anything. Its profile is a new and empty one.
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's own Chromium. Playwright runs an event loop on this thread, so it must end with the file."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "There is no Chromium. tools/setup system installs it."
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """An app in memory in which nothing has happened yet."""
    made = Scene()
    yield made
    made.close()
