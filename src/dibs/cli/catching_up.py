"""Taking in what the ledger has recorded, with a bar at a terminal where that takes a while."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dibs.ledger.ledger import Ledger

#: Seconds before which no bar is drawn: most often there is next to nothing to take in.
_PATIENCE = 0.4
_WIDTH = 30


def catch_up(ledger: Ledger) -> Ledger:
    """Bring the ledger up to now, and return it. Says so where some of it went before anybody read it."""
    from dibs.trial.screen import Screen  # noqa: PLC0415

    screen, begun = Screen(sys.stderr), time.monotonic()

    def draw(read: int, total: int) -> None:
        if total > 0 and time.monotonic() - begun > _PATIENCE:
            share = min(read / total, 1.0)
            full, empty = ("█", "░") if screen.has_drawing else ("#", ".")
            drawn = (full * round(share * _WIDTH)).ljust(_WIDTH, empty)
            screen.transient(f"reading the ledger  {drawn}  {share:4.0%}  {read:,} of {total:,} records")

    try:
        ledger.refresh(draw)
    finally:
        screen.clear()
    if ledger.missed:
        print(
            f"dibs: {ledger.missed:,} entries of the ledger were deleted before they were read here, so what "
            "they said of jobs is missing. See ledger_age= and ledger_bytes= for the URL.",
            file=sys.stderr,
        )
    return ledger
