"""How a worker is to run, and how many CPUs it may use."""

from __future__ import annotations

import os
from typing import Any

import pytest

from dibs.errors import BadOption
from dibs.worker import options
from dibs.worker.options import WorkerOptions, usable_cpus


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"slots": 0}, "-c 0"),
        ({"slots": -1}, "-c -1"),
        ({"processes": 0}, "-p 0"),
        ({"grace": -1.0}, "--grace -1.0"),
        ({"grace": float("inf")}, "--grace inf"),
        ({"grace": float("nan")}, "--grace nan"),
    ],
    ids=str,
)
def test_an_option_out_of_bounds_is_named_as_it_was_typed(option: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption) as caught:
        WorkerOptions(app="shop:app", **option)

    assert said in str(caught.value)


def test_the_number_of_executors_is_what_was_said_else_the_usable_cpus() -> None:
    assert WorkerOptions(app="shop:app", processes=7).executors == 7
    assert WorkerOptions(app="shop:app").executors == usable_cpus()
    assert WorkerOptions(app="shop:app", grace=0).grace == 0


@pytest.mark.parametrize(("quota", "cpus"), [(None, 8), (0.5, 1), (1.0, 1), (2.5, 3), (100.0, 8)], ids=str)
def test_usable_cpus_are_those_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(options, "_cgroup_quota", lambda: quota)

    assert usable_cpus() == cpus
