"""The dashboard: a page that shows at a glance whether all is well. Needs the extra `dibs[dashboard]`.

    from dibs.dashboard import dashboard

    application = dashboard(app, token="…")     # an ASGI application, to be served or mounted in another one

A page is HTML that reads without JavaScript; with it, it stays up to date by server-sent events. `source.py` asks the
broker and its ledger, `pages/` are what is shown, `watch.py` looks for all viewers at once, `gate.py` and `access.py`
say who may come in, `site.py` puts it together.
"""

from __future__ import annotations

from dibs.dashboard.mount import dashboard

__all__ = ["dashboard"]
