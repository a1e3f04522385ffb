"""`dibs doctor`: what is wrong with what dibs runs on, and how to mend it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dibs.cli.arguments import add_broker, add_json, print_json
from dibs.text import visible

if TYPE_CHECKING:
    from dibs.app import Dibs
    from dibs.doctor.finding import Finding
    from dibs.doctor.scene import Scene

#: The exit code where a problem was found.
_SICK = 9
#: Seconds that the broker may take to answer.
_PATIENCE = 5.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="say what is wrong with what dibs runs on, and how to mend it",
        description="Look at the broker, the queues, the workers and the jobs, and say what is wrong: what, why it "
        "matters, and what mends it. Changes nothing. Exit code 9: there is a problem; warnings and notes alone: 0.",
    )
    parser.add_argument("names", nargs="*", metavar="QUEUE", help="these too, where the broker can't list its queues")
    parser.add_argument("--deep", action="store_true", help="read the whole SQLite file, however long that takes")
    add_broker(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine, and print what was found."""
    from dibs.doctor.diagnosis import diagnose  # noqa: PLC0415

    scene = _examine(options)
    findings = diagnose(scene)
    if options.json:
        print_json(_as_json(scene, findings))
    else:
        _show(scene, findings)
    return _SICK if any(finding.severity == "problem" for finding in findings) else 0


def _examine(options: argparse.Namespace) -> Scene:
    """Gather all that is to be known, through a broker that may make nothing."""
    import logging  # noqa: PLC0415
    from importlib.metadata import version  # noqa: PLC0415

    from dibs.app import Dibs  # noqa: PLC0415
    from dibs.brokers import connect  # noqa: PLC0415
    from dibs.doctor.scene import gather  # noqa: PLC0415
    from dibs.errors import UsageError  # noqa: PLC0415
    from dibs.loading import load_app  # noqa: PLC0415

    logging.getLogger("dibs").addHandler(logging.NullHandler())  # what is wrong is among the findings
    app = load_app(options.app) if options.app else Dibs()
    broker = connect(
        options.url or app.url,
        namespace=app.namespace,
        handover_timeout=_PATIENCE,
        may_declare=False,
        may_create=False,
    )
    if broker.location == "memory://":
        raise UsageError("memory:// is in one process alone: there is nothing to look at.")
    try:
        return gather(
            broker,
            _queues(app, options.names),
            tasks=set(app.tasks) if options.app else None,
            version=version("dibs"),
            may_declare=app.may_declare,
            is_deep=options.deep,
        )
    finally:
        broker.close()


def _queues(app: Dibs, names: list[str]) -> list[Any]:
    from dibs.broker import Queue  # noqa: PLC0415
    from dibs.names import check_queue_name  # noqa: PLC0415

    known = {queue.name: queue for queue in app.declared()}
    return list(({check_queue_name(name): Queue(name=name) for name in names} | known).values())


def _as_json(scene: Scene, findings: list[Finding]) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    return {
        "location": scene.facts.location,
        "server": scene.facts.server,
        "not_asked": scene.facts.not_asked,
        "findings": msgspec.to_builtins(findings),
    }


def _show(scene: Scene, findings: list[Finding]) -> None:
    print(f"{scene.facts.location}  {scene.facts.server}")
    for left_out in scene.facts.not_asked:
        print(f"not asked: {visible(left_out)}")
    for finding in findings:
        print(f"\n{finding.severity}: {visible(finding.what)}  [{finding.name}]")
        print(f"   why: {visible(finding.why)}")
        print(f"  mend: {visible(finding.mend)}")
    if not findings:
        print("nothing wrong")
