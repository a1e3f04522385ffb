"""What one consumer holds: by which channels, and what becomes of it when it is settled, lost, or comes again.

On the consumer's I/O thread. What the owner's thread shares stands behind `lock`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from dibs.brokers.rabbitmq.bell import Bell
from dibs.brokers.rabbitmq.channel import Channel
from dibs.brokers.rabbitmq.expected import Expected
from dibs.brokers.rabbitmq.hold import Hold, Key, Lane, Record
from dibs.brokers.rabbitmq.ledger.outcomes import Outcomes
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.records import Records
from dibs.brokers.rabbitmq.returns import Returns
from dibs.brokers.rabbitmq.topology import Names
from dibs.message import Delivery, Message

_log = logging.getLogger("dibs.rabbitmq")


class Holds:
    """Those of one consumer."""

    def __init__(self, names: Names, publisher: Callable[[], Publisher], bell: Bell, *, memory: int) -> None:
        """Begin with nothing.

        Args:
            names: of the namespace.
            publisher: what is to be stored goes by it.
            bell: is rung when `lost` or `cancelled` changes; its lock guards both, and `taken`.
            memory: how many messages the server can be waiting for at once, over all queues. So many that are
                over are remembered should they come again.
        """
        self._bell = bell
        self._memory = memory
        self._tasks: set[asyncio.Task[None]] = set()
        self.lanes: list[Lane] = []
        self.expected = Expected(memory)
        self.returns = Returns()
        self.records = Records(names, publisher, self._on_stored)
        self.outcomes = Outcomes(publisher, self._acknowledge, lambda: sum(len(lane.open) for lane in self.lanes))
        #: What the owner has and has not settled.
        self.taken: dict[Hold, Delivery] = {}
        #: What of it the server has taken back, and what somebody has asked to be cancelled.
        self.lost: dict[Hold, Delivery] = {}
        self.cancelled: dict[Hold, Delivery] = {}

    def open_lane(self, channel: Channel, *, is_lease: bool = False) -> Lane:
        """Return a new lane by this channel."""
        lane = Lane(channel, memory=self._memory, is_lease=is_lease)
        self.lanes.append(lane)
        return lane

    def settle(
        self,
        done: Sequence[Hold],
        records: Iterable[tuple[Hold, Record]] = (),
        released: Iterable[tuple[Hold, Message]] = (),
    ) -> None:
        """Let go of what is done, of what else has an outcome behind its record, and give back what is released.

        What is lost waits until it comes again.
        """
        self._end(done)
        for hold, record in records:
            hold.is_over, hold.record = True, record
            if hold.lane is None:
                self.expected.settle(hold)
            else:
                self.records.begin(hold)
        self.give_back(released)

    def give_back(self, released: Iterable[tuple[Hold, Message]]) -> None:
        """Have messages handed out again.

        A return counts as a death of a suspect's worker, and what is in a lease queue takes its time to get out of
        it: these are published again instead.
        """
        for hold, message in released:
            lane = hold.lane
            if message.is_suspect or (lane is not None and lane.is_lease):
                self.settle((), [(hold, Record(message))])
            elif lane is None:
                self.expected.forget(hold)
            else:
                self.returns.leave(hold)
                lane.give_back(hold)

    def lose(self, lane: Lane, untaken: Collection[Hold]) -> None:
        """Remember what was held by a lane whose channel has ended, save what the owner never had."""
        self.lanes.remove(lane)
        self._expect_acknowledged(lane)
        with self._bell.lock:
            for hold in lane.open.values():
                hold.lane = None
                if hold in self.taken:
                    self.lost[hold] = self.taken[hold]
            self._bell.ring()
        for hold in lane.open.values():
            if not lane.is_lease:  # else it comes back by its main queue, which has not counted it
                self.returns.leave(hold)
            if hold in untaken:
                continue
            self.expected.lose(hold)
            if hold.is_over:
                self.expected.settle(hold)
                self.records.suspend(hold)
                self.outcomes.suspend(hold)

    def recognise(self, key: Key | None, lane: Lane, tag: int, subscription: int, returns: int | None) -> bool:
        """Tell whether a message that has come is held already, or over, and is not to be handed out.

        Args:
            key: of the message.
            lane: by which it has come.
            tag: its own on that lane.
            subscription: by which it has come.
            returns: how often it has come back, as the server counts.
        """
        hold = None if key is None else self.expected.pop(key)
        if hold is None or key is None:
            return False
        is_lost = hold.lane is None
        if is_lost and hold.key != key:  # a copy, come too late: its original is over, or was taken back
            lane.channel.raw.basic_ack(tag)
            return True
        if hold.lane is not None:
            hold.lane.replace(hold)
            self.close_if_done(hold.lane)
        hold.key, hold.subscription = key, subscription
        self.returns.arrive(hold, returns)
        lane.take(hold, tag)
        if hold.record is not None:
            self.records.begin(hold)
        elif hold.is_over:
            self._end([hold])
        elif is_lost:
            _log.info("A job that was lost has come back and is held again. job=%s queue=%s", key[1], key[0])
            with self._bell.lock:
                self.lost.pop(hold, None)
                self._bell.ring()
        return True

    def running(self, holds: Iterable[Hold]) -> list[tuple[Hold, Message]]:
        """Return those of these holds that the owner has not settled, with their messages."""
        with self._bell.lock:
            return [(hold, self.taken[hold].message) for hold in holds if hold in self.taken]

    def call_off(self, is_meant: Callable[[Message], bool]) -> None:
        """Have the owner told of what it has that is to be cancelled."""
        with self._bell.lock:
            meant = {hold: delivery for hold, delivery in self.taken.items() if is_meant(delivery.message)}
            if meant.keys() - self.cancelled.keys():
                self.cancelled |= meant
                self._bell.ring()

    def close_if_done(self, lane: Lane) -> None:
        """End a lease lane whose messages are all gone."""
        if lane.is_lease and not lane.open and lane in self.lanes:
            self.lanes.remove(lane)
            self._expect_acknowledged(lane)
            task = asyncio.get_running_loop().create_task(lane.channel.close())
            self._tasks.add(task)  # the loop itself keeps no hold of it
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give back all that is held."""
        self.records.give_up()
        for lane in tuple(self.lanes):
            if lane.channel.is_open:
                lane.channel.raw.basic_nack(0, multiple=True, requeue=True)
                await lane.channel.close()

    def _end(self, holds: Iterable[Hold]) -> None:
        """Let go of what is over, behind what the ledger is told of it. What is lost waits until it comes again."""
        recorded: list[Hold] = []
        unrecorded: list[Hold] = []
        for hold in holds:
            hold.is_over = True
            if hold.lane is None:
                self.expected.settle(hold)
            elif hold.entry is None:
                recorded.append(hold)
            else:
                unrecorded.append(hold)
        if recorded:
            self._acknowledge(recorded)
        if unrecorded:
            self.outcomes.add(unrecorded)

    def _acknowledge(self, holds: Iterable[Hold]) -> None:
        by_lane: dict[Lane | None, list[Hold]] = {}
        for hold in holds:
            by_lane.setdefault(hold.lane, []).append(hold)
        for lane, held in by_lane.items():
            if lane is not None:
                lane.acknowledge(held)
                self.close_if_done(lane)
                continue
            for hold in held:
                self.expected.settle(hold)

    def _on_stored(self, hold: Hold) -> None:
        if hold.lane is not None:
            self._end([hold])

    def _expect_acknowledged(self, lane: Lane) -> None:
        for key in lane.acknowledged:
            over = Hold(key)
            over.is_over = True
            self.expected.expect(key, over)
