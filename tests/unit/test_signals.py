"""Signals as something that a selector can wait for."""

from __future__ import annotations

import os
import select
import signal

import pytest

from dibs.worker.signals import Signals


def is_readable(signals: Signals) -> bool:
    return bool(select.select([signals], [], [], 0)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_each_request_to_stop_counts_and_wakes(number: signal.Signals) -> None:
    with Signals() as signals:
        for count in (1, 2):
            os.kill(os.getpid(), number)

            assert signals.stops == count
            assert is_readable(signals)
            signals.clear()
            assert not is_readable(signals)


def test_the_end_of_a_child_wakes_and_is_no_request_to_stop() -> None:
    with Signals() as signals:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

        assert select.select([signals], [], [], 10)[0]
        assert signals.stops == 0


def test_clearing_twice_harms_nobody() -> None:
    with Signals() as signals:
        signals.clear()
        signals.clear()

        assert not is_readable(signals)


def test_at_the_end_all_is_as_it_was() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]

    with Signals():
        pass

    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]
    assert after == before
    assert signal.set_wakeup_fd(-1) == -1


def test_executors_more_and_fewer_are_asked_for_in_order_and_once() -> None:
    with Signals() as signals:
        for number in (signal.SIGTTOU, signal.SIGTTIN, signal.SIGTTIN):
            os.kill(os.getpid(), number)

        assert is_readable(signals)
        assert signals.take_changes() == [-1, 1, 1]
        assert signals.take_changes() == []
        assert signals.stops == 0
