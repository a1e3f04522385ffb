"""The README and the pages of docs/, run.

Every `python` block is run, in the order of its page and in a directory of the page's own. A block whose first
line is a file's name (`# tasks.py`) is saved under that name and imported; any other is a program. A `console`
block is run only if `<!-- run -->` stands above it. `<!-- not run: why -->` above a `python` block leaves it at
a look at its syntax.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dibs.brokers.rabbitmq import wire
from dibs.cli.main import _parser

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
_FILE_NAME = re.compile(r"# (\w+)\.py\n")


class Block(NamedTuple):
    """A block of code on a page."""

    line: int
    language: str
    mark: str
    code: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(line, found["language"], found["mark"] or "", found["code"])


def run(command: list[str], directory: Path) -> None:
    """Run a command as a reader would, in a fresh shell with its own queue."""
    bin_directory = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "DIBS_URL": f"sqlite:///{directory / 'dibs.db'}",
        "PATH": f"{bin_directory}:{os.environ['PATH']}",
        "PYTHONPATH": str(directory),
        "PYTHONWARNINGS": "error",
    }
    environment.pop("DIBS_APP", None)
    ran = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"


def run_python(block: Block, directory: Path) -> None:
    if named := _FILE_NAME.match(block.code):
        (directory / f"{named[1]}.py").write_text(block.code)
        run([sys.executable, "-c", f"import {named[1]}"], directory)
    else:
        program = directory / f"line_{block.line}.py"
        program.write_text(block.code)
        run([sys.executable, program.name], directory)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=name_of)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "python" and block.mark.startswith("not run:"):
            compile(block.code, f"{page}:{block.line}", "exec")
        elif block.language == "python":
            run_python(block, tmp_path)
        elif block.language == "console" and block.mark == "run":
            for line in block.code.splitlines():
                run(["sh", "-c", line.removeprefix("$ ")], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_mark_is_one_of_two(page: Path) -> None:
    marks = {block.mark for block in blocks(page)}

    assert all(mark in {"", "run"} or mark.startswith("not run: ") for mark in marks)


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command and verb with its parser."""
    waiting = [("dibs", _parser())]
    while waiting:
        name, parser = waiting.pop()
        yield name, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += [(f"{name} {verb}", inner) for verb, inner in action.choices.items()]


def test_the_reference_names_every_command_and_option() -> None:
    text = (DOCS / "reference" / "cli.md").read_text()
    options = {
        option
        for _, parser in commands()
        for action in parser._actions
        for option in action.option_strings
        if option not in {"-h", "--help"}
    }

    assert {name for name, _ in commands() if name not in re.sub(r" +", " ", text)} == set()
    assert {option for option in options if option not in text} == set()


def test_the_wire_page_names_every_header() -> None:
    text = (DOCS / "reference" / "wire.md").read_text()

    assert {name for name in wire._CHECKS if f"`{name}`" not in text} == set()


def test_the_errors_page_shows_the_tree_of_the_errors_module() -> None:
    from dibs import errors

    tree = re.findall(r"[├└]── .*", errors.__doc__ or "")
    text = (DOCS / "reference" / "errors.md").read_text()

    assert tree
    assert [line for line in tree if line not in text] == []


def test_the_guarantees_name_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "guarantees.md").read_text()))
    there = {
        found
        for path in (ROOT / "tests").rglob("test_*.py")
        for found in re.findall(r"def (test_\w+)", path.read_text())
    }

    assert named
    assert named <= there


def test_the_guide_to_the_doctor_has_every_finding_and_no_other() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "dibs" / "doctor").glob("*.py"))
    rows = re.findall(r"^\| (`.*?`) \|", (DOCS / "guides" / "doctor.md").read_text(), re.MULTILINE)

    told = set(re.findall(r'name="([a-z-]+)"', source))

    assert told
    assert told == {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
