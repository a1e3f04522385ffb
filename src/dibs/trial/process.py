"""A process that is there to be killed: a Python module, run in a session of its own, with its output in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class Process:
    """`python -m …` with these arguments. Whoever makes one ends it."""

    def __init__(self, *arguments: str, env: Mapping[str, str], output: Path) -> None:
        """Start it.

        Args:
            arguments: the module and what it is told. Everybody on the machine can read them, so a URL, which may
                hold a password, goes into `env`.
            env: over this process's own.
            output: where its standard output and error go.
        """
        self._output = output
        with output.open("wb") as file:
            # -P: a file of the user's named like a module must not shadow it. In a session of its own: Ctrl-C at
            # the terminal is for who started it.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", *arguments],
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, which no stranger is given before its end was seen."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended: the exit code, or the negative number of the signal; None while it lives."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still lives."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def wait(self, patience: float) -> int | None:
        """Return how it ended; None: not within so many seconds."""
        try:
            return self._process.wait(max(0.0, patience))
        except subprocess.TimeoutExpired:
            return None

    def said(self) -> str:
        """Return its output so far."""
        return self._output.read_text(errors="replace")
