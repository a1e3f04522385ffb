"""The architecture, held by the import statements: a file of src/dibs imports from its own floor or below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent.parent / "src"

#: The floor of each module, or of everything in a package. The longest name that fits counts.
FLOORS = {
    "dibs.errors": 0,
    "dibs.message": 0,
    "dibs.names": 0,
    "dibs.text": 0,
    "dibs.raised": 0,
    "dibs.outcome": 0,
    "dibs.selection": 0,
    "dibs.backoff": 0,
    "dibs.codec": 0,
    "dibs.url": 0,
    "dibs.settings": 0,
    "dibs.current": 0,
    "dibs.ledger": 1,
    "dibs.facts": 1,
    "dibs.broker": 1,
    "dibs.moving.ends": 1,
    "dibs.brokers.memory": 2,
    "dibs.brokers.sqlite": 2,
    "dibs.brokers.rabbitmq": 2,
    "dibs.brokers": 3,
    "dibs.metrics": 3,
    "dibs.job": 3,
    "dibs.queues": 3,
    "dibs.connection": 3,
    "dibs.task": 3,
    "dibs.listener": 3,
    "dibs.lifespan": 3,
    "dibs.moving": 4,
    "dibs.run": 4,
    "dibs.drain": 4,
    "dibs.app": 4,
    "dibs.otel": 4,
    "dibs.loading": 4,
    "dibs.worker": 5,
    "dibs.trial": 5,
    "dibs.dashboard": 6,
    "dibs.demo": 6,
    "dibs.top": 6,
    "dibs.chaos": 6,
    "dibs.doctor": 6,
    "dibs.cli": 7,
    "dibs": 7,
}
#: Who may import what comes from outside. What is not named here nobody imports.
DRIVERS = {
    "opentelemetry": ("dibs.otel",),
    "pika": ("dibs.brokers.rabbitmq",),
    **dict.fromkeys(("starlette", "uvicorn", "jinja2", "markupsafe"), ("dibs.dashboard",)),
    # RabbitMQ's ledger is read through an index, which is an SQLite file.
    "sqlite3": ("dibs.brokers.sqlite", "dibs.brokers.rabbitmq.ledger", "dibs.ledger.tables", "dibs.ledger.history"),
}
#: What every file may import besides the standard library.
EVERYWHERE = {"msgspec"}
#: Names that say nothing about what is inside.
NAMELESS = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}
LONGEST_FILE = 400


class Import(NamedTuple):
    """One import, as a module's full name."""

    importer: str
    imported: str
    line: int
    #: For the type checker only: never run, so it makes no cycle.
    is_for_types: bool

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(SOURCE.rglob("*.py"))
MODULES = {module_name(path): path for path in FILES}


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """Yield every import of a file, those inside functions too."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for inner in ast.walk(block)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=source, names=names, level=0):
                # `from dibs import codec` imports dibs.codec; `from dibs.codec import encode` a thing in it
                full = [f"{source}.{alias.name}" for alias in names]
                found = [name if name in MODULES else source or "" for name in full]
            case ast.ImportFrom():
                raise AssertionError(f"{module}, line {node.lineno}: a relative import")
            case _:
                continue
        for imported in found:
            yield Import(module, imported, node.lineno, id(node) in for_types)


IMPORTS = [found for name, path in MODULES.items() for found in imports_of(name, path)]
INNER = [found for found in IMPORTS if found.imported.partition(".")[0] == "dibs"]


def belongs_to(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def place_of(module: str) -> str:
    """Return the entry of FLOORS that a module falls under; its own package does not count for what is inside."""
    fitting = [place for place in FLOORS if belongs_to(module, place) and (place != "dibs" or module == "dibs")]
    assert fitting, f"{module} stands on no floor: give it one in FLOORS"
    return max(fitting, key=len)


def test_every_module_stands_on_a_floor() -> None:
    places = {place_of(module) for module in MODULES}

    assert places <= FLOORS.keys()


def test_imports_go_down() -> None:
    wrong = [found for found in INNER if FLOORS[place_of(found.importer)] < FLOORS[place_of(found.imported)]]

    assert not wrong, "\n".join(map(str, wrong))


def test_brokers_do_not_know_each_other() -> None:
    wrong = [
        found
        for found in INNER
        if FLOORS[place_of(found.importer)] == FLOORS[place_of(found.imported)] == 2
        and place_of(found.importer) != place_of(found.imported)
    ]

    assert not wrong, "\n".join(map(str, wrong))


def test_there_is_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for found in INNER:
        # A package's __init__ runs before its modules and imports them: that is no cycle of theirs.
        if not found.is_for_types and not belongs_to(found.importer, found.imported):
            graph.setdefault(found.importer, set()).add(found.imported)
    # app.py imports drain.py when it is first asked to drain, and drain.py knows the app's type only.

    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_driver_is_imported_by_its_broker_alone() -> None:
    wrong = [
        found
        for found in IMPORTS
        for driver, homes in DRIVERS.items()
        if belongs_to(found.imported, driver)
        and not any(belongs_to(found.importer, home) for home in homes)
        and not found.is_for_types  # `enqueue_in` takes the user's own sqlite3.Connection
    ]

    assert not wrong, "\n".join(map(str, wrong))


def test_nothing_else_comes_from_outside() -> None:
    import sys

    known = sys.stdlib_module_names | EVERYWHERE | DRIVERS.keys() | {"dibs"}
    wrong = [found for found in IMPORTS if found.imported.partition(".")[0] not in known]

    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_is_one_noun_of_reasonable_length(path: Path) -> None:
    lines = len(path.read_text().splitlines())

    assert lines <= LONGEST_FILE, f"{lines} lines: which noun is hiding in {path.name}?"
    assert path.stem not in NAMELESS, f"{path.name} says nothing about what is inside"
