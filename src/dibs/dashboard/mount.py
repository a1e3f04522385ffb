"""What is public: the dashboard of an app as an ASGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibs.dashboard.access import Access
from dibs.dashboard.gate import Cookies
from dibs.dashboard.site import Site
from dibs.dashboard.source import Source
from dibs.errors import BadOption

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from dibs.app import Dibs


def dashboard(
    app: Dibs,
    *,
    token: str | None = None,
    user: str | None = None,
    password: str | None = None,
    is_guarded: bool = False,
    read_only: bool = False,
    hide_arguments: bool = False,
) -> Starlette:
    """Return the dashboard of `app` as an ASGI application, to be served or mounted in another one.

    Args:
        app: whose queues are shown.
        token: a secret of 16 characters or more that lets in; programs send it as `Authorization: Bearer …`.
        user, password: let in, instead.
        is_guarded: the application around it lets in only whom it trusts, so the dashboard asks for nothing.
        read_only: nothing can be changed.
        hide_arguments: jobs are shown without what they were called with and what they returned.

    Raises:
        BadOption: it would be open to everybody, or a secret is too short.
    """
    access = Access(token=token, user=user, password=password)
    if not access.is_guarded and not is_guarded:
        raise BadOption(
            "A dashboard that is mounted needs a token, or a user and a password; or is_guarded=True, where the "
            "application around it lets in only whom it trusts."
        )
    return make_site(app, access, read_only=read_only, hide_arguments=hide_arguments).app


def make_site(
    app: Dibs, access: Access, *, read_only: bool = False, hide_arguments: bool = False, is_local: bool = False
) -> Site:
    """Return what serves the dashboard of `app`.

    Args:
        app: whose queues are shown.
        access: who may come in.
        read_only, hide_arguments: see `dashboard`.
        is_local: answer only to who names this machine itself.
    """
    return Site(
        Source(app, hides_arguments=hide_arguments),
        access,
        is_read_only=read_only,
        is_local=is_local,
        cookies=Cookies(),
    )
