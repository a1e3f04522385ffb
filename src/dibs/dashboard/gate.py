"""What every request passes: who may come in, the cookies that say so, and headers that keep pages safe."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dibs.dashboard.access import SESSION, Access, is_loopback

#: Everything comes from here; nothing is run or styled that stands in a page itself.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
#: Open to everybody: what the login page is made of.
_OPEN = ("/login", "/static/")

Refuse = Callable[[Request, int, str], Response]


class Cookies:
    """The two cookies: a session, and a visitor's random value that forms repeat.

    Browsers share cookies between the ports of a host, so their names have the port.
    """

    def set_session(self, request: Request, response: Response, session: str) -> None:
        """Give a session."""
        self._set(request, response, "session", session, SESSION)

    def drop_session(self, request: Request, response: Response) -> None:
        """Take it back."""
        response.delete_cookie(_name(request, "session"), path=_path(request))

    def session(self, request: Request) -> str | None:
        """Return the session that a request has."""
        return request.cookies.get(_name(request, "session"))

    def visitor_sent(self, request: Request) -> str | None:
        """Return the visitor's value that a request has."""
        sent = request.cookies.get(_name(request, "visitor"))
        return sent if sent and re.fullmatch("[0-9a-f]{32}", sent) else None

    def visitor(self, request: Request) -> str:
        """Return the visitor's value; a new one, which the answer will bring along, where there is none."""
        value = self.visitor_sent(request) or getattr(request.state, "visitor", None) or secrets.token_hex(16)
        request.state.visitor = value
        return value

    def to_set(self, request: Request) -> str | None:
        """Return the header that gives a new visitor their value; None: they have one."""
        value = getattr(request.state, "visitor", None)
        if value is None or self.visitor_sent(request) is not None:
            return None
        response = Response()
        self._set(request, response, "visitor", value, None)
        return response.headers["set-cookie"]

    def _set(self, request: Request, response: Response, kind: str, value: str, age: int | None) -> None:
        response.set_cookie(
            _name(request, kind),
            value,
            max_age=age,
            path=_path(request),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )


class Gate:
    """ASGI middleware around all of the site."""

    def __init__(self, app: ASGIApp, *, access: Access, cookies: Cookies, is_local: bool, refuse: Refuse) -> None:
        self._app = app
        self._access = access
        self._cookies = cookies
        self._is_local = is_local
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        request = Request(scope, receive)
        inner = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) or "/"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers["cache-control"] = _caching(inner, message["status"])
                headers["vary"] = "accept, cookie"
                cookie = self._cookies.to_set(request)
                if cookie is not None:
                    headers.append("set-cookie", cookie)
            await send(message)

        stopped = self._stop(request, inner)
        if stopped is None:
            await self._app(scope, receive, answer)
        else:
            await stopped(scope, receive, answer)

    def _stop(self, request: Request, inner: str) -> Response | None:
        """Return the answer to a request that may not come in; None: it may."""
        # A page of another site may have its own name point to this machine; its visitors' browsers then ask us.
        if self._is_local and not is_loopback(request.headers.get("host", "")):
            return self._refuse(request, 403, "This dashboard answers to the name localhost alone.")
        if inner.startswith(_OPEN):
            return None
        if self._access.admits(self._cookies.session(request), request.headers.get("authorization")):
            return None
        wants_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if not wants_page:
            return self._refuse(request, 401, "Log in first: your session is over, or there was none.")
        where = inner + (f"?{request.url.query}" if request.url.query else "")
        root = request.scope.get("root_path", "").rstrip("/")
        return RedirectResponse(f"{root}/login?back={quote(where, safe='/')}", 303)


def _caching(inner: str, status: int) -> str:
    # The address of a file changes when the file does.
    return "public, max-age=31536000, immutable" if inner.startswith("/static/") and status == 200 else "no-store"


def _name(request: Request, kind: str) -> str:
    server = request.scope.get("server")
    return f"dibs-{kind}-{server[1] if server else 0}"


def _path(request: Request) -> str:
    return request.scope.get("root_path", "").rstrip("/") or "/"
