"""How a worker comes to its end."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from dibs.worker.ending import Ending
from dibs.worker.signals import Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as made:
        yield made


def test_it_lasts_until_something_ends_it(signals: Signals) -> None:
    assert not Ending(signals, 25.0).is_there(is_idle=True)


def test_a_signal_lets_running_jobs_finish(signals: Signals) -> None:
    ending = Ending(signals, 25.0)
    signals.stops = 1

    assert ending.heed_signals()

    assert not ending.heed_signals()
    assert not ending.is_there(is_idle=False)
    assert ending.is_there(is_idle=True)


def test_the_grace_has_an_end(signals: Signals) -> None:
    ending = Ending(signals, 0.0)
    signals.stops = 1

    ending.heed_signals()

    assert ending.is_there(is_idle=False)


def test_a_second_signal_waits_for_nothing(signals: Signals) -> None:
    ending = Ending(signals, math.inf)
    signals.stops = 1
    ending.heed_signals()
    assert not ending.is_there(is_idle=False)

    signals.stops = 2

    assert ending.is_there(is_idle=False)


def test_a_signal_while_a_file_change_is_waited_out_gets_its_grace_and_restarts_nothing(signals: Signals) -> None:
    ending = Ending(signals, 25.0)
    ending.begin(grace=None, is_to_restart=True)

    signals.stops = 1

    assert ending.heed_signals()
    assert not ending.is_to_restart
    assert not ending.is_there(is_idle=False)
