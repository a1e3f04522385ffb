"""What a broker's ledger can be asked, as a protocol. `tests/conformance/test_ledger.py` is its meaning."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from dibs.ledger.life import Ending, JobInfo, JobSelection, Page
from dibs.ledger.snapshot import Snapshot
from dibs.ledger.statistics import Minute, PastRuns

if TYPE_CHECKING:
    from concurrent.futures import Future  # which imports logging: `import dibs` is to cost little


class Ledger(Protocol):
    """The record of jobs. May be shared between threads."""

    @property
    def missed(self) -> int:
        """How many entries went before they were taken in here (RabbitMQ): what they said is missing."""
        ...

    def refresh(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Take in what has been recorded until now, where that takes time (RabbitMQ); the questions below do so too.

        Args:
            on_progress: is called now and then with how many records were read, and how many there are to read.

        Raises:
            LedgerUnavailable: it can't be read.
        """
        ...

    def job(self, id: str) -> JobInfo | None:  # noqa: A002 -- the word of the API
        """Return all that is known of a job; None: nobody knows it, or it is over and forgotten."""
        ...

    def jobs(self, selection: JobSelection, *, limit: int, after: str | None = None) -> Page:
        """Return a page of the jobs that are meant, newest first. Takes a bounded time however many there are.

        Args:
            selection: which ones.
            limit: how many at the most.
            after: `next` of the page before.
        """
        ...

    def watch(self, id: str, *, is_ours: bool) -> Future[Ending | None]:  # noqa: A002
        """Return a future of how the job ends. Whoever waits is woken; a thousand futures cost one subscription.

        Its result is None where nobody knows the job. Cancel it to wait no more.

        Args:
            id: the job's.
            is_ours: it was handed over by this process, through this broker.
        """
        ...

    def workers(self) -> list[Snapshot]:
        """Return what each worker that is alive last said of itself, by name."""
        ...

    def endings(self, ids: Collection[str]) -> dict[str, Ending]:
        """Return how those of these jobs ended that are over. Waits for nothing."""
        ...

    def minutes(self, since: int) -> list[Minute]:
        """Return what was recorded by minute and queue, from the minute on that `since` is in, oldest first.

        Costs by the minutes and queues, not by the jobs. Goes back for some hours at the most.
        """
        ...

    def runs(self, since: int, *, limit: int) -> PastRuns:
        """Return the runs that ended at `since` or later. Takes a bounded time.

        Args:
            since: in ms since 1970.
            limit: so many that failed at the most, and so many others: the latest. Where not all that are done are
                told, those that failed before are told all the same.
        """
        ...
