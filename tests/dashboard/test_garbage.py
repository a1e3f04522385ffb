"""Requests that make no sense: each is answered with 4xx and a line that says why, and nothing of it is logged."""

from __future__ import annotations

import logging
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.dashboard.scenes import Scene, busy
from tests.dashboard.serving import served
from tests.dashboard.test_access import token_of


@pytest.mark.parametrize(
    "path",
    [
        "/jobs?status=odd",
        "/jobs?nothing=1",
        "/jobs?queue=%00",
        "/?span=1y",
        "/job",
        "/dead?since=1&since=2&x=%ff",
        "/nowhere",
        "/static/../site.py",
        "/static/%2e%2e/site.py",
        "/static/nothing.js",
        "/act",
    ],
)
def test_an_address_that_is_none_is_refused(scene: Scene, path: str, caplog: pytest.LogCaptureFixture) -> None:
    busy(scene)

    with served(scene.app) as dashboard, caplog.at_level(logging.WARNING):
        answer = httpx.get(dashboard.url + path, trust_env=False)

    assert 400 <= answer.status_code < 500, answer.status_code
    assert "Traceback" not in answer.text
    assert not caplog.records


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"do=pause", 400),
        (b"do=explode+x", 400),
        (b"do=cancel", 400),
        (b"do=replay", 400),
        (b"do=drop&letter=without-tab&sure=1", 400),
        (b"\xff\xfe\x00", 400),
        (b"do=pause+x&" + b"a=1&" * 3000, 400),
        (b"do=" + b"x" * 300_000, 413),
    ],
)
def test_a_form_that_is_none_is_refused(scene: Scene, body: bytes, status: int) -> None:
    with (
        served(scene.app) as dashboard,
        httpx.Client(base_url=dashboard.url, trust_env=False) as client,
    ):
        token = token_of(client.get("/queues").text)
        if body[:1] != b"\xff":
            body += b"&token=" + token.encode()
        answer = client.post("/act", content=body, headers={"content-type": "application/x-www-form-urlencoded"})

    assert answer.status_code == status
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"LOOK AT ME\r\n\r\n",
        b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    ],
)
def test_bytes_that_are_no_request_are_refused(scene: Scene, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with served(scene.app) as dashboard, caplog.at_level(logging.ERROR):
        where = urlsplit(dashboard.url)
        with socket.create_connection((where.hostname, where.port), timeout=20) as line:
            try:
                line.sendall(sent)
                got = line.recv(4096)
            except ConnectionError:
                got = b""  # it had heard enough
        after = httpx.get(dashboard.url, trust_env=False)

    assert got == b"" or b" 4" in got.splitlines()[0]
    assert after.status_code == 200
    assert not caplog.records
