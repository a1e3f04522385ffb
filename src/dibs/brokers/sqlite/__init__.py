"""The SQLite broker: one file in WAL mode that producers and workers on one machine open directly.

What an app holds:         broker, and behind it commits (sends of many threads share an fsync), foreign (jobs in the
                           user's transaction), counts (what queues hold), dead (what was set aside)
What a supervisor holds:   consumer, and behind it claims (ready to running, and what came of it), liveness (who is
                           dead, and taking over), ring (noticing a death at once), wake (waking who waits for jobs)
What both stand on:        store (the file as one process has it open), line (waiting for the write lock), rows and
                           schema.sql (a message as a row), errors, filesystem and locks (what can be wrong, in words)
"""

from __future__ import annotations

from dibs.brokers.sqlite.broker import SqliteBroker

__all__ = ["SqliteBroker"]
