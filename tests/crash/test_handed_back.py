"""What was only handed back is nobody's fault: it is no suspect, and never dead with reason `crashed`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dibs import Dibs
from tests.conftest import make_world
from tests.evidence import events
from tests.waiting import until
from tests.workers import Worker
from tests.worlds_rabbitmq import RabbitWorld


def test_plain_messages_that_were_only_handed_back_are_no_suspects(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    world = make_world("rabbitmq", request)
    assert isinstance(world, RabbitWorld)
    log = tmp_path / "evidence.tsv"
    env = {"DIBS_TEST_NAMESPACE": world.namespace, "DIBS_TEST_LOG": str(log)}
    app = Dibs(world.url, namespace=world.namespace)
    for queue in ("plain", "again"):
        app.queue(queue, type="classic")
    app.queue("jobs")
    with Worker(
        "tests.crash.strangers:app", "--url", world.url, "-p", "1", "-c", "2", directory=tmp_path / "logs", env=env
    ) as worker:
        worker.wait_ready()
        for number in range(150):
            for queue in ("plain", "again"):
                app.send(queue, f"{queue} {number}")
        until(lambda: len({event.key for event in events(log, "ran")}) >= 300, within=60)

        assert app.broker.dead("plain", limit=1) == []
        assert app.broker.dead("again", limit=1) == []
        assert "is suspect" not in worker.log
    app.close()
    world.close()
