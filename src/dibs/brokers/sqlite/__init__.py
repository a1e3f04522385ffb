"""The SQLite broker: one file in WAL mode that producers and workers on one machine open directly.

What an app holds:         broker, and behind it opened (what one process has open), commits (sends of many threads
                           share an fsync), foreign (jobs in the user's transaction), counts (what queues hold), dead
                           (what was set aside), ledger (what became of a job) and waiting (for its end)
What a supervisor holds:   consumer, and behind it claims (ready to running, and what came of it), cancels (what is to
                           be cancelled), liveness (who is dead, and taking over), ring (noticing a death at once),
                           wake (waking who waits for jobs)
What both stand on:        store (the file as one process has it open), migration (of an older one), line (waiting for
                           the write lock), rows (a message as a row of dibs.ledger's tables), errors, filesystem and
                           locks (what can be wrong, in words)
"""

from __future__ import annotations

from dibs.brokers.sqlite.broker import SqliteBroker

__all__ = ["SqliteBroker"]
