"""Looking at a page as somebody would: in light, in the dark, on a phone; with eyes for what must not be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

Mode = Literal["light", "dark", "phone"]
MODES: tuple[Mode, ...] = ("light", "dark", "phone")
#: What of the checker's findings is not let pass.
_SERIOUS = {"serious", "critical"}


class Eye:
    """One tab, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def open(self, url: str, status: int = 200) -> Page:
        """Load a page and see its first news come."""
        answer = self.page.goto(url)
        assert answer is not None
        assert answer.status == status, f"{url}: {answer.status}"
        return self.page

    def is_live(self) -> bool:
        """Tell whether the page gets news."""
        return self.page.locator("#live").get_attribute("data-state") == "live"

    def wait_live(self) -> Page:
        """Wait until the page gets news."""
        self.page.locator("#live[data-state=live]").wait_for(timeout=15_000)
        return self.page

    def check(self) -> None:
        """See that nothing ran that must not, and that nothing is wider than the screen."""
        assert self.complaints == []
        assert self.page.evaluate("window.hit") is None
        assert self.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, self.page.url

    def check_access(self) -> None:
        """See that the accessibility checker finds nothing serious, contrast included."""
        found = [each for each in Axe().run(self.page).response["violations"] if each["impact"] in _SERIOUS]
        assert not found, "\n".join(_say(self.page.url, each) for each in found)


@contextmanager
def eye(browser: Browser, mode: Mode = "light", **options: Any) -> Iterator[Eye]:
    """Open a tab of its own, with no cookies."""
    context = browser.new_context(
        color_scheme="dark" if mode == "dark" else "light",
        viewport={"width": 375, "height": 740} if mode == "phone" else {"width": 1280, "height": 800},
        **options,
    )
    context.set_default_timeout(15_000)
    try:
        yield Eye(context.new_page())
    finally:
        context.close()


def _say(url: str, found: dict[str, Any]) -> str:
    nodes = "\n".join(f"    {node['html'][:200]} {node['failureSummary'][:300]}" for node in found["nodes"][:4])
    return f"{url}: {found['id']}: {found['help']}\n{nodes}"
