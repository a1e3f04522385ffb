"""A terminal that a program runs in: tmux, on a server of its own, read and typed into as a person would."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.waiting import until


class Tmux:
    """One window in which a shell runs."""

    def __init__(self, directory: Path, env: Mapping[str, str], *, width: int = 80, height: int = 24) -> None:
        self._name = f"dibs-test-{secrets.token_hex(6)}"
        shown = {"LC_ALL": "C.UTF-8", "PS1": "$ ", "TZ": "UTC", **env}
        self._env = {name: value for name, value in os.environ.items() if name not in {"TMUX", "NO_COLOR"}} | shown
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(directory), "bash --norc --noprofile")

    def __enter__(self) -> Tmux:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        print(f"--- the screen at the end\n{self.screen}")  # pytest shows it where the test failed
        self._tmux("kill-server")

    @property
    def screen(self) -> str:
        """What can be read on it."""
        return self._tmux("capture-pane", "-p")

    @property
    def coloured(self) -> str:
        """What can be read on it, with the codes of its looks."""
        return self._tmux("capture-pane", "-pe")

    def type(self, line: str) -> None:
        """Type a line and Return."""
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, by tmux's names for them."""
        for key in keys:
            self._tmux("send-keys", key)

    def resize(self, width: int, height: int) -> None:
        """Make the window larger or smaller."""
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def wait(self, text: str, *, gone: bool = False) -> str:
        """Wait until this pattern is on the screen, or is not any more; return the screen."""
        until(lambda: (re.search(text, self.screen) is None) == gone)
        return self.screen

    def _tmux(self, *arguments: str) -> str:
        ran = subprocess.run(
            ["tmux", "-u", "-L", self._name, *arguments],
            env=self._env,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        return ran.stdout
