"""What is wrong with an SQLite database, and with what is around it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dibs.doctor.finding import Finding, count
from dibs.doctor.scene import Scene
from dibs.facts import FileFacts, StoreFacts

_MIB = 1024 * 1024
#: Free space below which hand-overs are about to fail, and below which it is time to look.
_FULL, _NARROW = 64 * _MIB, 512 * _MIB
#: How much of the WAL may wait to be copied: workers and producers do it every 4 MiB.
_BACKLOG = 64 * _MIB
#: From this version on a checkpoint of another program harms nobody (https://sqlite.org/wal.html#walresetbug).
_SAFE_SQLITE = (3, 51, 3)
#: For people to type, with the shell's quotes.
_OVER = "\"UPDATE dibs_workers SET boot = 'over' WHERE id = {}\""
_STRANGE = '"SELECT id, queue, state FROM dibs_jobs WHERE state NOT BETWEEN 0 AND 5"'


def check(scene: Scene) -> Iterator[Finding]:
    """Yield what is wrong."""
    store = scene.facts.store
    if store is None:
        return
    if store.trouble is not None:
        yield Finding(
            name="store-unusable",
            severity="problem",
            what=store.trouble,
            why="Nothing can be handed over, and nothing is run.",
            mend="dibs worker module:app, which makes the file where there is none; else mend what is said above",
        )
    yield from _place(store)
    yield from _schema(store)
    yield from _files(store)
    yield from _wal(store)
    yield from _workers(store)
    yield from _rows(store)


def _place(store: StoreFacts) -> Iterator[Finding]:
    if store.is_network:
        yield Finding(
            name="network-filesystem",
            severity="problem",
            what=f"{store.path} is on a {store.filesystem} file system"
            + (", and the URL says to use it all the same (unsafe_fs=1)." if store.is_allowed else "."),
            why="SQLite's shared memory does not reach over it: two machines that write corrupt the database.",
            mend="move the file to a local disk, or move to RabbitMQ: docs/guides/rabbitmq.md",
        )
    if store.files and store.free_bytes < _NARROW:
        is_full = store.free_bytes < _FULL
        yield Finding(
            name="disk-full",
            severity="problem" if is_full else "warning",
            what=f"{store.free_bytes // _MIB} MiB are free where {store.path} is.",
            why="When nothing is left, enqueue raises, and workers keep their outcomes in memory.",
            mend=f"df -h {_quoted(store.path)}, then make room; all goes on by itself",
        )


def _schema(store: StoreFacts) -> Iterator[Finding]:
    if store.trouble is not None or store.schema == store.known_schema:
        return
    if store.schema is None:
        yield Finding(
            name="no-tables",
            severity="problem",
            what=f"{store.path} has none of dibs' tables.",
            why="No job was ever handed over there: another file may be meant.",
            mend="set DIBS_URL to the file that is meant, or start a worker, which makes the tables",
        )
    elif store.schema < store.known_schema:
        yield Finding(
            name="older-schema",
            severity="warning",
            what=f"{store.path} has schema version {store.schema}; this dibs writes version {store.known_schema}.",
            why="The next program of this version that opens it brings it up to date, and the older ones then end.",
            mend="stop all workers and producers, then start them with this version",
        )
    else:
        yield Finding(
            name="newer-schema",
            severity="problem",
            what=f"{store.path} has schema version {store.schema}; this dibs knows {store.known_schema} only.",
            why="A newer dibs has written it, and this one can't use it.",
            mend="pip install --upgrade dibs",
        )


def _files(store: StoreFacts) -> Iterator[Finding]:
    if not store.files:
        return
    database = store.files[0]
    for each in store.files:
        if not each.is_usable:
            yield _access(each, f"This user may not read and write {each.path}.")
        elif each.owner != database.owner:
            yield _access(each, f"{each.path} belongs to user {each.owner}, the database to user {database.owner}.")
    # That everybody may enter a directory says nothing where its files are closed.
    is_open = [each for each in store.files if each.mode & 0o006 and each.path != store.run_directory]
    if is_open:
        is_written = any(each.mode & 0o002 for each in is_open)
        paths = " ".join(_quoted(each.path) for each in is_open)
        yield Finding(
            name="open-to-all",
            severity="warning" if is_written else "note",
            what=f"Everybody on this machine may {'write' if is_written else 'read'} {paths}.",
            why="Arguments and results of jobs stand in there"
            + (", and who writes a job has a worker run it." if is_written else "."),
            mend=f"chmod o-rwx {paths}",
        )
    if store.schema is not None and not store.has_run_directory:
        yield Finding(
            name="no-run-directory",
            severity="warning",
            what=f"{store.run_directory} is missing.",
            why="Workers tell by the files in it who lives, and wake each other. Those that run make it anew.",
            mend="restart the workers",
        )
    for copy in store.copies:
        yield Finding(
            name="old-copy",
            severity="note",
            what=f"{copy} is the database as it was before a newer dibs changed its form.",
            why="It is needed only to go back to the older dibs.",
            mend=f"rm {_quoted(copy)}",
        )


def _access(each: FileFacts, what: str) -> Finding:
    return Finding(
        name="file-access",
        severity="problem",
        what=what,
        why="Programs of different users can't share it: one of them can't write, or can't tell who lives.",
        mend=f"run all programs as one user, then chown that user: {_quoted(each.path)}",
    )


def _wal(store: StoreFacts) -> Iterator[Finding]:
    if (store.wal_backlog_bytes or 0) > _BACKLOG:
        pids = ", ".join(map(str, store.readers))
        who = f" Process {pids} reads at this moment." if pids else " Who reads can't be told."
        yield Finding(
            name="wal-grows",
            severity="warning",
            what=f"{(store.wal_backlog_bytes or 0) // _MIB} MiB of the WAL are not in the database yet.{who}",
            why="A transaction that stays open keeps the WAL from being emptied: it grows, and reading slows down.",
            mend=f"end that transaction: ps -p {pids.replace(' ', '')}" if pids else f"lsof {_quoted(store.path)}",
        )
    version = tuple(int(part) for part in store.sqlite.split("."))
    if store.other_tables and store.schema is not None and version < _SAFE_SQLITE:
        yield Finding(
            name="shared-file",
            severity="note",
            what=f"{store.path} has tables of others ({', '.join(store.other_tables[:3])}), and SQLite is "
            f"{store.sqlite}.",
            why="Before 3.51.3 a checkpoint that overlaps with a commit can corrupt the WAL. dibs sees to that; "
            "other programs that write the file may not.",
            mend="have them say PRAGMA wal_autocheckpoint = 0, or use SQLite 3.51.3 or later",
        )


def _workers(store: StoreFacts) -> Iterator[Finding]:
    for worker in store.workers:
        who = f"Worker {worker.id} ({worker.host}, process {worker.pid})"
        if worker.is_unproven:
            yield Finding(
                name="unproven-worker",
                severity="problem" if worker.held else "warning",
                what=f"Nobody can tell whether {who} lives: {worker.lock} is missing, another one or closed to us.",
                why=f"{count(worker.held, 'job')} that it holds stay with it until it ends in order.",
                mend=f"if it is dead: sqlite3 {_quoted(store.path)} " + _OVER.format(worker.id),
            )
        elif worker.is_stopped:
            yield Finding(
                name="stopped-worker",
                severity="problem" if worker.held else "warning",
                what=f"{who} is stopped and holds {count(worker.held, 'job')}.",
                why="A stopped worker keeps what it has, so nobody else runs it.",
                mend=f"kill -CONT {worker.pid}",
            )


def _rows(store: StoreFacts) -> Iterator[Finding]:
    if store.strange_rows > 0:
        yield Finding(
            name="strange-rows",
            severity="warning",
            what=f"{count(store.strange_rows, 'row')} of dibs_jobs in a state that there is not.",
            why="Another program has written them: they are never run.",
            mend=f"sqlite3 {_quoted(store.path)} {_STRANGE}",
        )
    if store.damage:
        yield Finding(
            name="damaged",
            severity="problem",
            what=f"{store.path} is damaged: {'; '.join(store.damage)[:300]}",
            why="What stands in the damaged part can't be read, and may be lost.",
            mend=f"stop everything, keep a copy, then: sqlite3 {_quoted(store.path)} .recover | sqlite3 recovered.db",
        )


def _quoted(path: str) -> str:
    return shlex.quote(path)
