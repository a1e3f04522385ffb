"""`dibs dashboard` as a user starts it: where it listens, whom it lets in, how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import DIBS, Shell

TOKEN = "a token that is long enough"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in an empty directory, on SQLite."""
    return Shell(tmp_path)


@contextmanager
def started(shell: Shell, *arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start it on any free port; yields its process and its address."""
    with subprocess.Popen(
        [*DIBS, "dashboard", "--bind", "127.0.0.1:0", *arguments],
        cwd=shell.directory,
        env={**shell.env, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"at (http://\S+)/ shows", said)
            assert found, said + (process.communicate()[1] if process.poll() is not None else "")
            yield process, found[1]
        finally:
            process.kill()


def test_it_serves_until_it_is_interrupted_though_a_page_is_open(shell: Shell) -> None:
    shell.make_dead("boom")

    with started(shell) as (process, url):
        page = httpx.get(f"{url}/dead", trust_env=False).text
        with httpx.stream("GET", f"{url}/", headers={"accept": "text/event-stream"}, trust_env=False) as events:
            lines = events.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: news"
            process.send_signal(signal.SIGINT)
            code = process.wait(20)
        out, err = process.communicate()

    assert "ValueError: boom" in page
    assert (code, err) == (130, "")
    assert "Traceback" not in out


def test_a_port_that_is_taken_is_one_line(shell: Shell) -> None:
    shell.open().close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        said = shell.refused("dashboard", "--bind", f"127.0.0.1:{port}", code=1)

    assert said == f"dibs: 127.0.0.1:{port} is taken by another program. Choose another port with --bind.\n"


@pytest.mark.parametrize("bind", ["5555", "localhost", "127.0.0.1:x", "127.0.0.1:99999", ":80"])
def test_an_address_that_is_none_is_refused(shell: Shell, bind: str) -> None:
    assert "is no address" in shell.refused("dashboard", "--bind", bind)


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_an_address_that_others_reach_needs_a_token(shell: Shell, bind: str) -> None:
    assert "needs to know whom to let in" in shell.refused("dashboard", "--bind", bind)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--token", "no-such-file"), "can't be read"),
        (("--token", "short"), "it needs 16 or more"),
        (("--user", "ann"), "needs a password"),
        (("--password", "short"), "needs --user"),
        (("--user", "ann", "--token", "short"), "either --token"),
    ],
)
def test_a_secret_that_is_none_is_refused(shell: Shell, arguments: tuple[str, ...], why: str) -> None:
    (shell.directory / "short").write_text("abc")

    assert why in shell.refused("dashboard", *arguments)


def test_a_secret_is_read_from_a_file_or_the_environment_and_seen_nowhere(shell: Shell) -> None:
    (shell.directory / "token").write_text(f"{TOKEN}\n")
    shell.open().close()

    for arguments, env in ((("--token", "token"), {}), ((), {"DIBS_DASHBOARD_TOKEN": TOKEN})):
        with started(shell, *arguments, **env) as (process, url):
            without = httpx.get(f"{url}/queues", trust_env=False)
            withit = httpx.get(f"{url}/queues", headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False)
            title = Path(f"/proc/{process.pid}/cmdline").read_text()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()

        assert (without.status_code, withit.status_code) == (401, 200)
        assert TOKEN not in title + out + err


def test_without_the_extra_it_says_what_to_install(shell: Shell) -> None:
    (shell.directory / "starlette.py").write_text("raise ModuleNotFoundError('none', name='starlette')\n")

    said = shell.refused("dashboard", PYTHONPATH=str(shell.directory))

    assert said == "dibs: The dashboard needs starlette, which is not installed. pip install 'dibs[dashboard]'\n"
