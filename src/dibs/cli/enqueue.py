"""`dibs enqueue`: hand over a job."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dibs.cli.arguments import open_app, read_json
from dibs.errors import BadArguments, UnknownTask

if TYPE_CHECKING:
    from dibs.app import Dibs
    from dibs.task import AnyTask


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("enqueue", help="hand over a job", description="Hand over one job and print its id.")
    parser.add_argument("task", metavar="module:app.task", help="e.g. shop:app.resize")
    parser.add_argument("args", nargs="*", metavar="JSON", help="positional arguments: '\"a.png\"' 200 '[1, 2]'")
    parser.add_argument("--kw", action="append", default=[], metavar="NAME=JSON", help="a keyword argument")
    parser.add_argument("--delay", type=float, metavar="SECONDS", help="before it may start")
    parser.add_argument("--queue", help="instead of the task's own")
    parser.add_argument("--id", help="the job's id, instead of a new one")
    parser.add_argument("--url", help="the broker (default: the app's own)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Hand the job over and print its id."""
    module, colon, rest = options.task.partition(":")
    attribute, dot, name = rest.partition(".")
    if not (colon and dot and name):
        raise UnknownTask(f"{options.task!r} names no task. Write module:app.task, e.g. shop:app.resize.")
    args = [read_json(text, f"Argument {number}") for number, text in enumerate(options.args, 1)]
    kwargs = dict(_read_keyword(text) for text in options.kw)
    options.app = f"{module}:{attribute}"
    with open_app(options) as app:
        task = _find(app, name).using(queue=options.queue, delay=options.delay, id=options.id)
        print(task.enqueue(*args, **kwargs).id)
    return 0


def _read_keyword(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadArguments(f"--kw {text!r}: write NAME=JSON, e.g. --kw width=200.")
    return name, read_json(value, f"--kw {name}")


def _find(app: Dibs, name: str) -> AnyTask:
    """Return the task by its name, or by its function's name where only one has it."""
    ending = [task for task in app.tasks.values() if task.name.endswith(f".{name}")]
    return ending[0] if name not in app.tasks and len(ending) == 1 else app.get_task(name)
