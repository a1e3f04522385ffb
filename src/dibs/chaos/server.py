"""The broker's own process, killed and started by commands that the user gave."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from dibs.errors import BrokerError

#: Seconds that the kill command gets before the start command follows though it has not ended, when all is over.
_PATIENCE = 60.0
#: Seconds that the start command gets then to say that it failed. A server in the foreground never ends.
_START_PATIENCE = 5.0


class Outage(msgspec.Struct, frozen=True):
    """A time in which the broker was gone."""

    at: float
    #: When a producer was first told again that a job is stored; None: not yet.
    until: float | None = None


class Server:
    """Kills the broker and starts it again. Never blocks: `tend` takes each step when its time has come.

    The start command may return at once, or never (a server in the foreground): that the broker is back is told
    by its taking jobs.
    """

    def __init__(self, kill: str | None, start: str | None, output: Path) -> None:
        self._kill_command = kill
        self._start_command = start
        self._output = output
        self._running: subprocess.Popen[bytes] | None = None
        self._then: Callable[[], None] | None = None
        self._pause = 0.0
        self._due: float | None = None
        self._started: float | None = None
        self.outages: list[Outage] = []

    @property
    def is_down(self) -> bool:
        """Whether it was killed and has not been seen at work again."""
        return bool(self.outages) and self.outages[-1].until is None

    def kill(self, *, pause: float) -> None:
        """Run the kill command; the start command follows so many seconds after it has ended."""
        self.outages.append(Outage(time.monotonic()))
        self._pause, self._started = pause, None
        self._run(self._kill_command, self._on_killed)

    def tend(self, told: float) -> None:
        """Take the next step, if it is time.

        Args:
            told: when a producer was last told that a job is stored.

        Raises:
            BrokerError: a command failed.
        """
        if self._running is not None and (code := self._running.poll()) is not None:
            self._running = None
            self._check(code)
            if self._then is not None:
                self._then()
        if self._due is not None and time.monotonic() >= self._due:
            self._start()
        if self.is_down and self._started is not None and told > self._started:
            self.outages[-1] = msgspec.structs.replace(self.outages[-1], until=told)

    def mend(self) -> None:
        """Leave the user's broker as it was found: start it where it was killed.

        Raises:
            BrokerError: the command failed.
        """
        if not self.is_down or self._started is not None:
            return
        self._wait(_PATIENCE)
        self._start()
        if (code := self._wait(_START_PATIENCE)) is not None:
            self._check(code)

    def _wait(self, patience: float) -> int | None:
        """Return how the running command ended; None: it has not, or there is none."""
        try:
            return None if self._running is None else self._running.wait(patience)
        except subprocess.TimeoutExpired:
            return None

    def _start(self) -> None:
        self._due, self._started = None, time.monotonic()
        self._run(self._start_command, None)

    def _on_killed(self) -> None:
        self._due = time.monotonic() + self._pause

    def _run(self, command: str | None, then: Callable[[], None] | None) -> None:
        if command is None:
            raise ValueError("No command was given for this.")
        self._then = then
        with self._output.open("ab") as output:
            self._running = subprocess.Popen(  # noqa: S602 -- it is the user's own command
                command,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _check(self, code: int) -> None:
        if code:
            said = self._output.read_text(errors="replace")[-500:].strip()
            which = "--kill-broker" if self._started is None else "--start-broker"
            raise BrokerError(f"The command of {which} ended with {code}: {said or 'it said nothing'}")
