"""From what stands on the command line to the app."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dibs.errors import AppNotFound
from dibs.loading import load_app

TASKS = "from dibs import Dibs\napp = Dibs()\n@app.task\ndef work() -> None: ...\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("shop_")]:
        del sys.modules[name]


def write(path: str, text: str = TASKS) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_module_of_the_working_directory() -> None:
    write("shop_tasks.py")

    assert list(load_app("shop_tasks:app").tasks) == ["shop_tasks.work"]
    assert list(load_app("shop_tasks").tasks) == ["shop_tasks.work"]


@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_file_in_a_folder_is_called_as_the_program_that_it_is(is_absolute: bool) -> None:
    file = write("programs/shop_file.py")
    write("programs/shop_neighbour.py", "")
    file.write_text(f"import shop_neighbour\n{TASKS}")

    app = load_app(f"{file.absolute() if is_absolute else file}:app")

    assert list(app.tasks) == ["shop_file.work"]


def test_a_file_of_a_package_is_imported_as_part_of_it() -> None:
    write("lib/shop_package/__init__.py", "")
    write("lib/shop_package/inner/__init__.py", "")
    file = write("lib/shop_package/inner/tasks.py", f"from shop_package import inner\n{TASKS}")

    assert list(load_app(str(file)).tasks) == ["shop_package.inner.tasks.work"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("shop_missing:app", "There is no module 'shop_missing'"),
        ("folder/shop_missing.py", "There is no file"),
        ("", "names no module"),
        (":app", "names no module"),
        ("shop_present:wrong", "has no 'wrong'. Write shop_present:app."),
        ("shop_present:work", "is a Task, no Dibs app"),
        ("folder/os.py", "there is another module 'os'"),
    ],
)
def test_what_can_not_be_loaded_is_said_in_one_line(place: str, says: str) -> None:
    write("shop_present.py")
    write("folder/os.py")

    with pytest.raises(AppNotFound) as caught:
        load_app(place)

    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_can_not_be_imported_is_told_with_its_traceback() -> None:
    write("shop_broken.py", "import shop_not_installed\n")

    with pytest.raises(AppNotFound, match="shop_broken") as caught:
        load_app("shop_broken:app")

    assert "line 1, in <module>" in str(caught.value)
    assert "No module named 'shop_not_installed'" in str(caught.value)
