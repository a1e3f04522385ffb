"""The public surface: what `dibs` exports, that each name is explained, and what importing it costs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dibs

DOCS = Path(__file__).parent.parent / "docs" / "reference"
#: What a program that only imports dibs must not pay for.
LAZY = {
    "opentelemetry",
    "pika",
    "sqlite3",
    "asyncio",
    "ssl",
    "logging",
    "multiprocessing",
    "subprocess",
    "pydantic",
    "http",
    "email",
    "pathlib",
    "urllib",
    "random",
}


def documented() -> set[str]:
    """Return the names that the pages of the reference describe."""
    text = "".join(page.read_text() for page in DOCS.glob("*.md"))
    return set(re.findall(r"^\.\. (?:auto\w+|py:data):: dibs\.(\w+)(?:\(\))?$", text, re.MULTILINE))


def test_the_reference_lists_exactly_the_public_names() -> None:
    assert documented() == set(dibs.__all__)


def test_all_lists_exactly_what_is_there_in_order() -> None:
    modules = {name for name, value in vars(dibs).items() if inspect.ismodule(value)}
    there = {name for name in vars(dibs) if not name.startswith("_")} - modules

    assert there == set(dibs.__all__)
    assert dibs.__all__ == sorted(dibs.__all__)


@pytest.mark.parametrize("name", [name for name in dibs.__all__ if name != "Outcome"])  # a union of four that have
def test_a_public_name_has_a_docstring_of_its_own(name: str) -> None:
    text = getattr(dibs, name).__doc__

    assert text
    assert text.strip()


@pytest.mark.parametrize("name", [name for name in dibs.__all__ if inspect.isclass(getattr(dibs, name))])
def test_public_methods_have_docstrings(name: str) -> None:
    kind = getattr(dibs, name)
    bare = [
        attribute
        for attribute, value in vars(kind).items()
        if not attribute.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property))
        and not inspect.getdoc(value)
    ]

    assert not bare


def test_every_error_stands_in_the_tree_of_the_errors_module() -> None:
    from dibs import errors

    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or "")) | {"DibsError"}

    assert classes == drawn
    assert classes <= set(dibs.__all__)
    assert all(issubclass(getattr(errors, name), dibs.DibsError) for name in classes)


def test_importing_dibs_imports_no_driver_and_nothing_slow() -> None:
    code = "import sys; before = set(sys.modules); import dibs; print(*sorted(set(sys.modules) - before))"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set(ran.stdout.split()) & LAZY == set()
