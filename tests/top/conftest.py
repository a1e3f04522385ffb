"""An app whose jobs stand still until they are told to go on, and a terminal beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.top.tmux import Tmux
from tests.workers import Worker

TASKS = """\
import time
from pathlib import Path

from dibs import Dibs, current_job

app = Dibs()


@app.task(queue="mail")
def send(text: str) -> None:
    current_job().progress(45, 100, text)
    while not Path("go-on").exists():
        time.sleep(0.02)


@app.task(queue="fragile", retries=0)
def fail(text: str = "boom") -> None:
    raise ValueError(text)
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in an empty directory with `tasks.py`, on SQLite."""
    made = Shell(tmp_path)
    (tmp_path / "tasks.py").write_text(TASKS)
    made.env["DIBS_APP"] = "tasks:app"
    del made.env["COLUMNS"]
    return made


@pytest.fixture
def start_worker(shell: Shell) -> Iterator[Callable[..., Worker]]:
    """Starts workers of the app; they end with the test."""
    with ExitStack() as stack:

        def start(*arguments: str) -> Worker:
            made = Worker(
                "tasks:app", *arguments, directory=shell.directory / "logs", env=shell.env, cwd=shell.directory
            )
            return stack.enter_context(made).wait_ready()

        yield start


@pytest.fixture
def tmux(shell: Shell) -> Iterator[Tmux]:
    """A terminal of 80 by 24 in the shell's directory, where `dibs` is known."""
    path = f"{Path(sys.executable).parent}:{shell.env['PATH']}"
    with Tmux(shell.directory, {**shell.env, "PATH": path}) as made:
        yield made
