"""The RabbitMQ releases that the run is held against: the machine's own, and 4.x in a chroot beside it.

`tools/setup system` makes the chroot where it may. `DIBS_TEST_RABBITMQ4` names another one, or is "off".
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.rabbit_node import Node, version_in

_PLACE = Path(__file__).resolve().parents[1] / ".rabbitmq4"
_CHOSEN = os.environ.get("DIBS_TEST_RABBITMQ4", "")

#: The root of the chroot.
ROOT = Path(_CHOSEN or _PLACE / "root").resolve()


def why_not() -> str:
    """Return why no test can run on 4.x; empty if all can."""
    if _CHOSEN == "off":
        return "DIBS_TEST_RABBITMQ4=off"
    if os.geteuid() != 0:
        return "only root may chroot"
    if version_in(ROOT):
        return ""
    if _CHOSEN:
        return f"there is no RabbitMQ in DIBS_TEST_RABBITMQ4={_CHOSEN}"
    told = _PLACE / "why-not"
    reason = told.read_text().strip() if told.exists() else ""
    return reason or "it is not set up; run `tools/setup system`"


#: The releases by the names that tests have for them. The first is always there, or the tests fail.
NAMES = ["rabbitmq"] if why_not() else ["rabbitmq", "rabbitmq4"]

#: For tests in which the broker matters little: one release will do.
on_one_rabbitmq = pytest.mark.parametrize("shared_world", ["sqlite", "rabbitmq"], indirect=True)


class Nodes:
    """One node of each release, started when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        """Choose where the machine's own release keeps its files; 4.x sees only what is below its root."""
        self._directory = directory
        self._nodes: dict[str, Node] = {}
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Node:
        """Return the node of that release. A missing server fails the test."""
        if name not in self._nodes:
            node = self._stack.enter_context(self._make(name))
            node.start()
            self._nodes[name] = node
        return self._nodes[name]

    def close(self) -> None:
        """Kill them all."""
        self._stack.close()

    def _make(self, name: str) -> Node:
        if name == "rabbitmq":
            return Node(self._directory)
        place = tempfile.TemporaryDirectory(dir=ROOT / "tmp", prefix="dibs-", ignore_cleanup_errors=True)
        return Node(Path(self._stack.enter_context(place)), root=ROOT)


def report() -> str:
    """Return what the run says in its last lines about the releases."""
    own = version_in(Path("/")) or "none: rabbitmq-server is not installed"
    if reason := why_not():
        return f"This machine's RabbitMQ: {own}. NO TEST RAN ON RABBITMQ 4.x: {reason}."
    return f"This machine's RabbitMQ: {own}. In a chroot: {version_in(ROOT)}."
