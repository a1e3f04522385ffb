"""All scenarios, in the order in which they are run and shown."""

from __future__ import annotations

from bench.scenario import Scenario
from bench.scenarios import depth, drain, enqueue, fairness, growth, latency, payload, redelivery, startup

SCENARIOS: dict[str, Scenario] = {
    module.SCENARIO.name: module.SCENARIO
    for module in (enqueue, drain, latency, fairness, redelivery, payload, startup, depth, growth)
}
