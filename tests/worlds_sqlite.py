"""The SQLite broker's surroundings: one file in a directory, and processes that use it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from dibs.brokers import connect
from dibs.brokers.sqlite import SqliteBroker

#: Seconds after which a process that should have said something is given up.
_PATIENCE = 20.0


class SqliteWorld:
    """One database file that any number of handles can be opened to."""

    name = "sqlite"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "dibs.db"
        self.url = f"sqlite:///{self.path}"
        self._handles: list[SqliteBroker] = []

    def open(self, **options: Any) -> SqliteBroker:
        """Return a fresh handle, as another process would have. Options go to `connect`."""
        broker = connect(self.url, **options)
        assert isinstance(broker, SqliteBroker)
        self._handles.append(broker)
        return broker

    def restart(self) -> None:
        """Close all handles, so that nobody has the file open."""
        for broker in self._handles:
            broker.close()
        self._handles.clear()

    def close(self) -> None:
        """Take it all down."""
        self.restart()


class Process:
    """Another Python process with a broker of its own, `broker`; `say(text)` there is `heard()` here.

    It ends with the block at the latest, however it fares.
    """

    def __init__(self, url: str, script: str) -> None:
        head = (
            "import os, select, signal, sys, time\n"
            "from dibs.brokers import connect\n"
            "from dibs.outcome import Done\n"
            "from tests.waiting import job, receive\n"
            "say = lambda text: print(text, flush=True)\n"
            f"broker = connect({url!r})\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", head + script],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        self.pid = self._process.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self._process.stdout, self._process.stdin):
            assert pipe is not None
            pipe.close()

    def heard(self) -> str:
        """Return the next line that it says."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        if not ready:
            raise AssertionError(f"process {self.pid} said nothing for {_PATIENCE} s")
        return self._process.stdout.readline().strip()

    def tell(self, text: str) -> None:
        """Write into its input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def stop(self) -> None:
        """Stop it in its tracks, as Ctrl-Z does, and wait until it stands."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        """Let it run again."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Let it see the end of its input and run out; return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(_PATIENCE)
