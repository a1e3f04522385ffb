"""What type checkers accept and refuse: the promise that `enqueue` is typed as the function is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ACCEPTED = Path("tests/types/accepted.py")
REFUSED = Path("tests/types/refused.py")

Errors = dict[str, dict[int, str]]


def run_mypy(_: Path) -> Errors:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--no-pretty",
        str(ACCEPTED),
        str(REFUSED),
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    found: Errors = {}
    for line in ran.stdout.splitlines():
        if error := re.match(r"(.+?):(\d+): error: (.*)", line):
            found.setdefault(Path(error[1]).name, {})[int(error[2])] = error[3]
    assert found or ran.returncode == 0, ran.stdout + ran.stderr
    return found


def run_pyright(directory: Path) -> Errors:
    for file in (ACCEPTED, REFUSED):  # copied, as the project's own configuration leaves one of them out
        shutil.copy(ROOT / file, directory)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    ran = subprocess.run(
        [*command, ACCEPTED.name, REFUSED.name],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    found: Errors = {}
    for error in json.loads(ran.stdout)["generalDiagnostics"]:
        if error["severity"] == "error":
            line = error["range"]["start"]["line"] + 1
            found.setdefault(Path(error["file"]).name, {})[line] = error["message"]
    return found


CHECKERS = {"mypy": run_mypy, "pyright": run_pyright}


@pytest.fixture(scope="module", params=CHECKERS)
def errors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """What each type checker says, by file and line."""
    return CHECKERS[request.param](tmp_path_factory.mktemp("types"))


def test_what_is_right_is_accepted(errors: Errors) -> None:
    assert errors.get(ACCEPTED.name, {}) == {}


def test_what_is_wrong_is_refused_on_its_line_and_nothing_else_is(errors: Errors) -> None:
    lines = (ROOT / REFUSED).read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}

    assert marked
    assert errors.get(REFUSED.name, {}).keys() == marked
