"""Text that strangers wrote, made fit to show."""

from __future__ import annotations


def visible(text: str) -> str:
    """Return text from a stranger such that a terminal shows it and obeys nothing in it."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
    )
