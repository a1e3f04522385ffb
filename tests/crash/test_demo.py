"""`dibs demo`, the real thing: its exit code, and the figures of its table."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.rabbit_releases import on_one_rabbitmq
from tests.waiting import until
from tests.worlds import World

COMMAND = [sys.executable, "-P", "-m", "dibs.cli.main", "demo"]


def demo(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo with a temporary directory of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, "TMPDIR": str(directory), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def figures(output: str) -> dict[str, str]:
    """Return the table's second column by its first."""
    found = re.findall(r"^ (\w[\w ]*?)  +(\S+(?: m?s)?)(?: |$)", output, re.MULTILINE)
    return {name: value for name, value in found if not name.startswith("worker")}


@pytest.fixture
def url(shared_world: World) -> str | None:
    """No URL for SQLite: the demo then makes a file of its own."""
    return None if shared_world.name == "sqlite" else shared_world.url


@on_one_rabbitmq
def test_the_demo_keeps_every_promise_and_shows_it(url: str | None, tmp_path: Path) -> None:
    begin = time.monotonic()
    ran = demo(*(["--url", url] if url else []), directory=tmp_path)

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    assert "Every promise was kept." in ran.stdout
    table = figures(ran.stdout)
    assert (table["sent"], table["done"], table["lost"], table["run twice"]) == ("24", "24", "0", "1")
    assert table["left over"] == "0"
    assert "killed (SIGKILL)" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert max(len(line) for line in ran.stdout.splitlines() if str(tmp_path) not in line) <= 80
    assert time.monotonic() - begin < 20
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_ended_early_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(COMMAND, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE) as process:
        until(lambda: bool(list(tmp_path.glob("*/evidence/*"))))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 128 + signal.SIGTERM
    assert len(children) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "code"), [("redis://localhost", 2), ("memory://", 2), ("sqlite:////no/such/folder/x.db", 1)]
)
def test_a_url_that_can_not_be_used_is_one_line(url: str, code: int, tmp_path: Path) -> None:
    ran = demo("--url", url, directory=tmp_path)

    assert ran.returncode == code
    assert (ran.stdout, ran.stderr.count("\n")) == ("", 1)
    assert ran.stderr.startswith("dibs: ")
