"""What a terminal sends for keys, as their names."""

from __future__ import annotations

import re

#: In the forms of xterm, its application mode, the Linux console and rxvt.
_NAMES = {
    "[A": "up", "[B": "down", "[C": "right", "[D": "left", "[H": "home", "[F": "end",
    "OA": "up", "OB": "down", "OC": "right", "OD": "left", "OH": "home", "OF": "end",
    "[1~": "home", "[7~": "home", "[4~": "end", "[8~": "end", "[5~": "page-up", "[6~": "page-down", "[Z": "back-tab",
}  # fmt: skip
#: A sequence that a key sends, whole; else one sign.
_KEY = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O[@-~])|\x1b|[^\x1b]", re.DOTALL)


def names(text: str) -> list[str]:
    """Return the names of the keys in what was read: letters are themselves, unknown sequences are left out."""
    found: list[str] = []
    for key in _KEY.finditer(text):
        sign = key[0]
        if sign == "\t":
            found.append("tab")
        elif key[1] is not None:
            found += [_NAMES[key[1]]] if key[1] in _NAMES else []
        elif sign == "\x1b":
            found.append("escape")
        else:
            found.append(sign)
    return found
