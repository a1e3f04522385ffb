"""`--reload`: a worker that starts anew when the code changes. For development."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from dibs.errors import AppNotFound
from dibs.worker.options import WorkerOptions
from dibs.worker.supervisor import Supervisor

log = logging.getLogger("dibs.worker")

#: Folders whose files are not the user's own code.
_FOREIGN = {"__pycache__", "node_modules", "site-packages", "venv"}
#: Seconds between two looks.
_INTERVAL = 0.5


def run_reloading(options: WorkerOptions) -> None:
    """Run workers one after the other until one is told to stop; an import error waits for the next change."""
    while True:
        watch = Watch(Path.cwd())
        supervisor = Supervisor(options, has_changed=watch.has_changed)
        try:
            supervisor.run()
        except AppNotFound as error:
            log.error("the app can't be imported; waiting for a change\n%s", error)
            watch.wait()
            continue
        if not supervisor.is_to_restart:
            return


class Watch:
    """Sees whether a `.py` file below a folder was changed, added or removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._look()
        self._looked = time.monotonic()

    def has_changed(self) -> bool:
        """Tell whether something changed since this was made; looks twice a second at most."""
        now = time.monotonic()
        if now - self._looked < _INTERVAL:
            return False
        self._looked = now
        return self._look() != self._seen

    def wait(self) -> None:
        """Wait for a change."""
        while not self.has_changed():
            time.sleep(_INTERVAL)

    def _look(self) -> dict[str, int]:
        times: dict[str, int] = {}
        for folder, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if name not in _FOREIGN and not name.startswith(".")]
            for name in files:
                if name.endswith(".py"):
                    path = f"{folder}/{name}"
                    try:
                        times[path] = Path(path).stat().st_mtime_ns
                    except FileNotFoundError:
                        continue  # removed between the listing and the look
        return times
