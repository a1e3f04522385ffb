"""Any order of calls, on any broker, leads where the state diagram of `dibs.broker` leads (P2, P3, P6).

Every broker, the one in memory among them, is held against one model. The one in memory could not be the model:
which job is handed out next is the broker's choice, and it can't be told to make another one's.

For a long run with new seeds, `DIBS_MODEL_RUNS=50 pytest tests/conformance/test_model.py` tries 50 times as many.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conformance.machine import Machine
from tests.worlds import World

#: How many examples each broker gets; those of RabbitMQ take seconds.
_EXAMPLES = {"memory": 100, "sqlite": 40}
_RUNS = int(os.environ.get("DIBS_MODEL_RUNS", "0"))


def test_any_order_of_calls_leads_where_the_state_diagram_leads(world: World) -> None:
    examples = _EXAMPLES.get(world.name, 10)
    profile = settings(
        max_examples=examples * max(1, _RUNS),
        stateful_step_count=30,
        derandomize=not _RUNS,
        phases=(Phase.explicit, Phase.generate),  # no shrinking: a broker's timing is never quite the same
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )

    class Here(Machine):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(Here, settings=profile)
