"""From a page's address to its HTML: whole, or those of its blocks that are live."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from dibs.dashboard.page import Page, Query, Shown
from dibs.dashboard.pages import PAGES
from dibs.dashboard.source import Source
from dibs.dashboard.wording import FILTERS

#: Blocks of a template whose names begin so are sent while somebody looks.
LIVE = "live"
_LAYOUT = "layout.html"


class View(NamedTuple):
    """What somebody looks at: two who look at the same thing have the same value."""

    path: str
    query: Query
    #: Under which path the dashboard is mounted; "" for none.
    root: str

    @property
    def page(self) -> Page:
        """Its page."""
        return PAGES[self.path]


class Renderer:
    """Makes HTML. Asks the source, so it blocks; may be shared between threads."""

    def __init__(self, source: Source, *, is_read_only: bool, has_login: bool) -> None:
        self._source = source
        self._environment = Environment(
            loader=PackageLoader("dibs.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= FILTERS
        self._fixed = {
            "is_read_only": is_read_only,
            "has_login": has_login,
            "pages": [page for page in PAGES.values() if page.path != "/job"],
            "stamp": _stamp(),
            "zone": time.strftime("%Z"),
        }
        self._environment.globals["parts"] = self._environment.get_template("parts.html").module

    def page(self, view: View, **more: Any) -> str:
        """Return a whole page.

        Raises:
            BrokerError: the broker can't be asked.
        """
        template = self._environment.get_template(view.page.template)
        return template.render(self._context(view, self._look(view)), gone=None, **more)

    def page_without(self, view: View, why: str, **more: Any) -> str:
        """Return a page that says why the broker can't be asked. Asks nobody."""
        return self._environment.get_template("gone.html").render(self._context(view, {}), gone=why, **more)

    def regions(self, view: View) -> dict[str, str]:
        """Return the live blocks of a page by name.

        Raises:
            BrokerError: the broker can't be asked.
        """
        context = self._context(view, self._look(view))
        regions: dict[str, str] = {}
        for name in (_LAYOUT, view.page.template):
            template = self._environment.get_template(name)
            regions |= {block: _render(template, block, context) for block in template.blocks if _is_live(block)}
        return regions

    def message(self, name: str, root: str, **more: Any) -> str:
        """Return a page that only says something: an error, a question, the login."""
        return self._environment.get_template(name).render(self._fixed, root=root, **more)

    def _look(self, view: View) -> Shown:
        return view.page.look(self._source, view.query)

    def _context(self, view: View, shown: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **self._fixed,
            "root": quote(view.root),
            "page": view.page,
            "query": view.query,
            "here": view.path + view.query.but(),
            **shown,
        }


def _render(template: Template, block: str, context: dict[str, Any]) -> str:
    return "".join(template.blocks[block](template.new_context(context)))


def _is_live(block: str) -> bool:
    return block.startswith(LIVE)


def _stamp() -> str:
    """Return what changes when a file of the package does, so that browsers may keep the files for good."""
    digest = hashlib.sha256()
    for file in sorted(resources.files("dibs.dashboard").joinpath("static").iterdir(), key=lambda file: file.name):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
