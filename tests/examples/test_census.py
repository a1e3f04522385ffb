"""`examples/stdlib_census.py` on a part of the standard library."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from examples import stdlib_census
from tests.rabbit_releases import on_one_rabbitmq
from tests.workers import ROOT
from tests.worlds import World


def census(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "examples/stdlib_census.py", *arguments],
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@on_one_rabbitmq
def test_workers_find_what_one_process_finds(shared_world: World) -> None:
    ran = census("--limit", "100", env={"DIBS_URL": shared_world.url})

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert "files                    100," in ran.stdout
    assert "all three found the same" in ran.stdout


def test_a_file_is_measured(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("class C:\n    def f(self):\n        return 1\n\nasync def g(): pass\n")
    bad.write_text("def\n")

    assert stdlib_census.measure(str(good)) == stdlib_census.Figures(str(good), True, 5, 2, 1, 2, "f")
    assert stdlib_census.measure(str(bad)) == stdlib_census.Figures(str(bad), False, 1)


def test_the_standard_library_is_found_and_no_package_of_others() -> None:
    paths = stdlib_census.standard_library()

    assert ast.__file__ in paths
    assert len(paths) > 500  # Debian leaves the tests of the library out
    assert not any("site-packages" in path for path in paths)
