"""Whether the files are still those that were opened: never missed, and cheap to ask."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dibs.brokers.sqlite.files import Files

SUFFIXES = ["", "-wal", "-shm"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with the files beside it, in a directory that was last changed long ago."""
    directory = tmp_path / "data"
    directory.mkdir()
    for suffix in SUFFIXES:
        (directory / f"dibs.db{suffix}").touch()
    os.utime(directory, (0, 0))
    return directory / "dibs.db"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_removed_file_is_named(path: Path, suffix: str) -> None:
    files = Files(path)
    assert files.find_changed() is None

    Path(f"{path}{suffix}").unlink()

    assert files.find_changed() == f"{path}{suffix}"
    assert files.is_torn() is bool(suffix)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_replaced_file_is_named(path: Path, suffix: str) -> None:
    files = Files(path)
    assert files.find_changed() is None

    (path.parent / "other").touch()
    (path.parent / "other").rename(f"{path}{suffix}")

    assert files.find_changed() == f"{path}{suffix}"


def test_a_file_that_goes_within_the_tick_of_another_change_is_not_missed(path: Path) -> None:
    files = Files(path)
    (path.parent / "something").touch()
    times = path.parent.stat()
    assert files.find_changed() is None

    path.unlink()
    os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert files.find_changed() == str(path)


def test_files_of_others_come_and_go(path: Path) -> None:
    files = Files(path)
    assert files.find_changed() is None

    (path.parent / "something").touch()

    assert files.find_changed() is None


def test_a_directory_that_was_moved_takes_its_files_along(path: Path) -> None:
    files = Files(path)
    assert files.find_changed() is None

    path.parent.rename(path.parent.with_name("elsewhere"))

    assert files.find_changed() == str(path)


def test_a_wal_is_lost_only_while_nobody_has_written_another_one(path: Path) -> None:
    files = Files(path)
    wal, shm = Path(f"{path}-wal"), Path(f"{path}-shm")
    assert files.has_lost_wal()  # it is empty

    wal.write_bytes(b"frames of a newcomer")
    assert not files.has_lost_wal()
    wal.unlink()
    assert files.has_lost_wal()
    shm.unlink()
    assert files.has_lost_wal()
    (path.parent / "other").touch()
    (path.parent / "other").rename(shm)
    assert not files.has_lost_wal()
