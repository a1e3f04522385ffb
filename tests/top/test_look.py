"""How fast things go, told from one look to the next."""

from __future__ import annotations

from dibs.ledger.statistics import Minute
from dibs.top.look import Look, Pace, rates, recent
from tests.top.views import NOW, queue, worker


def look(second: float, *, said: float | None = None, done: int = 0, dead: int = 0, ready: int = 0) -> Look:
    """Return a look at one worker that said so much at that second."""
    at = NOW + int(second * 1000)
    spoken = at if said is None else NOW + int(said * 1000)
    return Look(
        at=at,
        queues=[queue("default", ready=ready)],
        workers=[worker(at=spoken, ended={"done": done, "dead": dead})],
    )


def test_one_look_tells_no_rate() -> None:
    found = rates([look(0)])

    assert (found.workers, found.queues, found.total) == ({}, {}, None)


def test_rates_are_differences_between_looks() -> None:
    found = rates([look(0, done=100, ready=50), look(2, done=300, dead=1, ready=20)])

    assert found.workers == {"web1:4711": Pace(100.0, 0.5)}
    assert found.changes == {"default": -15.0}


def test_queues_have_their_rates_from_the_minutes_of_the_ledger() -> None:
    def seen(at: int, *minutes: tuple[int, str, int]) -> Look:
        made = [Minute(start=start, queue=name, done=done) for start, name, done in minutes]
        return Look(at=at, queues=[queue("a"), queue("b"), queue("c")], minutes=made)

    noon = NOW - NOW % 60_000
    first = seen(noon - 2_000, (noon - 60_000, "a", 100), (noon - 60_000, "b", 7))
    last = seen(noon + 2_000, (noon - 60_000, "a", 140), (noon - 60_000, "b", 7), (noon, "a", 20), (noon, "d", 5))

    assert rates([first, last]).queues == {"a": 15.0, "b": 0.0, "c": 0.0}
    assert rates([first, seen(noon + 3_600_000)]).queues == {}


def test_a_worker_is_timed_by_when_it_spoke_not_by_when_it_was_heard() -> None:
    found = rates([look(0, said=-0.9, done=0), look(1, said=0.1, done=100)])

    assert found.workers == {"web1:4711": Pace(100.0, 0.0)}


def test_a_worker_with_nothing_new_to_say_is_idle() -> None:
    found = rates([look(0, said=0, done=7), look(3, said=0, done=7)])

    assert found.workers == {"web1:4711": Pace(0.0, 0.0)}


def test_a_worker_that_was_started_anew_is_not_compared_with_the_one_before() -> None:
    before = Look(at=NOW, workers=[worker(started=1, at=NOW, ended={"done": 1000})])

    assert rates([before, look(1, done=3)]).workers == {}


def test_looks_of_the_last_seconds_are_kept_and_two_at_least() -> None:
    many = [look(second) for second in range(100)]

    assert [kept.at for kept in recent(many)] == [NOW + second * 1000 for second in range(93, 100)]
    assert recent([look(0), look(60)]) == [look(0), look(60)]
    assert recent([look(0)]) == [look(0)]
