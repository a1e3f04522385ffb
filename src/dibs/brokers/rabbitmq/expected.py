"""What may come, or come again, to this consumer and is not to be handed out then.

Three kinds, told by their keys: what its owner still runs, though its channel was lost; what has its outcome, and
is let go of when it comes; and copies of what is in hand, by which a lease is renewed. What comes to another
consumer instead runs there: that is "at least once".
"""

from __future__ import annotations

from dibs.brokers.rabbitmq.hold import Hold, Key


class Expected:
    """On the consumer's I/O thread."""

    def __init__(self, memory: int) -> None:
        """Expect nothing.

        Args:
            memory: how many to remember that the owner has no more part in. Those that he runs are as few as his
                slots, and all remembered.
        """
        self._memory = memory
        self._lost: dict[Key, Hold] = {}
        self._others: dict[Key, Hold] = {}

    def lose(self, hold: Hold) -> None:
        """Remember what is lost and still runs."""
        if hold.key is not None:
            self._lost[hold.key] = hold

    def expect(self, key: Key | None, hold: Hold) -> None:
        """Remember what is over, or the copy of what is in hand. Forgets the oldest ones beyond the limit."""
        if key is None:
            return
        self._others[key] = hold
        while len(self._others) > self._memory:
            del self._others[next(iter(self._others))]

    def settle(self, hold: Hold) -> None:
        """Keep the outcome of what is lost."""
        if hold.key is not None and self._lost.get(hold.key) is hold:
            del self._lost[hold.key]
            self.expect(hold.key, hold)

    def forget(self, hold: Hold) -> None:
        """Let what is lost be handed out when it comes again."""
        if hold.key is not None and self._lost.get(hold.key) is hold:
            del self._lost[hold.key]

    def pop(self, key: Key) -> Hold | None:
        """Return the hold that is meant by a message that has come; None: it is to be handed out."""
        return self._lost.pop(key, None) or self._others.pop(key, None)
