"""What is on the screen, as values: the broker's last look, what the user is at, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from dibs.top.look import Look, Rates

#: The panes, from top to bottom.
Pane = Literal["queues", "workers", "failures"]
PANES: tuple[Pane, ...] = ("queues", "workers", "failures")


class Deed(msgspec.Struct, frozen=True):
    """Something that the user wants done to the broker."""

    verb: Literal["pause", "resume", "cancel", "replay"]
    #: The queue's name, or the job's id.
    target: str
    #: Whose dead letter it is.
    queue: str = ""
    #: Who is meant, for people.
    name: str = ""


class Cursor(msgspec.Struct, frozen=True):
    """Which row of a pane is chosen: the one with this key; should it be gone, the one that took its place."""

    key: str = ""
    index: int = 0

    def place(self, keys: list[str]) -> int:
        """Return the index of the chosen row among these."""
        if self.key in keys:
            return keys.index(self.key)
        return max(0, min(self.index, len(keys) - 1))


class State(msgspec.Struct, frozen=True):
    """What the user is at."""

    pane: Pane = "queues"
    cursors: Mapping[Pane, Cursor] = {}
    #: To be confirmed.
    question: Deed | None = None
    is_help: bool = False
    #: What came of the last deed.
    said: str = ""
    is_quitting: bool = False

    def cursor(self, pane: Pane) -> Cursor:
        """Return the cursor of a pane."""
        return self.cursors.get(pane, Cursor())


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that a screen is drawn from."""

    #: Where the broker is.
    location: str
    #: In ms since 1970.
    now: int
    #: None: there has been no answer yet.
    look: Look | None
    rates: Rates = Rates()
    state: State = State()
    #: Why the broker can't be asked; "": it can.
    trouble: str = ""
