"""Virtual environments of the bench's own, one for each set of requirements, kept between runs."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_INSTALL_WITHIN = 600.0
_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


class InstallFailed(Exception):
    """pip could not install what a system needs; the text has its last words."""


def interpreter(requirements: Sequence[str], folder: Path) -> Path:
    """Return a Python that has the requirements installed; makes its environment at first use.

    Without requirements that is the interpreter that runs the bench, which has dibs.

    Raises:
        InstallFailed: pip said no.
    """
    if not requirements:
        return Path(sys.executable)
    place = folder / _name(requirements)
    python, stamp = place / "bin" / "python", place / ".installed"
    if stamp.exists():
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(place)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    stamp.touch()
    return python


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of installed distributions."""
    if not packages:
        return {}
    found: dict[str, str] = json.loads(_run([str(python), "-c", _VERSIONS, *packages]))
    return found


def _name(requirements: Sequence[str]) -> str:
    """Return a folder's name that says what is inside and differs for other requirements or another Python."""
    words = re.sub(r"[^a-z0-9]+", "-", " ".join(requirements).lower()).strip("-")
    digest = hashlib.sha256(json.dumps([sys.executable, sys.version, *requirements]).encode()).hexdigest()
    return f"{words}-{digest[:8]}"


def _run(command: Sequence[str]) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        raise InstallFailed(f"{' '.join(command)} took longer than {_INSTALL_WITHIN:.0f} s.") from None
    if ran.returncode:
        raise InstallFailed(f"{' '.join(command)} failed: {_reason(ran.stderr)}")
    return ran.stdout


def _reason(errors: str) -> str:
    """Return the lines of pip's errors that say something, as one."""
    lines = [line.strip(" ╰─>│×") for line in errors.splitlines()]
    telling = [line for line in lines if re.match(r"(?i)error|.*(failed|no matching|could not)", line)]
    return " / ".join((telling or lines)[:3])[:400]
