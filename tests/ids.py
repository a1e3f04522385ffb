"""Names of parameters that are the same in every process of a parallel run."""

from __future__ import annotations

import re
from typing import Any


def stable(value: Any) -> str:
    """Return the value as text without addresses, and sets in order."""
    text = ", ".join(sorted(map(str, value))) if isinstance(value, (set, frozenset)) else str(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text)
