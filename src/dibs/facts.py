"""What a broker finds when it looks at what it stands on, for `dibs doctor`. Values only; nothing is judged here.

Each broker fills in the part that is its own. Times are ms since 1970.
"""

from __future__ import annotations

from typing import Literal

import msgspec

#: What a login can be allowed to do with a thing in RabbitMQ.
Right = Literal["configure", "write", "read"]


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One of the files of an SQLite database, or their directory."""

    path: str
    #: Who owns it, as a number.
    owner: int
    #: The permission bits.
    mode: int
    #: Whether this process may read and write it.
    is_usable: bool


class Lodger(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's row in an SQLite database."""

    id: int
    host: str
    pid: int
    lock: str
    #: How many jobs are its own.
    held: int
    #: Its lock file proves neither that it lives nor that it is dead.
    is_unproven: bool
    #: It is stopped (SIGSTOP, a debugger).
    is_stopped: bool


class StoreFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an SQLite database stands on."""

    path: str
    #: The version of the library.
    sqlite: str
    #: What is wrong with the file, should it be of no use; then the rest is what could be seen all the same.
    trouble: str | None = None
    #: The form of the tables, and the one that this dibs knows. None: there are none.
    schema: int | None = None
    known_schema: int
    #: The type of the file system; "": the system does not tell.
    filesystem: str = ""
    #: Other kernels may write to it as well; and the URL says to use it all the same.
    is_network: bool = False
    is_allowed: bool = False
    free_bytes: int = 0
    size_bytes: int = 0
    #: How much of the WAL is still to be copied into the database. None: it can't be told.
    wal_backlog_bytes: int | None = None
    #: Processes that read at this moment, which keeps the WAL from being emptied.
    readers: list[int] = []
    #: The database first.
    files: list[FileFacts] = []
    run_directory: str
    has_run_directory: bool = True
    workers: list[Lodger] = []
    #: Rows of jobs in a state that there is not.
    strange_rows: int = 0
    #: Tables of others in the same file.
    other_tables: list[str] = []
    #: Copies of the file that a migration has left.
    copies: list[str] = []
    #: What `PRAGMA quick_check` said; None: it was not asked for.
    damage: list[str] | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What exists in another form than dibs would give it."""

    name: str
    #: The argument, and both values of it, as the server says them.
    argument: str
    wanted: str
    found: str


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """A right that this login lacks."""

    right: Right
    #: The queue or exchange.
    name: str


class PolicyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that applies to a queue of dibs'."""

    name: str
    queue: str
    definition: dict[str, str | int]


class ManagementFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What RabbitMQ's management API adds."""

    #: The server's clock, against this machine's, in seconds: above 0, it is ahead.
    clock_offset: float | None = None
    policies: list[PolicyFacts] = []
    #: In words: what is wrong, and on which node.
    alarms: list[str] = []


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What there is in a RabbitMQ server."""

    #: As in "3.10.8".
    version: str
    user: str
    virtual_host: str
    #: The names that are looked for begin so: the namespace with its dot, or nothing.
    prefix: str = ""
    #: Nothing of dibs' is there at all: it was never used.
    is_fresh: bool = False
    #: What the server said when it took nothing more; None: it takes what is published.
    alarm: str | None = None
    differences: list[Difference] = []
    denials: list[Denial] = []
    #: The delay levels that are missing below the highest one that is there.
    missing_levels: list[str] = []
    #: How many delayed messages found no queue any more, and the queue that they are in.
    lost: int = 0
    #: Streams of the ledger that there are not.
    missing_streams: list[str] = []
    #: There is a ledger that can be asked, and a way to ask the workers.
    has_ledger: bool = False
    has_roll: bool = False
    #: None: it could not be asked.
    management: ManagementFacts | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker found out, all of it without changing anything."""

    #: Where the broker is, for people.
    location: str
    #: As in `Capabilities.server`.
    server: str
    store: StoreFacts | None = None
    rabbitmq: ServerFacts | None = None
    #: What could not be looked at, and why.
    not_asked: list[str] = []
    #: Queues, jobs and workers can be asked for, and nothing is made by that.
    has_queues: bool = True
    has_jobs: bool = True
    has_workers: bool = True
