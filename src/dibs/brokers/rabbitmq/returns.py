"""How often messages came back because this very consumer sent them back, or lost the channel by which it had them.

A quorum queue counts every return alike, and one that comes back again and again is taken for a killer of workers
(`dibs.worker.crashes`). The consumer knows of its own returns that nobody died of them, so it takes them off. Of
those of others it knows nothing; hence the patience there.
"""

from __future__ import annotations

from dibs.brokers.rabbitmq.hold import Hold, Key

#: How many messages to remember that have left and not come again; others have them, or they wait in a long queue.
_MEMORY = 10_000


class Returns:
    """On the consumer's I/O thread."""

    def __init__(self) -> None:
        #: What the server had counted, and how much of it was this consumer's own.
        self._left: dict[Key, tuple[int, int]] = {}

    def leave(self, hold: Hold) -> None:
        """Remember a message that goes back. The one that left first is forgotten beyond the limit."""
        if hold.key is None or hold.returns is None:
            return
        self._left[hold.key] = (hold.returns, hold.own_returns)
        if len(self._left) > _MEMORY:
            del self._left[next(iter(self._left))]

    def arrive(self, hold: Hold, returns: int | None) -> int | None:
        """Note what the server counts of a message that has come; return how much of it others are to blame for."""
        if returns and hold.key is not None and (left := self._left.pop(hold.key, None)) is not None:
            counted, own = left
            # From 4.3 on the server does not count what was handed back.
            hold.own_returns = own + min(1, max(0, returns - counted))
        hold.returns = returns
        return None if returns is None else max(0, returns - hold.own_returns)
