"""What should be where: the state diagram of `dibs.broker`, followed job by job.

Jobs are told apart by their bodies: where a broker can't refuse duplicates, an id may be there twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from enum import Enum, auto

import msgspec

from dibs.broker import Capabilities
from dibs.message import Delivery, Message, now_ms
from dibs.outcome import Dead, DeadLetter, Done, Outcome, Released, RetryIn


class Place(Enum):
    """Where a job is. Ready and delayed are one place here: only the clock tells them apart."""

    WAITING = auto()
    RUNNING = auto()
    DEAD = auto()
    GONE = auto()


@dataclasses.dataclass(eq=False)
class Job:
    """A message that was handed over, and what is known of it."""

    #: As it is to come next.
    message: Message
    place: Place = Place.WAITING
    #: Not before this time, in ms since 1970.
    due: int | None = None
    #: It came, or is to come, by way of a delay.
    was_delayed: bool = False
    #: How often its worker died, since it was handed over or recorded.
    returns: int = 0
    #: Its worker was killed: the broker gives it back in its own time.
    is_returning: bool = False
    #: Why it is dead.
    outcome: Dead | None = None
    #: Its worker was killed before its outcome was surely recorded: it may be there twice, or as it was before.
    is_in_doubt: bool = False
    #: It is done: its id is taken as long as it is remembered.
    is_done: bool = False
    #: In doubt, and one of its outcomes was that it went.
    may_be_gone: bool = False

    @property
    def is_due(self) -> bool:
        """Whether it can be received by now."""
        return self.due is None or self.due <= now_ms()


class Model:
    """All jobs of one example."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self.jobs: dict[bytes, Job] = {}

    def of(self, delivery: Delivery) -> Job:
        """Return the job that was delivered."""
        assert delivery.message.body in self.jobs, f"nobody sent {delivery}"
        return self.jobs[delivery.message.body]

    def select(self, queues: Iterable[str], place: Place) -> list[Job]:
        """Return the jobs of these queues at that place, but for those in doubt."""
        found = [job for job in self.jobs.values() if job.place is place and not job.is_in_doubt]
        return [job for job in found if job.message.queue in queues]

    def in_doubt(self) -> Iterator[Job]:
        """Yield the jobs of which nobody can say where they are, or whether they are there twice."""
        return (job for job in self.jobs.values() if job.is_in_doubt)

    def has_id(self, job_id: str) -> bool:
        """Tell whether a job with this id is not over, or done and remembered."""
        jobs = [job for job in self.jobs.values() if job.message.id == job_id]
        return any(job.place is not Place.GONE or job.is_done for job in jobs)

    def enqueue(self, messages: Iterable[Message]) -> None:
        """Messages were handed over."""
        self.jobs |= {
            message.body: Job(message, due=message.due, was_delayed=bool(message.due)) for message in messages
        }

    def receive(self, delivery: Delivery) -> None:
        """A consumer got this: it was there, it is as it should be, it is not early and nobody else holds it."""
        job = self.of(delivery)
        if job.is_in_doubt:
            return
        assert job.place is Place.WAITING, f"{delivery} is {job.place}"
        assert job.due is None or now_ms() + self._capabilities.delay_step * 1000 >= job.due, f"{delivery} is early"
        assert _timeless(delivery.message) == _timeless(job.message)
        assert not self._capabilities.counts_deaths or delivery.returns == job.returns
        job.place, job.is_returning = Place.RUNNING, False

    def settle(self, delivery: Delivery, outcome: Outcome, began: int) -> None:
        """An outcome was recorded by the consumer that held it, not before `began`."""
        job = self.of(delivery)
        match outcome:
            case Done():
                self.remove([job])
                job.is_done = True
            case Released():
                job.place = Place.WAITING
            case RetryIn(delay=delay, message=message):
                job.place, job.message, job.returns = Place.WAITING, message, 0
                job.due = began + int(delay * 1000) if delay else None
                job.was_delayed |= bool(delay)
            case Dead():
                job.place, job.outcome = Place.DEAD, outcome

    def give_back(self, deliveries: Iterable[Delivery], *, deaths: int) -> None:
        """The consumer that held these is gone; `deaths`: 1 if it was killed."""
        for job in map(self.of, deliveries):
            job.place = Place.WAITING
            job.returns += deaths
            job.is_returning = bool(deaths)

    def doubt(self, settled: Iterable[Delivery]) -> None:
        """The consumer that settled these was killed, and may not have got to it."""
        for job in map(self.of, settled):
            job.is_in_doubt = True

    def restart(self) -> None:
        """The server restarted. The end of a delay that it had not noted yet comes again."""
        for job in self.jobs.values():
            job.is_in_doubt |= job.was_delayed

    def replay(self, jobs: Iterable[Job]) -> None:
        """Dead jobs were put back, as they were sent."""
        for job in jobs:
            job.place, job.outcome, job.due, job.returns = Place.WAITING, None, None, 0
            job.message = msgspec.structs.replace(job.message, attempt=1, crashes=0, is_suspect=False, error=None)

    def remove(self, jobs: Iterable[Job]) -> None:
        """These were deleted."""
        for job in jobs:
            job.place = Place.GONE
            job.may_be_gone = True

    def check_letter(self, letter: DeadLetter) -> None:
        """A dead letter says what its message was and why it is dead."""
        job = self.jobs[letter.message.body]
        if job.is_in_doubt:
            return
        assert job.outcome is not None, f"{letter} is {job.place}"
        assert (letter.reason, letter.error) == (job.outcome.reason, job.outcome.error)
        assert _timeless(letter.message, error=None) == _timeless(job.message, error=None)


def _timeless(message: Message, **changes: object) -> Message:
    """Return a message without its due time: whether it is kept once it has passed is the broker's own affair."""
    return msgspec.structs.replace(message, due=None, **changes)
