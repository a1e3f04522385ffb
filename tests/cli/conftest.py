"""A shell for the tests of the command line: real processes, in a directory with an app of its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dibs import Dibs

DIBS = [sys.executable, "-m", "dibs.cli.main"]

TASKS = """\
from dibs import Bury, Dibs, Message

app = Dibs()


@app.task
def add(left: int, right: int = 2) -> int:
    return left + right


@app.task(queue="fragile", retries=0)
def fail(text: str = "boom") -> None:
    raise ValueError(text)


@app.consumer("plain")
def listen(message: Message) -> None:
    if message.text == "bury":
        raise Bury("as it asked")
    print("heard", message.text, flush=True)
"""


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return its output read as JSON."""
        return json.loads(self.out)


class Counts(NamedTuple):
    """What a queue holds."""

    ready: int
    delayed: int | None
    dead: int


class Shell:
    """Runs `dibs` as a user would, without a terminal unless told otherwise."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        own = ("DIBS_", "PYTHONUNBUFFERED")  # output is buffered, as it is for users
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        self.env |= {"DIBS_URL": "sqlite:///queue.db", "PYTHONWARNINGS": "error", "COLUMNS": "100"}
        (directory / "tasks.py").write_text(TASKS)

    def dibs(self, *arguments: str, text: str = "", **env: str) -> Ran:
        """Run a command to its end; `env` goes over the environment, and `text` into its standard input."""
        ran = subprocess.run(
            [*DIBS, *arguments],
            cwd=self.directory,
            env={**self.env, **env},
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def ok(self, *arguments: str, **env: str) -> Ran:
        """Run a command that must not fail."""
        ran = self.dibs(*arguments, **env)
        assert ran.code == 0, ran.err
        return ran

    def refused(self, *arguments: str, code: int = 2, **env: str) -> str:
        """Run a command that must fail with one line, and return that line."""
        ran = self.dibs(*arguments, **env)
        assert (ran.code, ran.out) == (code, ""), ran
        assert ran.err.startswith("dibs: ")
        assert ran.err.count("\n") == 1
        assert "Traceback" not in ran.err
        return ran.err

    def at_terminal(self, *arguments: str, answer: str) -> Ran:
        """Run a command at a terminal where somebody types `answer`."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*DIBS, *arguments],
            cwd=self.directory,
            env=self.env,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            os.close(theirs)
            os.write(ours, answer.encode())
            out, err = process.communicate(timeout=60)
        os.close(ours)
        return Ran(process.returncode, out, err)

    def open(self) -> Dibs:
        """Return an app on the same broker, for what the test itself does: that costs no process."""
        app = Dibs(f"sqlite:///{self.directory}/queue.db")

        @app.task(name="tasks.fail", queue="fragile", retries=0)
        def fail(text: str = "boom") -> None:
            raise ValueError(text)

        return app

    def counts(self, queue: str) -> Counts:
        """Return what a queue holds."""
        app = self.open()
        (found,) = [info for info in app.broker.queues() if info.name == queue]
        app.close()
        return Counts(found.ready, found.delayed, found.dead)

    def make_dead(self, *texts: str) -> list[str]:
        """Have a job fail with each of these texts, and return their ids."""
        app = self.open()
        fail = app.get_task("tasks.fail")
        ids = [fail.enqueue(text).id for text in texts]
        app.drain()
        app.close()
        return ids


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in an empty directory with `tasks.py`, on SQLite."""
    return Shell(tmp_path)
