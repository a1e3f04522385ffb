"""What counts as a change of the code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dibs.worker import reload
from dibs.worker.reload import Watch


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reload, "_INTERVAL", 0.0)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "tasks.py").write_text("old")
    return tmp_path


def rewrite(folder: Path) -> None:
    file = folder / "package" / "tasks.py"
    file.write_text("new")
    os.utime(file, ns=(1, 1))


@pytest.mark.parametrize(
    "change",
    [
        rewrite,
        lambda folder: (folder / "new.py").write_text(""),
        lambda folder: (folder / "package" / "tasks.py").unlink(),
        lambda folder: (folder / "package").rename(folder / "other"),
    ],
    ids=["rewritten", "added", "removed", "moved"],
)
def test_a_python_file_that_changes_is_seen(folder: Path, change: Callable[[Path], object]) -> None:
    watch = Watch(folder)
    assert not watch.has_changed()

    change(folder)

    assert watch.has_changed()


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "venv/lib/x.py", ".git/x.py", "__pycache__/x.py", "a/node_modules/x.py", "a/site-packages/x.py"],
)
def test_what_is_not_the_users_own_code_is_not_looked_at(folder: Path, name: str) -> None:
    watch = Watch(folder)

    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("")

    assert not watch.has_changed()


def test_a_link_that_leads_nowhere_is_no_file(folder: Path) -> None:
    (folder / "broken.py").symlink_to(folder / "nosuch.py")

    assert not Watch(folder).has_changed()


def test_it_looks_twice_a_second_at_most(tmp_path: Path) -> None:
    watch = Watch(tmp_path)

    (tmp_path / "new.py").write_text("")

    assert not watch.has_changed()
