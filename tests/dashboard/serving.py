"""A dashboard that is served from a thread of the test, and a browser's pages on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import uvicorn
from starlette.types import ASGIApp

from dibs import Dibs
from dibs.dashboard.access import Access
from dibs.dashboard.mount import make_site
from dibs.dashboard.site import Site
from tests.waiting import until


class Served(NamedTuple):
    """A dashboard at an address."""

    url: str
    site: Site


@contextmanager
def served(app: Dibs, **options: object) -> Iterator[Served]:
    """Serve the dashboard of `app` until the end of the block. Options go to `Access` and `make_site`."""
    secrets = {name: options.pop(name) for name in ("token", "user", "password") if name in options}
    site = make_site(app, Access(**secrets), **options)  # type: ignore[arg-type]  # a test's own keyword arguments
    with serving(site.app) as url:
        yield Served(url, site)
        site.watch.close()


@contextmanager
def serving(application: ASGIApp) -> Iterator[str]:
    """Serve any ASGI application; yields its address without the slash at the end."""
    config = uvicorn.Config(
        application, host="127.0.0.1", port=0, log_level="error", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="dashboard-under-test")
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
