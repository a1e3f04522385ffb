"""The record of jobs in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future

from dibs.brokers.memory.entry import Entry
from dibs.brokers.memory.store import Store
from dibs.ledger.life import Ending, JobInfo, JobSelection, Page
from dibs.ledger.snapshot import Snapshot
from dibs.ledger.statistics import MINUTE, Minute, PastRun, PastRuns


class MemoryLedger:
    """See `Ledger`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def missed(self) -> int:
        """Return 0: what is recorded is never cut off."""
        return 0

    def refresh(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Do nothing: what is recorded is known."""

    def job(self, id: str) -> JobInfo | None:  # noqa: A002 -- the word of the API
        """Return all that is known of a job."""
        with self._store.open() as store:
            entry = store.find(id)
            return None if entry is None else entry.info(is_whole=True)

    def jobs(self, selection: JobSelection, *, limit: int, after: str | None = None) -> Page:
        """Return a page of jobs, newest first. See `Ledger.jobs`."""
        with self._store.open() as store:
            fitting = [entry for entry in store.every() if _fits(entry, selection)]
            fitting.sort(key=lambda entry: -entry.number)
            if after is not None:
                fitting = [entry for entry in fitting if entry.number < _number(after)]
            shown = fitting[:limit]
            return Page(
                jobs=[entry.info(is_whole=False) for entry in shown],
                next=str(shown[-1].number) if len(fitting) > len(shown) > 0 else None,
            )

    def watch(self, id: str, *, is_ours: bool) -> Future[Ending | None]:  # noqa: A002
        """Return a future of how the job ends. See `Ledger.watch`."""
        with self._store.open() as store:
            entry = store.find(id)
            ending = None if entry is None else entry.ending()
            if entry is not None and ending is None:
                return store.watch(id)
        future: Future[Ending | None] = Future()
        future.set_result(Ending(status="forgotten") if entry is None and is_ours else ending)
        return future

    def workers(self) -> list[Snapshot]:
        """Return what each worker last said of itself, by name."""
        with self._store.open() as store:
            said = [consumer.snapshot for consumer in store.consumers if consumer.snapshot is not None]
        return sorted(said, key=lambda snapshot: snapshot.worker)

    def endings(self, ids: Collection[str]) -> dict[str, Ending]:
        """Return how those of these jobs ended that are over."""
        with self._store.open() as store:
            found = {one: entry.ending() for one in ids if (entry := store.find(one)) is not None}
        return {one: ending for one, ending in found.items() if ending is not None}

    def minutes(self, since: int) -> list[Minute]:
        """Return what was recorded by minute and queue. See `Ledger.minutes`."""
        with self._store.open() as store:
            return [minute for minute in store.tally.minutes() if minute.start > since - MINUTE]

    def runs(self, since: int, *, limit: int) -> PastRuns:
        """Return the runs that ended since then, the latest end first. See `Ledger.runs`."""
        with self._store.open() as store:
            found = [run for entry in store.every() for run in entry.past_runs() if run.ended >= since]
        found.sort(key=_latest)
        failed = [run for run in found if run.outcome in {"retry", "dead", "lost"}]
        others = [run for run in found if run.outcome in {"done", "cancelled"}]
        whole_since = others[limit - 1].ended if len(others) > limit else since
        return PastRuns(sorted(failed[:limit] + others[:limit], key=_latest), whole_since)


def _latest(run: PastRun) -> int:
    """Return by what runs are in the order of their ends, the latest first."""
    return -run.ended


def _fits(entry: Entry, selection: JobSelection) -> bool:
    message = entry.message
    return (
        (selection.statuses is None or entry.status in selection.statuses)
        and (selection.queue is None or message.queue == selection.queue)
        and (selection.task is None or message.task == selection.task)
        and (selection.reason is None or (entry.dead is not None and entry.dead.reason == selection.reason))
        and (selection.since is None or entry.is_newer(selection.since))
    )


def _number(after: str) -> int:
    """Read a page's `next`; one that nobody gave means the beginning is over."""
    return int(after) if after.isdecimal() else 0
