"""Which dead letters are meant: one value for listing, replaying and dropping, on every broker."""

from __future__ import annotations

import msgspec

from dibs.outcome import DeadLetter


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Those dead letters that fit all that is given; without anything, all of them."""

    #: Job ids.
    ids: frozenset[str] | None = None
    task: str | None = None
    #: One of `Reason`, or what another client wrote there; empty: it wrote nothing.
    reason: str | None = None
    #: Set aside before this time, in ms since 1970. A letter that does not say when it died fits no time.
    died_before: int | None = None
    #: Set aside at this time or later.
    died_since: int | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Tell whether this letter is meant."""
        return (
            (self.ids is None or letter.message.id in self.ids)
            and (self.task is None or letter.message.task == self.task)
            and (self.reason is None or letter.reason == self.reason)
            and (self.died_before is None or (letter.died is not None and letter.died < self.died_before))
            and (self.died_since is None or (letter.died is not None and letter.died >= self.died_since))
        )


#: All of them.
EVERY = Selection()
