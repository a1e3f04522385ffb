"""Help: it is there for every command, and costs next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Shell

COMMANDS = [
    "worker",
    "send",
    "enqueue",
    "status",
    "top",
    "queues",
    "workers",
    "jobs",
    "job",
    "result",
    "cancel",
    "pause",
    "resume",
    "dead",
    "purge",
    "doctor",
    "demo",
    "chaos",
]
VERBS = ["list", "show", "replay", "drop"]
#: What help has no need of. Together they cost several times as much as all that it does need.
NEEDLESS = {"asyncio", "pika", "sqlite3", "ssl", "logging", "subprocess", "multiprocessing", "dibs.worker", "http"}


def test_help_names_every_command_exit_code_and_variable(shell: Shell) -> None:
    ran = shell.ok("--help")

    assert all(f"\n    {command} " in ran.out for command in COMMANDS)
    assert all(f"\n  {code}  " in ran.out for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130))
    assert "DIBS_URL" in ran.out
    assert "DIBS_APP" in ran.out


@pytest.mark.parametrize(
    "command", [*([name] for name in COMMANDS), *(["dead", verb] for verb in VERBS)], ids=" ".join
)
def test_every_command_has_help(shell: Shell, command: list[str]) -> None:
    ran = shell.ok(*command, "--help")

    assert ran.out.startswith(f"usage: dibs {' '.join(command)} ")
    assert ran.err == ""


def test_a_command_loads_no_other_one() -> None:
    code = (
        "import sys\n"
        "from dibs.cli.main import main\n"
        "try:\n"
        "    main(['resume', '--help'])\n"
        "finally:\n"
        "    print('\\nMODULES', *sys.modules)"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    modules = set(ran.stdout.partition("MODULES")[2].split())
    assert "dibs.cli.pause" in modules
    assert modules & {"dibs.cli.dead", "dibs.cli.jobs", "dibs.cli.move", "dibs.cli.worker"} == set()


def test_help_imports_little() -> None:
    code = (
        "import sys\n"
        "from dibs.cli.main import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    print('\\nMODULES', *sys.modules)"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    modules = ran.stdout.partition("MODULES")[2].split()
    assert "dibs.cli.main" in modules
    assert NEEDLESS & set(modules) == set()
    assert len(modules) < 250, f"{len(modules)} modules"


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    from importlib.metadata import version

    assert shell.ok("--version").out == f"dibs {version('dibs')}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["nosuch"], ["worker"], ["send", "q"], ["dead", "show"], ["queues", "--nosuch"]]
)
def test_a_command_line_that_makes_no_sense_exits_2_with_its_usage(shell: Shell, arguments: list[str]) -> None:
    ran = shell.dibs(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("usage: dibs")


def test_the_script_and_the_module_are_one(shell: Shell) -> None:
    from pathlib import Path

    script = Path(sys.executable).with_name("dibs")

    ran = subprocess.run([script, "--help"], env=shell.env, capture_output=True, text=True, check=True)

    assert ran.stdout == shell.ok("--help").out
