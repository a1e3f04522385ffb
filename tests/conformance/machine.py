"""What producers, workers, operators and accidents do to a broker, in any order, and to the model of it."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dibs.broker import Broker, Consumer, Queue, State
from dibs.errors import DibsError, JobExists, ReceiptLost, UsageError
from dibs.message import Delivery, Message, new_id, now_ms
from dibs.outcome import Dead, DeadLetter, Done, Outcome, Released, RetryIn
from dibs.selection import EVERY, Selection
from tests.conformance.holder import Holder
from tests.conformance.model import Job, Model, Place
from tests.remote import RemoteConsumer
from tests.waiting import PATIENCE, until
from tests.worlds import World

#: The most that a consumer holds in a test.
_LIMIT = 4
#: Seconds. The last one goes through a level of RabbitMQ's.
_DELAYS = (0.0, 0.0, 0.0, 0.02, 0.13)
#: Seconds. Never waited for.
_LONG = 3600.0
#: What is done, and how often of all.
_WEIGHTS = {
    "enqueue": 12,
    "consume": 8,
    "receive": 24,
    "settle": 30,
    "settle_after_the_end": 2,
    "lose": 10,
    "open": 2,
    "restart": 2,
    "change_the_dead": 10,
    "purge": 2,
}


class Machine(RuleBasedStateMachine):
    """Draws what is done, and does it to broker and model."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.brokers: list[Broker] = [world.open()]
        self.capabilities = self.brokers[0].capabilities
        self.model = Model(self.capabilities)
        self.holders: list[Holder] = []
        #: Closed ones, and deliveries that nobody holds any more. Another process's can be named to that one only.
        self.closed: list[Consumer] = []
        self.stale: list[tuple[RemoteConsumer | None, Delivery]] = []
        self._log: list[str] = []
        # RabbitMQ may still be busy with an example that failed.
        tag = "" if self.capabilities.counts_held else new_id()[-8:]
        self.queues = (f"left{tag}", f"right{tag}")
        self.brokers[0].declare([Queue(name=name) for name in self.queues])
        self._purge_all()

    @initialize(random=st.randoms(use_true_random=True))
    def begin(self, random: Random) -> None:
        """Let chance choose, evenly: hypothesis leaves most of many rules out, and mostly tries what is simple."""
        self._random = random
        self._enqueue(random)
        self._consume(random)

    @rule()
    def step(self) -> None:
        """Do one of the things that producers, workers, operators and accidents do."""
        (verb,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        getattr(self, f"_{verb}")(self._random)

    def _purge_all(self) -> None:
        states: tuple[State, ...] = ("delayed", "ready") if self.capabilities.counts_held else ("ready",)
        for queue, state in itertools.product(self.queues, states):
            self.brokers[0].purge(queue, state=state)
        for queue in self.queues:
            self.brokers[0].drop(queue, EVERY)

    # Handing over

    def _enqueue(self, random: Random) -> None:
        """Hand jobs over; where duplicates are refused, a batch with one is refused whole."""
        messages = [self._choose_message(random) for _ in range(random.randint(1, 6))]
        ids = [message.id for message in messages]
        is_refused = len(set(ids)) < len(ids) or any(map(self.model.has_id, ids))
        if is_refused and self.capabilities.refuses_duplicates:
            with pytest.raises(JobExists):
                random.choice(self.brokers).send(messages)
        else:
            random.choice(self.brokers).send(messages)
            self.model.enqueue(messages)
        self._log.append(f"enqueue {messages} {is_refused=}")

    def _choose_message(self, random: Random) -> Message:
        known = [job.message.id for job in self.model.jobs.values() if not job.is_in_doubt]
        delay = random.choice((*_DELAYS, _LONG) if self.capabilities.counts_held else _DELAYS)
        return Message(
            body=new_id().encode(),
            queue=random.choice(self.queues),
            id=random.choice(known) if known and random.random() < 0.05 else new_id(),
            priority=random.randint(0, 9),
            due=now_ms() + int(delay * 1000) if delay else None,
        )

    # Consumers

    def _consume(self, random: Random) -> None:
        """Begin to receive, here or in a process of its own."""
        if len(self.holders) == 3:
            self._close(random.choice(self.holders))
        queues = random.choice(((self.queues[0],), (self.queues[1],), self.queues))
        if self.capabilities.is_shared and random.random() < 0.5:
            namespace = getattr(self.world, "namespace", "")
            consumer: Consumer | RemoteConsumer = RemoteConsumer(self.world.url, namespace, queues, limit=_LIMIT)
        else:
            consumer = random.choice(self.brokers).consume(queues, limit=_LIMIT)
        self.holders.append(Holder(consumer, queues))
        self._log.append(f"consume {queues} {consumer}")

    def _receive(self, random: Random) -> None:
        """Receive: what is there comes, as much as there is room for, and nothing else."""
        if not self.holders:
            return
        holder = random.choice(self.holders)
        wanted = min(random.randint(1, _LIMIT), _LIMIT - len(holder.held))
        waiting = self.model.select(holder.queues, Place.WAITING)
        at_hand = now_ms() + random.choice((0, 1000))  # or wait for what is due soon
        expected = [job for job in waiting if job.due is None or job.due <= at_hand]
        sure = [job for job in waiting if job.is_due and not job.is_returning]
        count = min(wanted, len(expected))

        got = holder.receive(count, within=PATIENCE) if count else holder.receive(wanted, within=0.0)

        self._log.append(f"receive {got} by {holder.consumer}")
        assert len(got) >= count
        for delivery in got:
            self.model.receive(delivery)
        holder.held += got
        if self.capabilities.priorities == 10:
            self._check_priorities(got[: len(sure)], sure)

    def _check_priorities(self, got: Sequence[Delivery], sure: Sequence[Job]) -> None:
        for delivery in got:
            left = [job for job in sure if job.place is Place.WAITING and job.message.queue == delivery.message.queue]
            assert all(job.message.priority <= delivery.message.priority for job in left)

    def _settle(self, random: Random) -> None:
        """Settle in any order, mixed with receipts that are lost: those are named, the others are recorded."""
        busy = [holder for holder in self.holders if holder.held]
        if not busy:
            self._receive(random)
            return
        holder = random.choice(busy)
        chosen = random.sample(holder.held, random.randint(1, len(holder.held)))
        stale = [delivery for process, delivery in self.stale if process is holder.process]
        lost = random.sample(stale, min(len(stale), random.choice((0, 0, 0, 1, 2))))
        batch = [(delivery, _choose_outcome(random, delivery)) for delivery in (*chosen, *lost)]
        random.shuffle(batch)
        if random.random() < 0.2:  # behind the first one for it, which counts
            batch.append((chosen[0], Done()))
            lost.append(chosen[0])
        self._log.append(f"settle {batch} by {holder.consumer}, {lost=}")
        began = now_ms()

        if lost:
            with pytest.raises(ReceiptLost) as caught:
                holder.consumer.settle(batch)
            assert sorted(map(_key, caught.value.deliveries)) == sorted(map(_key, lost))
        else:
            holder.consumer.settle(batch)

        for delivery, outcome in batch:
            if any(delivery is one for one in holder.held):
                holder.held = [one for one in holder.held if one is not delivery]
                holder.settled.append(delivery)
                self.stale.append((holder.process, delivery))
                self.model.settle(delivery, outcome, began)

    def _settle_after_the_end(self, random: Random) -> None:
        """A consumer that was closed settles nothing any more."""
        stale = [delivery for process, delivery in self.stale if process is None]
        if self.closed and stale:
            with pytest.raises(DibsError):
                random.choice(self.closed).settle([(random.choice(stale), Done())])

    # Losing consumers

    def _lose(self, random: Random) -> None:
        """Close a consumer, or kill its process: what it held comes again."""
        if not self.holders:
            return
        holder = random.choice(self.holders)
        self._log.append(f"lose {holder.consumer}")
        if isinstance(holder.consumer, RemoteConsumer) and random.random() < 0.7:
            self._kill(holder, holder.consumer)
        else:
            self._close(holder)

    def _close(self, holder: Holder) -> None:
        holder.consumer.close()
        self.holders.remove(holder)
        if not isinstance(holder.consumer, RemoteConsumer):
            self.closed.append(holder.consumer)
        self._give_back(holder, deaths=0)

    def _give_back(self, holder: Holder, *, deaths: int) -> None:
        self.stale += [(holder.process, delivery) for delivery in holder.held]
        self.model.give_back(holder.held, deaths=deaths)

    def _kill(self, holder: Holder, consumer: RemoteConsumer) -> None:
        consumer.kill()
        self.holders.remove(holder)
        self._give_back(holder, deaths=1)
        if not self.capabilities.has_atomic_settle:
            self.model.doubt(holder.settled)

    def _open(self, random: Random) -> None:
        """Open another handle."""
        if len(self.brokers) < 3:
            self.brokers.append(self.world.open())

    def _restart(self, random: Random) -> None:
        """Restart the broker under consumers, which end after it."""
        if not self.capabilities.has_atomic_settle and random.random() < 0.75:
            return  # it takes RabbitMQ seconds
        self._log.append("restart")
        self.world.restart()
        if not self.capabilities.has_atomic_settle:
            self.model.restart()
        for holder in tuple(self.holders):
            if not self.capabilities.has_atomic_settle:
                self.model.doubt(holder.settled)
            self._close(holder)

    # The dead, and what operators do

    def _change_the_dead(self, random: Random) -> None:
        """Read the dead, put them back, delete them: all, or by their ids."""
        queue, broker = random.choice(self.queues), random.choice(self.brokers)
        verb = random.choice(("replay", "replay", "replay all", "drop", "drop all", "page"))
        chosen = self._listed(queue)
        if len({job.message.id for job in chosen}) < len(chosen):
            return  # which of two with one id is meant, nobody can say
        if verb == "page":
            self._check_pages(broker, queue, size=random.randint(1, 3))
            return
        if verb in ("replay", "drop"):
            chosen, ids = self._choose_dead(random, chosen)
            selection = Selection(ids=frozenset(ids))
            count = broker.replay(queue, selection) if verb == "replay" else broker.drop(queue, selection)
        else:
            count = broker.replay(queue) if verb == "replay all" else broker.drop(queue, EVERY)

        self._log.append(f"{verb} {count} of {[job.message.id for job in chosen]}")
        self._check_count(count, chosen)
        if verb.startswith("replay"):
            self.model.replay(chosen)
            return
        self.model.remove(chosen)
        for job in self.model.in_doubt():
            job.may_be_gone |= verb == "drop all"

    def _choose_dead(self, random: Random, there: Sequence[Job]) -> tuple[list[Job], list[str]]:
        """Choose dead jobs by their ids, and an id that is none's."""
        doubtful = {job.message.id for job in self.model.in_doubt()}
        known = sorted({job.message.id for job in there} - doubtful)
        ids = random.sample(known, random.randint(0, len(known)))
        return [job for job in there if job.message.id in ids], [*ids, new_id()]

    def _check_count(self, count: int, chosen: Sequence[Job]) -> None:
        is_exact = not any(self.model.in_doubt())
        assert count == len(chosen) or (not is_exact and count > len(chosen))

    def _check_pages(self, broker: Broker, queue: str, *, size: int) -> None:
        if any(self.model.in_doubt()):
            return  # the broker may be about to store another one
        letters = broker.dead(queue, limit=1000)
        pages: list[DeadLetter] = []
        while page := broker.dead(queue, limit=size, after=pages[-1].message.id if pages else None):
            pages += page
        assert pages == letters

    def _purge(self, random: Random) -> None:
        """Delete all that waits in a queue, where that is little: others are to have something to do."""
        queue, broker = random.choice(self.queues), random.choice(self.brokers)
        if not self.capabilities.counts_held:
            with pytest.raises(UsageError):
                broker.purge(queue, state="delayed")
            return
        chosen = self.model.select((queue,), Place.WAITING)
        if len(chosen) > 2 or any(job.is_returning for job in chosen):
            return  # whether those are back by now is the broker's affair

        count = broker.purge(queue, state="delayed") + broker.purge(queue, state="ready")

        assert count == len(chosen)
        self.model.remove(chosen)

    def _listed(self, queue: str) -> list[Job]:
        """Return the dead jobs of a queue, once the broker lists them: it may still be about to store them."""
        jobs = self.model.select((queue,), Place.DEAD)
        wanted = sorted(job.message.body for job in jobs)

        def list_all() -> list[bytes]:
            letters = self.brokers[0].dead(queue, limit=1000)
            for letter in letters:
                self.model.check_letter(letter)
            bodies = (letter.message.body for letter in letters)
            return sorted(body for body in bodies if not self.model.jobs[body].is_in_doubt)

        until(lambda: list_all() == wanted)
        return jobs

    # What always holds

    @invariant()
    def counts_are_right(self) -> None:
        """Nothing has vanished and nothing is there twice, as far as the broker counts."""
        if not self.capabilities.counts_held:
            return
        counts = {info.name: info for info in self.brokers[-1].queues()}
        for name in self.queues:
            info = counts[name]
            waiting, running, dead = (
                self.model.select((name,), place) for place in (Place.WAITING, Place.RUNNING, Place.DEAD)
            )
            returning = sum(job.is_returning for job in waiting)
            assert info.running is not None
            assert info.delayed is not None
            assert info.dead == len(dead)
            assert info.running + info.ready + info.delayed == len(running) + len(waiting)
            assert len(running) <= info.running <= len(running) + returning
            assert info.consumers == sum(name in holder.queues for holder in self.holders)

    def teardown(self) -> None:
        """Compare what is there with what should be, to the last job; after a failure, only let go."""
        try:
            if not isinstance(sys.exc_info()[1], Exception):
                self._compare()
            else:
                print(*self._log, sep="\n")  # what it did: with a real broker it may not do the same again
        finally:
            for holder in self.holders:
                with contextlib.suppress(DibsError, AssertionError):
                    holder.consumer.close()
            for broker in self.brokers:
                broker.close()

    def _compare(self) -> None:
        for holder in tuple(self.holders):
            self._close(holder)
        seen = {letter.message.body for queue in self.queues for letter in self.brokers[0].dead(queue, limit=1000)}
        last = Holder(self.brokers[0].consume(self.queues, limit=100), self.queues)
        self.holders.append(last)
        soon = now_ms() + 60_000
        waiting = self.model.select(self.queues, Place.WAITING)
        missing = {job.message.body for job in waiting if job.due is None or job.due < soon}
        missing |= {job.message.body for job in self.model.in_doubt() if not job.may_be_gone} - seen
        while missing:
            got = last.receive(1, within=PATIENCE)
            assert got, f"never came: {[self.model.jobs[body] for body in missing]}"
            self._finish(last, got)
            missing -= {delivery.message.body for delivery in got}
        # Nothing is there twice; what counts needs no waiting to know that.
        self._finish(last, last.receive(1000, within=0.0 if self.capabilities.counts_held else 0.3))
        self.counts_are_right()
        for queue in self.queues:
            self._listed(queue)

    def _finish(self, holder: Holder, got: Sequence[Delivery]) -> None:
        for delivery in got:
            self.model.receive(delivery)
        holder.consumer.settle([(delivery, Done()) for delivery in got])
        for delivery in got:
            self.model.settle(delivery, Done(), now_ms())


def _choose_outcome(random: Random, delivery: Delivery) -> Outcome:
    match random.randrange(4):
        case 0:
            return Done()
        case 1:
            return Released()
        case 2:
            return Dead("failed", f"boom {random.random()}")
    message = delivery.message
    changed = {"attempt": message.attempt + 1, "crashes": message.crashes + 1, "error": "again", "due": None}
    again = msgspec.structs.replace(message, is_suspect=random.random() < 0.5, **changed)
    return RetryIn(random.choice(_DELAYS), again)


def _key(delivery: Delivery) -> tuple[bytes, str]:
    return delivery.message.body, repr(delivery.receipt)
