"""What an app's module raises when it is imported: shown from the module's own line on, without passwords."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dibs.errors import AppNotFound
from dibs.loading import load_app
from dibs.outcome import ERROR_BYTES


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module's file, to be written by the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "shop_broken.py"
    sys.modules.pop("shop_broken", None)


def load() -> str:
    with pytest.raises(AppNotFound) as caught:
        load_app("shop_broken:app")
    return str(caught.value)


def test_the_traceback_begins_in_the_module(module: Path) -> None:
    module.write_text("def f():\n    raise ValueError('boom')\n\nf()\n")

    said = load()

    assert said.startswith("Module 'shop_broken' can't be imported:\nTraceback")
    assert said.splitlines()[2].strip() == f'File "{module}", line 4, in <module>'
    assert said.endswith("ValueError: boom")


def test_a_password_in_the_source_is_not_shown(module: Path) -> None:
    module.write_text("from dibs import Dibs\napp = Dibs('amqp://user:s3cr3t@host:port/v')\n")

    said = load()

    assert "user:***@host" in said
    assert "s3cr3t" not in said


def test_a_traceback_of_any_length_is_clipped(module: Path) -> None:
    module.write_text("raise ValueError('x' * 100_000)\n")

    assert len(load().encode()) < ERROR_BYTES + 100


def test_what_the_module_can_not_find_is_not_taken_for_the_module(module: Path) -> None:
    module.write_text("import shop_broken_too\n")

    said = load()

    assert "No module named 'shop_broken_too'" in said
    assert "line 1" in said


def test_ctrl_c_while_importing_is_no_fault_of_the_module(module: Path) -> None:
    module.write_text("raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        load_app("shop_broken:app")


@pytest.mark.parametrize("place", ["", ":app", ".app", "..a:app", "a..b:app", "a.:app", "\0:app"], ids=repr)
def test_what_names_no_module_is_told(module: Path, place: str) -> None:
    with pytest.raises(AppNotFound, match="names no module"):
        load_app(place)


def test_a_module_without_an_app_is_told_how_to_make_one(module: Path) -> None:
    module.write_text("")

    assert "app = Dibs()" in load()
