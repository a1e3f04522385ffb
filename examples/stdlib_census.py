"""A census of the installed Python standard library: one job per source file.

    python examples/stdlib_census.py

Each file is parsed, and its lines, functions and classes are counted: first here, one file after the other, then by
a worker with one executor, then by one with two. All three must find the same, to the last figure.

Each job sends what it found as a plain message to the queue `census.figures`, from which this program collects. With
nothing else installed the queues are a file in a temporary directory; with DIBS_URL they are where that says.
"""

import argparse
import ast
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from dibs import Dibs, Message


@dataclass(frozen=True)
class Figures:
    path: str
    #: Some files are there to be refused by the parser; they count as that in all three ways.
    is_parsed: bool
    lines: int = 0
    functions: int = 0
    classes: int = 0
    longest: int = 0
    longest_name: str = ""


def measure(path: str) -> Figures:
    source = Path(path).read_bytes()
    lines = len(source.splitlines())
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return Figures(path, is_parsed=False, lines=lines)
    nodes = list(ast.walk(tree))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest, name = max(((_length(node), node.name) for node in functions), default=(0, ""))
    classes = sum(isinstance(node, ast.ClassDef) for node in nodes)
    return Figures(path, True, lines, len(functions), classes, longest, name)


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


# The worker's side

app = Dibs()
app.queue("census.figures")


@app.task(queue="census")
def census(path: str) -> None:
    app.send("census.figures", asdict(measure(path)))


# The collecting side: an app of its own, whose only queue is that of the figures

collector = Dibs()
#: By path: a job runs at least once, and what it sends twice counts once.
collected: dict[str, Figures] = {}


@collector.consumer("census.figures")
def collect(message: Message) -> None:
    figures = Figures(**message.json())
    collected[figures.path] = figures


def measure_here(paths: Sequence[str]) -> dict[str, Figures]:
    found = {}
    for path in paths:
        found[path] = measure(path)
        show_progress("serial", len(found), len(paths))
    return found


def measure_by_worker(paths: Sequence[str], executors: int) -> dict[str, Figures]:
    title = f"{executors} executor" + "s" * (executors > 1)
    collected.clear()
    app.enqueue_many([census.prepare(path) for path in paths])
    command = ["worker", f"{__file__}:app", "-q", "census", "-p", str(executors), "--burst"]
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen([sys.executable, "-m", "dibs.cli.main", *command], stderr=log)
        while worker.poll() is None:  # in a burst, a worker ends when nothing is left to do
            time.sleep(0.2)
            collector.drain()
            show_progress(title, len(collected), len(paths))
        if worker.returncode:
            log.seek(0)
            sys.exit(f"The worker failed:\n{log.read().decode()}")
    collector.drain()
    show_progress(title, len(collected), len(paths))
    return dict(collected)


def show_progress(title: str, done: int, total: int) -> None:
    if not sys.stdout.isatty():
        return
    filled = 40 * done // total
    print(f"\r{title:12} {'█' * filled}{'░' * (40 - filled)} {done:5} of {total}", end="", flush=True)


def standard_library() -> list[str]:
    root = Path(sysconfig.get_path("stdlib"))
    foreign = {"site-packages", "dist-packages"}
    return sorted(str(path) for path in root.rglob("*.py") if foreign.isdisjoint(path.relative_to(root).parts))


def summarize(found: dict[str, Figures]) -> list[str]:
    longest = max(found.values(), key=lambda figures: (figures.longest, figures.path))
    refused = sum(not one.is_parsed for one in found.values())
    return [
        f"files              {len(found):9,}, of which {refused} can't be parsed",
        f"lines              {sum(one.lines for one in found.values()):9,}",
        f"functions          {sum(one.functions for one in found.values()):9,}",
        f"classes            {sum(one.classes for one in found.values()):9,}",
        f"longest function   {longest.longest:9,} lines: {longest.longest_name} in {Path(longest.path).name}",
    ]


def cpu_seconds() -> float:
    """CPU time of this process and of the workers that have ended: on a busy machine there is less of it to have."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def somewhere() -> Iterator[None]:
    """Say where the queues are, to this program and to the workers that it starts."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ.setdefault("DIBS_URL", f"sqlite:///{directory}/census.db")
        yield
        app.close()
        collector.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Count what is in the Python standard library, in three ways.")
    parser.add_argument("--limit", type=int, help="so many files only, picked evenly")
    options = parser.parse_args()
    paths = standard_library()
    if options.limit:
        paths = paths[:: max(1, len(paths) // options.limit)][: options.limit]
    found, times, cpus = [], [], []
    with somewhere():
        for executors in (0, 1, 2):
            begin, cpu_begin = time.perf_counter(), cpu_seconds()
            found.append(measure_by_worker(paths, executors) if executors else measure_here(paths))
            times.append(time.perf_counter() - begin)
            cpus.append((cpu_seconds() - cpu_begin) / times[-1])
            print(end="\n" if sys.stdout.isatty() else "")
    print("", *summarize(found[0]), "", sep="\n")
    print("                     seconds   files/s  CPUs used")
    for name, seconds, used in zip(("serial", "1 executor", "2 executors"), times, cpus, strict=True):
        print(f"{name:18} {seconds:9.2f} {len(paths) / seconds:9.0f} {used:10.2f}")
    print(f"\ntwo executors against one: {times[1] / times[2]:.2f} times as fast")
    is_equal = found[0] == found[1] == found[2]
    print("all three found the same" if is_equal else "THE SUMS DIFFER:")
    for other in found[1:] if not is_equal else []:
        print("", *summarize(other), sep="\n")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
