"""One thing that is wrong: what, why it matters, and what mends it."""

from __future__ import annotations

from typing import Literal

import msgspec

#: "problem": jobs are lost, stuck or refused, or soon will be. "warning": they may be. "note": to be known.
Severity = Literal["problem", "warning", "note"]
#: The worst first.
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 job", "2 jobs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one thing."""

    #: A name for programs, which stays the same.
    name: str
    severity: Severity
    what: str
    why: str
    #: A command where there is one, else what to do.
    mend: str
