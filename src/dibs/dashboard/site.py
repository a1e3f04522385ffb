"""The dashboard as an ASGI application: addresses, forms, answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dibs.dashboard.access import Access, refusal
from dibs.dashboard.actions import ACTIONS, Form, said
from dibs.dashboard.gate import Cookies, Gate
from dibs.dashboard.page import read_query
from dibs.dashboard.pages import PAGES
from dibs.dashboard.source import Source
from dibs.dashboard.view import Renderer, View
from dibs.dashboard.watch import Watch, stream
from dibs.errors import BrokerError, DibsError
from dibs.metrics.exposition import CONTENT_TYPE, render
from dibs.metrics.families import of_queues, of_workers

#: A form has so many bytes at the most: some hundred letters that were ticked.
_FORM_BYTES = 256 * 1024
_FORM_FIELDS = 2000
#: Seconds that a page waits for the broker; then it says so, and goes on by itself.
_PATIENCE = 8.0
#: Threads that ask the broker: one is the poller's, so a slow action leaves some for pages.
_THREADS = 4
#: In an address, these say what was done; they are no part of what is looked at.
_DID = ("did", "n")
_ERRORS = {400: "That is not right", 403: "Not allowed", 404: "There is no such page", 405: "That is not right"}


class Site:
    """All that answers requests."""

    def __init__(
        self, source: Source, access: Access, *, is_read_only: bool, is_local: bool, cookies: Cookies
    ) -> None:
        self._source = source
        self._access = access
        self._is_read_only = is_read_only
        self._cookies = cookies
        self._renderer = Renderer(source, is_read_only=is_read_only, has_login=access.is_guarded)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dibs-dashboard")
        self._attempt = asyncio.Lock()
        self.watch = Watch(self._renderer.regions, self._threads)
        static = StaticFiles(directory=Path(__file__).parent / "static")
        self.app = Starlette(
            routes=[
                *(Route(path, self._page, methods=["GET"]) for path in PAGES),
                Route("/find", self._find, methods=["GET"]),
                Route("/metrics", self._metrics, methods=["GET"]),
                Route("/act", self._act, methods=["POST"]),
                Route("/login", self._show_login, methods=["GET"]),
                Route("/login", self._log_in, methods=["POST"]),
                Route("/logout", self._log_out, methods=["POST"]),
                Mount("/static", static),
            ],
            middleware=[Middleware(Gate, access=access, cookies=cookies, is_local=is_local, refuse=self._refuse)],
            exception_handlers={
                HTTPException: self._on_http_error,
                DibsError: self._on_dibs_error,
                ClientDisconnect: self._on_disconnect,
                Exception: self._on_fault,
            },
        )

    # Reading

    async def _page(self, request: Request) -> Response:
        pairs = [pair for pair in request.query_params.multi_items() if pair[0] not in _DID]
        path = _inner_path(request)
        view = View(path, read_query(PAGES[path].query, pairs), _root(request))
        if "text/event-stream" in request.headers.get("accept", ""):
            return self._stream(view)
        did = said(request.query_params.get("did"), request.query_params.get("n"))
        more = {"token": self._cookies.visitor(request), "did": did}
        try:
            asked = self._in_thread(lambda: self._renderer.page(view, **more))
            return HTMLResponse(await asyncio.wait_for(asked, _PATIENCE))
        except BrokerError as error:
            why = str(error)
        except TimeoutError:
            why = f"The broker has not answered for {_PATIENCE:.0f} seconds."
        return HTMLResponse(self._renderer.page_without(view, why, **more), 503)

    def _stream(self, view: View) -> Response:
        if self.watch.is_full:
            raise HTTPException(503, "Too many pages are open. Close some.")
        headers = {"x-accel-buffering": "no"}  # nginx would keep events back
        return StreamingResponse(stream(self.watch, view), media_type="text/event-stream", headers=headers)

    async def _find(self, request: Request) -> Response:
        """Lead to the job with an id."""
        wanted = request.query_params.get("id", "").strip()
        root = _root(request)
        if not wanted or not wanted.isprintable():
            return RedirectResponse(f"{root}/jobs", 303)
        found = await self._in_thread(lambda: self._source.job(wanted))
        where = f"/job?{urlencode({'id': wanted})}" if found else f"/jobs?{urlencode({'missing': wanted})}"
        return RedirectResponse(root + where, 303)

    async def _metrics(self, request: Request) -> Response:
        """Tell Prometheus how queues and workers are."""
        del request
        try:
            board = await asyncio.wait_for(self._in_thread(self._source.board), _PATIENCE)
        except TimeoutError:
            raise HTTPException(503, f"The broker has not answered for {_PATIENCE:.0f} seconds.") from None
        text = render([*of_queues(board.queues), *of_workers(board.workers)])
        return Response(text, media_type=CONTENT_TYPE)

    # Writing

    async def _act(self, request: Request) -> Response:
        if self._is_read_only:
            raise HTTPException(403, "This dashboard is read-only: it was started with --read-only.")
        form = await self._read_form(request)
        name, _, rest = form.one("do").partition(" ")
        action = ACTIONS.get(name)
        if action is None:
            raise HTTPException(400, "There is no such button.")
        if rest:  # the button says which queue, or which job
            form = Form({**form.fields, "queue" if name != "cancel" else "id": [rest]})
        if action.question is not None and "sure" not in form.fields:
            return self._ask(request, form, action.question(form), action.verb)
        count = await self._in_thread(lambda: action.act(self._source, form))
        self._source.forget()
        back = _back(form)
        more = urlencode({"did": name, "n": count})
        return RedirectResponse(f"{_root(request)}{back}{'&' if '?' in back else '?'}{more}", 303)

    def _ask(self, request: Request, form: Form, question: str, verb: str) -> Response:
        """Return the page that asks whether somebody is sure."""
        kept = [(name, value) for name, values in form.fields.items() for value in values if name != "token"]
        html = self._renderer.message(
            "confirm.html",
            _root(request),
            question=question,
            verb=verb,
            kept=kept,
            back=_back(form),
            token=self._cookies.visitor(request),
        )
        return HTMLResponse(html)

    async def _read_form(self, request: Request) -> Form:
        """Return a form that came from a page of ours.

        Raises:
            HTTPException: it did not, or is none.
        """
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _FORM_BYTES:
                raise HTTPException(413, f"A form has {_FORM_BYTES} bytes at the most.")
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_FORM_FIELDS)
        except ValueError:
            raise HTTPException(400, "What was sent is no form.") from None
        why = refusal(request.headers, self._cookies.visitor_sent(request), fields.get("token", [""])[0])
        if why is not None:
            raise HTTPException(403, f"This form was not accepted, and nothing was done. {why} Load the page anew.")
        return Form(fields)

    # Logging in

    async def _show_login(self, request: Request) -> Response:
        return self._login_page(request, None)

    async def _log_in(self, request: Request) -> Response:
        form = await self._read_form(request)
        user, secret = ((form.fields.get(name) or [""])[0] for name in ("user", "secret"))
        if self._attempt.locked():
            raise HTTPException(429, "Somebody else tries to log in. Wait a second.")
        async with self._attempt:
            if not self._access.knows(user, secret):
                await asyncio.sleep(1.0)  # a guess a second, however many try
                return self._login_page(request, "That is not right.", 403)
        response = RedirectResponse(f"{_root(request)}{_back(form)}", 303)
        self._cookies.set_session(request, response, self._access.issue())
        return response

    async def _log_out(self, request: Request) -> Response:
        await self._read_form(request)
        response = RedirectResponse(f"{_root(request)}/login", 303)
        self._cookies.drop_session(request, response)
        return response

    def _login_page(self, request: Request, wrong: str | None, status: int = 200) -> Response:
        html = self._renderer.message(
            "login.html",
            _root(request),
            wrong=wrong,
            asks_user=self._access.user is not None,
            back=_checked(request.query_params.get("back", "/")),
            token=self._cookies.visitor(request),
        )
        return HTMLResponse(html, status)

    # What goes wrong

    def _refuse(self, request: Request, status: int, text: str) -> Response:
        return self._error(request, status, text)

    async def _on_http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self._error(request, error.status_code, error.detail, error.headers)

    async def _on_dibs_error(self, request: Request, error: Exception) -> Response:
        return self._error(request, 503 if isinstance(error, BrokerError) else 400, str(error))

    async def _on_disconnect(self, request: Request, error: Exception) -> Response:
        del request, error
        return Response(status_code=400)  # nobody is there to read it

    async def _on_fault(self, request: Request, error: Exception) -> Response:
        del error  # whoever runs the application logs it
        return self._error(request, 500, "The dashboard has a fault; its log says which.")

    def _error(self, request: Request, status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
        title = _ERRORS.get(status, "That did not work")
        html = self._renderer.message("error.html", _root(request), status=status, title=title, text=text)
        return HTMLResponse(html, status, headers)

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


Handler = Callable[[Request], Awaitable[Response]]


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


def _inner_path(request: Request) -> str:
    """Return the path below the root."""
    path: str = request.scope["path"]
    return path.removeprefix(_root(request)) or "/"


def _back(form: Form) -> str:
    return _checked((form.fields.get("back") or ["/"])[0])


def _checked(back: str) -> str:
    """Return the address of a page of ours; the overview's where it is none."""
    try:
        parts = urlsplit(back)
    except ValueError:
        return "/"
    if parts.scheme or parts.netloc or parts.path not in PAGES or not back.isprintable():
        return "/"
    return parts.path + (f"?{parts.query}" if parts.query else "")
