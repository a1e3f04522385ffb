"""Jobs in a transaction that is not dibs' own."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dibs.brokers.sqlite.commits import ADD_QUEUE, Handover, insert
from dibs.brokers.sqlite.store import Store
from dibs.errors import DibsError, UsageError


def store_in(store: Store, connection: sqlite3.Connection, handover: Handover) -> None:
    """Insert what is handed over on the caller's connection. See `SqliteBroker.send_in`."""
    cursor = connection.cursor()
    cursor.row_factory = None  # the caller's may make anything of a row
    with store.read():
        _check_file(store, cursor)
        cursor.execute("PRAGMA wal_autocheckpoint = 0")
        has_begun = _begin(connection, cursor)
        try:
            store.check_version(cursor)
            cursor.executemany(ADD_QUEUE, [(name,) for name in handover.queues])
            insert(cursor, handover, path=store.path)
            if handover.error is not None:
                raise handover.error
        except (DibsError, sqlite3.Error):
            if has_begun:
                connection.rollback()
            raise


def _check_file(store: Store, cursor: sqlite3.Cursor) -> None:
    places = {name: path for _, name, path in cursor.execute("PRAGMA database_list")}
    main = places["main"]
    if not main or not Path(main).samefile(store.path):
        raise UsageError(
            f"The connection is to {main or 'a database in memory'}, the app's jobs are in {store.path}. Use a "
            "connection to the same file, or enqueue without one."
        )


def _begin(connection: sqlite3.Connection, cursor: sqlite3.Cursor) -> bool:
    """Begin a transaction where the module would do so by itself; tell whether that was needed."""
    if connection.in_transaction:
        return False
    if connection.isolation_level is None or getattr(connection, "autocommit", False) is True:
        raise UsageError(
            "The connection commits by itself and is in no transaction, so there is nothing that the jobs could be "
            "stored along with. Execute BEGIN first."
        )
    cursor.execute("BEGIN IMMEDIATE")
    return True
