"""What a worker's processes import: each module that one of them never uses is memory that every worker pays for."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Takes megabytes, and nothing of a worker that runs plain functions and serves no metrics needs it.
LARGE = {"asyncio", "http.server", "email", "html", "ssl", "multiprocessing"}
DRIVERS = {"sqlite3", "pika", "dibs.brokers.sqlite", "dibs.brokers.rabbitmq"}


def _modules_after(code: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split())


@pytest.mark.parametrize("url", ["sqlite:///jobs.db", "amqp://guest:guest@localhost/%2F?heartbeat=5", "memory://"])
def test_an_executor_whose_tasks_hand_nothing_over_has_no_broker(url: str) -> None:
    made = f"app = dibs.Dibs({url!r}); app.use({url!r}, may_create=True)"
    modules = _modules_after(f"import dibs, dibs.worker.main, dibs.worker.executor\n{made}")

    assert "dibs.worker.serving" in modules
    assert modules & (LARGE | DRIVERS) == set()


def test_a_supervisor_that_serves_no_metrics_has_no_http_server() -> None:
    modules = _modules_after("import dibs.cli.main, dibs.worker.supervisor, dibs.worker.reload, dibs.brokers.sqlite")

    assert "dibs.worker.supply" in modules
    assert modules & (LARGE | {"pika"}) == set()
    assert not any(name.startswith("dibs.metrics") for name in modules)
