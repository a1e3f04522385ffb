"""What was raised, read back from the text that a traceback left.

The form is that of `traceback.format_exception`: chained exceptions, groups and messages of several lines included;
and what `clip_error` makes of it when it is long.
"""

from __future__ import annotations

import re

_HEADER = "Traceback (most recent call last):"
_GROUP_HEADER = "  + Exception Group Traceback (most recent call last):"
#: What stands between an exception and the one that came of it.
_CHAIN = re.compile(
    r"\n\n(?:The above exception was the direct cause of the following exception|"
    r"During handling of the above exception, another exception occurred):\n\n"
)
_CUT = re.compile(r"\[… \d+ bytes cut …\]")
#: A line that names an exception: `ValueError`, `package.Error: message`, `function.<locals>.Error: message`.
_RAISED = re.compile(r"([^\W\d][\w.<>]*)(?:: (.*)|:?)", re.DOTALL)


def raised_in(text: str) -> tuple[str, str]:
    """Return the type's name, without its module, and the message of what was raised last.

    The name is "" and the message the whole text, where the text does not come of an exception.
    """
    last = _CHAIN.split(text)[-1]
    if last.startswith(_GROUP_HEADER):
        last = _without_margin(last)
    found = _RAISED.fullmatch(_below_stack(last.strip("\n").split("\n")))
    if found is None:
        return "", text
    return found[1].rpartition(".")[2], (found[2] or "").rstrip("\n")


def _without_margin(text: str) -> str:
    """Return the part of a group's text that is the group's own: the exceptions in it come behind."""
    lines = text.split("\n")
    own = [line.removeprefix("  | ") for line in lines[1:] if line.startswith("  |")]
    nested = next((at for at, line in enumerate(own) if line.startswith("  +-+")), len(own))
    return "\n".join([_HEADER, *own[:nested]])


def _below_stack(lines: list[str]) -> str:
    """Return the lines that stand below the frames: the exception and its message."""
    if lines[0] != _HEADER:
        return "\n".join(lines)
    at = 1
    while at < len(lines) and (lines[at].startswith(" ") or _CUT.fullmatch(lines[at])):
        # What was cut ends in the middle of a line, which says nothing.
        at += 2 if _CUT.fullmatch(lines[at]) else 1
    return "\n".join(lines[at:])
