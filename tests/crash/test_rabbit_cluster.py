"""A cluster of three nodes that are killed under load: others take over, and nothing is lost (P1, P2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.conftest import Stage
from tests.crash.test_broken_rabbitmq import Behind, assert_calm, assert_done, assert_told_in_time
from tests.load import Load
from tests.rabbit_cluster import Cluster
from tests.waiting import until


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        made.start()
        yield made


@pytest.fixture
def stage(cluster: Cluster, tmp_path: Path) -> Iterator[Stage]:
    """A stage whose URL names all three."""
    with ExitStack() as stack:
        made = Stage(Behind(cluster.url), tmp_path, stack, handover_timeout=3.0)
        yield made
        made.app.close()


def test_nodes_of_a_cluster_may_be_killed_under_load(stage: Stage, cluster: Cluster) -> None:
    worker = stage.worker("-p", "1", "-c", "2")

    with Load(stage.app) as load:
        load.go_on()
        cluster.declare_last()
        first = cluster.connected("dibs consumer")
        first.kill()
        load.go_on()
        first.start()
        second = cluster.leader(f"{stage.namespace}.default")
        second.kill()
        load.go_on()
        is_told = len(load.errors)
        next(node for node in cluster.nodes if node.is_running).kill()  # the last one may not go on alone
        until(lambda: len(load.errors) > is_told)
        cluster.start()
        load.go_on()

    assert_done(stage, load.stored)
    assert_told_in_time(load)
    assert_calm(worker, outages=5)
