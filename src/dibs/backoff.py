"""How long to wait before the next attempt."""

from __future__ import annotations

import msgspec

from dibs.errors import BadOption
from dibs.message import LONGEST_DELAY


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential backoff with a ceiling and equal jitter. All durations in seconds.

    With the defaults, eight retries spread over about an hour.

    Raises:
        BadOption: a duration below 0 or over 400 days, a factor below 1, or a limit below `first`.
    """

    #: Before the second attempt.
    first: float = 15.0
    #: What each further wait is multiplied by.
    factor: float = 2.0
    #: No wait is longer.
    limit: float = 3600.0
    #: Take a random point of the upper half, so that a burst of failures spreads out.
    jitter: bool = True

    def __post_init__(self) -> None:
        numbers = (self.first, self.factor, self.limit)
        if not all(isinstance(number, (int, float)) for number in numbers) or not (
            0 <= self.first <= self.limit <= LONGEST_DELAY and self.factor >= 1
        ):
            raise BadOption(
                f"Backoff(first={self.first!r}, factor={self.factor!r}, limit={self.limit!r}) makes no sense: first "
                "must be at least 0, factor at least 1, and limit from first to 400 days in seconds."
            )

    def delay_after(self, attempt: int) -> float:
        """Return how long to wait after the failure of `attempt`, in seconds.

        Source: "equal jitter", Brooker, AWS Architecture Blog, 2015.
        """
        try:
            delay = min(self.limit, self.first * self.factor ** (attempt - 1))
        except OverflowError:
            delay = self.limit
        if not self.jitter:
            return delay
        from random import uniform  # noqa: PLC0415 -- takes a millisecond to import, and only who fails needs it

        return delay * uniform(0.5, 1.0)
