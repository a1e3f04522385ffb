"""`/metrics` of the dashboard, as Prometheus reads it."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.dashboard.scenes import Scene, busy
from tests.dashboard.serving import served

TOKEN = "a token that is long enough"


def test_queues_and_workers_are_told(scene: Scene) -> None:
    busy(scene)
    ready = {info.name: info.ready for info in scene.broker.queues()}

    with served(scene.app) as dashboard:
        answer = httpx.get(f"{dashboard.url}/metrics", trust_env=False)

    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {sample.labels["queue"]: sample.value for sample in families["dibs_queue_ready"].samples} == ready
    assert all(sample.labels["worker"] for sample in families["dibs_slots"].samples)


@pytest.mark.parametrize(("token", "status"), [(TOKEN, 200), ("wrong", 401)])
def test_a_token_is_asked_for_as_everywhere(scene: Scene, token: str, status: int) -> None:
    busy(scene)

    with served(scene.app, token=TOKEN) as dashboard:
        answer = httpx.get(f"{dashboard.url}/metrics", headers={"authorization": f"Bearer {token}"}, trust_env=False)

    assert answer.status_code == status
    assert ("dibs_queue" in answer.text) == (status == 200)
