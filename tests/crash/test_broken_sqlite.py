"""A database file that breaks under producers and workers: clear errors, nothing lost, work goes on when mended."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from dibs.brokers.sqlite import SqliteBroker
from dibs.errors import BrokerError, StoreGone
from dibs.message import Message
from tests.crash.conftest import Stage
from tests.waiting import until
from tests.workers import Worker
from tests.worlds_sqlite import Process, SqliteWorld

#: A user to whom read-only means something, where root runs the tests.
NOBODY = 65534


class SqliteStage(Stage):
    """A stage whose broker is a file that the test breaks."""

    world: SqliteWorld

    def message(self, name: str, *args: object) -> Message:
        """Return a call of one of `tests/crash/tasks.py`, not handed over yet."""
        return self.app.get_task(f"tests.crash.tasks.{name}").prepare(*args).message

    def producer(self) -> SqliteBroker:
        """Return a broker that does not wait for long, as another process would have."""
        return self.world.open(namespace=self.namespace, handover_timeout=1.0)

    def hold(self, worker: Worker) -> Path:
        """Give the worker a job that runs until the file which is returned is made."""
        gate = self.directory / "gate"
        self.enqueue("wait_for_file", "held", str(gate))
        until(lambda: any(event.key == "held" for event in self.events("start")))
        return gate

    def assert_done_once(self, keys: set[str]) -> None:
        """Wait until these jobs have ended and nothing is left; assert that none ran twice and the file is whole."""
        until(lambda: {event.key for event in self.events("end")} >= keys, within=60.0)
        until(lambda: self.ask("SELECT count(*) FROM dibs_jobs WHERE state < 4") == "0")
        assert sorted(event.key for event in self.events("start")) == sorted(keys)
        assert self.ask("PRAGMA integrity_check") == "ok"

    def ask(self, statement: str) -> str:
        """Return what the database answers another process: this one may have lost sight of it."""
        script = f"import sqlite3; connection = sqlite3.connect({str(self.world.path)!r})\n"
        script += f"print(connection.execute({statement!r}).fetchone()[0])"
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def made_stage(directory: Path) -> Iterator[SqliteStage]:
    world = SqliteWorld(directory)
    with ExitStack() as stack:
        made = SqliteStage(world, directory / "stage", stack)
        made.directory.mkdir()
        yield made
        made.app.close()
        world.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    """A stage on SQLite."""
    with made_stage(tmp_path) as made:
        yield made


@contextmanager
def no_more_space(stage: SqliteStage, worker: Worker) -> Iterator[str]:
    """Forbid producer and worker by a limit of the system to make the WAL any longer."""
    size = wal(stage).stat().st_size
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in (os.getpid(), worker.pid)}
    for pid, (_, hard) in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield "reports an error .*nothing was stored. Look at the space"
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


@contextmanager
def locked(stage: SqliteStage, worker: Worker) -> Iterator[str]:
    """Have another program hold the write lock."""
    script = f"connection = __import__('sqlite3').connect({str(stage.world.path)!r}, isolation_level=None)\n"
    script += "connection.execute('BEGIN IMMEDIATE'); say('locked'); sys.stdin.read()"
    with Process(stage.world.url, script) as program:
        assert program.heard() == "locked"
        yield f"locked by process {program.pid} for"


@contextmanager
def stopped_inside(stage: SqliteStage, worker: Worker) -> Iterator[str]:
    """Stop a producer between the first and the last statement of its transaction."""
    script = f"""
import dibs.brokers
broker = dibs.brokers.connect({stage.world.url!r}, namespace={stage.namespace!r})
broker.queues()
stop = lambda statement: os.kill(os.getpid(), signal.SIGSTOP) if statement == "COMMIT" else None
broker._open().commits._connection.set_trace_callback(stop)
say("ready")
broker.send([job("left")])
"""
    with Process(stage.world.url, script) as program:
        assert program.heard() == "ready"
        os.waitpid(program.pid, os.WUNTRACED)
        yield f"locked by process {program.pid} for .*let it go on or end it"
        program.go_on()
        assert program.end() == 0
    assert stage.app.broker.purge("left", state="ready") == 1  # it was stored after all


@contextmanager
def damaged(stage: SqliteStage, worker: Worker) -> Iterator[str]:
    """Overwrite all but the first page."""
    with closing(sqlite3.connect(stage.world.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with stage.world.path.open("r+b") as file:
        whole = file.read()
        file.seek(4096)
        file.write(b"\xde\xad" * ((len(whole) - 4096) // 2))
        file.flush()
        yield "is damaged .*restore a backup"
        file.seek(0)
        file.write(whole)


Fault = Callable[[SqliteStage, Worker], AbstractContextManager[str]]


def wal(stage: SqliteStage) -> Path:
    """Return where the WAL is."""
    return Path(f"{stage.world.path}-wal")


def assert_survived(stage: SqliteStage, fault: Fault) -> None:
    """Make a fault, see it told clearly, mend it, and see all jobs done once."""
    worker = stage.worker("-p", "1")
    gate = stage.hold(worker)
    stage.enqueue("work", "before")
    producer = stage.producer()

    with fault(stage, worker) as text:
        with pytest.raises(BrokerError, match=text):
            producer.send([stage.message("work", "refused")])
        gate.touch()  # what comes of that job can't be recorded now
        until(lambda: "the broker refuses" in worker.log)
    producer.send([stage.message("work", "after")])

    stage.assert_done_once({"held", "before", "after"})
    lines = [line for line in worker.log.splitlines() if "worker ready" not in line]
    assert lines
    assert len(lines) <= 10, worker.log
    for line in lines:
        assert "the broker refuses; trying again in" in line
        assert re.search(text, line)


@pytest.mark.parametrize("fault", [no_more_space, locked, stopped_inside, damaged])
def test_what_ended_under_a_fault_is_recorded_when_it_is_mended(stage: SqliteStage, fault: Fault) -> None:
    assert_survived(stage, fault)


def test_a_full_disk_is_survived(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", f"size=3m,uid={os.getuid()},mode=0700", "dibs-test", str(tmp_path)]
    as_root = [] if os.getuid() == 0 else ["sudo", "-n"]
    if subprocess.run([*as_root, *mount], check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; the limit of a file's size, tested above, has to stand for it")

    @contextmanager
    def full(stage: SqliteStage, worker: Worker) -> Iterator[str]:
        ballast = tmp_path / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield "is full: nothing was stored. Free some space"
        ballast.unlink()

    try:
        with made_stage(tmp_path) as stage:
            assert_survived(stage, full)
    finally:
        subprocess.run([*as_root, "umount", "--lazy", str(tmp_path)], check=True)


def test_a_file_that_became_read_only_is_told_to_new_programs_and_used_by_old_ones() -> None:
    with tempfile.TemporaryDirectory() as directory, made_stage(Path(directory)) as stage:
        Path(directory).chmod(0o777)
        stage.worker("-p", "1")
        stage.world.path.chmod(0o444)
        if os.getuid() == 0:
            for path in Path(directory).rglob("*"):
                os.chown(path, NOBODY, NOBODY)

        ran = as_nobody("send", "plain", "refused", "--url", stage.world.url)
        stage.enqueue("work", "by one that has it open")

        assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
        assert "can't be written" in ran.stderr
        assert "needs write access to the file" in ran.stderr
        stage.world.path.chmod(0o644)
        stage.assert_done_once({"by one that has it open"})


def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of dibs', not as root."""
    script = (
        "import os, sys\nfrom dibs.cli.main import main\n"
        "import locale, dibs.brokers.sqlite\n"  # what nobody may not be allowed to read
        f"if os.getuid() == 0: os.setuid({NOBODY})\n"
        f"sys.exit(main({list(arguments)!r}))"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )


def test_a_worker_that_was_overtaken_by_a_migration_ends_and_loses_nothing(stage: SqliteStage) -> None:
    busy, idle = stage.worker("-p", "1"), stage.worker("-p", "1")
    gate = stage.hold(busy)
    stage.enqueue("work", "before")
    until(lambda: len(stage.events("end")) == 1)

    with closing(sqlite3.connect(stage.world.path)) as connection, connection:
        connection.execute("UPDATE dibs_meta SET version = 3")
    with pytest.raises(StoreGone, match=r"changed to schema version 3 while it was open.*Restart it"):
        stage.enqueue("work", "refused")
    gate.touch()

    for worker in (busy, idle):
        assert_ended_once_and_for_all(worker, "changed to schema version 3")
    with closing(sqlite3.connect(stage.world.path)) as connection, connection:
        connection.execute("UPDATE dibs_meta SET version = 2")  # as the new version's workers would find it
    stage.worker("-p", "1")
    stage.enqueue("work", "after")
    until(lambda: {event.key for event in stage.events("end")} == {"held", "before", "after"})
    assert stage.ask("PRAGMA integrity_check") == "ok"


def assert_ended_once_and_for_all(worker: Worker, text: str) -> None:
    """Assert that the worker ended by itself with one line that says why."""
    assert worker.wait() == 1
    assert worker.log.count(text) == 1, worker.log
    assert "Traceback" not in worker.log
    assert "trying again" not in worker.log


def test_removing_the_wal_ends_all_who_have_it_open_and_loses_nothing(stage: SqliteStage) -> None:
    worker = stage.worker("-p", "1", "-q", "left")
    stage.app.enqueue_many([stage.app.get_task("tests.crash.tasks.work").prepare(str(n)) for n in range(500)])
    assert wal(stage).stat().st_size > 100_000

    wal(stage).unlink()
    Path(f"{stage.world.path}-shm").unlink()
    with pytest.raises(StoreGone, match=r"-wal was removed .*nothing was stored. Restart"):
        stage.enqueue("work", "refused")

    assert_ended_once_and_for_all(worker, "was removed")
    stage.worker("-p", "1")
    stage.assert_done_once({str(number) for number in range(500)})


def test_a_file_that_was_replaced_by_its_backup_is_worked_on(stage: SqliteStage) -> None:
    worker = stage.worker("-p", "1", "-q", "left")
    stage.enqueue("work", "in the backup")
    backup = stage.directory / "backup.db"
    with closing(sqlite3.connect(stage.world.path)) as connection, closing(sqlite3.connect(backup)) as copy:
        connection.backup(copy)

    backup.rename(stage.world.path)

    with pytest.raises(StoreGone, match=r"removed or replaced.*nothing was stored"):
        stage.enqueue("work", "refused")
    assert_ended_once_and_for_all(worker, "removed or replaced")
    stage.enqueue("work", "after")
    stage.worker("-p", "1")
    stage.assert_done_once({"in the backup", "after"})


def test_a_worker_whose_lock_file_was_removed_makes_another_and_is_taken_over_from(stage: SqliteStage) -> None:
    doomed = stage.worker("-p", "1")
    gate = stage.hold(doomed)

    shutil.rmtree(f"{stage.world.path}-run")
    until(lambda: "it has made another one" in doomed.log)
    other = stage.worker("-p", "1")
    doomed.kill()
    gate.touch()

    until(lambda: [event.key for event in stage.events("end")] == ["held"])
    assert "A worker died, its jobs go to others" in other.log
    stage.enqueue("work", "after")
    stage.wait_for("end", 2)


def test_a_worker_that_died_without_its_lock_file_is_declared_dead_by_the_command_it_is_reported_with(
    stage: SqliteStage,
) -> None:
    doomed = stage.worker("-p", "1")
    gate = stage.hold(doomed)
    for lock in Path(f"{stage.world.path}-run").glob("*.lock"):
        lock.unlink()
    doomed.kill()
    gate.touch()
    other = stage.worker("-p", "1")
    until(lambda: "Nobody can tell whether a worker lives" in other.log)
    command = re.search(r'sqlite3 (\S+) "(UPDATE .*)" worker', other.log)
    assert command is not None

    assert command[1] == str(stage.world.path)
    with closing(sqlite3.connect(command[1])) as connection, connection:
        connection.execute(command[2])
    stage.worker("-p", "1")

    stage.wait_for("end", 1)


def test_a_worker_stopped_inside_its_transaction_is_named_and_its_outcome_counts(stage: SqliteStage) -> None:
    stage.app.broker.send([stage.message("work", "settled"), stage.message("work", "waiting")])
    script = f"""
import dibs.brokers
broker = dibs.brokers.connect({stage.world.url!r}, namespace={stage.namespace!r})
consumer = broker.consume(["default"], limit=1)
(delivery,) = consumer.receive(1)
stop = lambda statement: os.kill(os.getpid(), signal.SIGSTOP) if statement == "COMMIT" else None
consumer._connection.set_trace_callback(stop)
say("ready")
consumer.settle([(delivery, Done())])
"""
    with Process(stage.world.url, script) as stopped:
        assert stopped.heard() == "ready"
        os.waitpid(stopped.pid, os.WUNTRACED)

        with pytest.raises(BrokerError, match=f"locked by process {stopped.pid} for 1 s"):
            stage.producer().send([stage.message("work", "refused")])

        stopped.go_on()
        assert stopped.end() == 0
    stage.worker("-p", "1")
    stage.assert_done_once({"waiting"})


def test_a_process_stopped_in_the_line_holds_nobody_up(stage: SqliteStage) -> None:
    worker = stage.worker("-p", "1")
    script = "with broker._open().store.line.turn(time.monotonic() + 60): say('inside'); sys.stdin.read()"
    with Process(stage.world.url, script) as stopped:
        assert stopped.heard() == "inside"
        stopped.stop()

        for number in range(5):
            stage.enqueue("work", str(number))

        stage.assert_done_once({str(number) for number in range(5)})
        stopped.go_on()
    assert "the broker refuses" not in worker.log


def test_a_worker_ends_soon_though_another_program_holds_the_lock(stage: SqliteStage) -> None:
    worker = stage.worker("-p", "1", "--grace", "0")
    stage.hold(worker)

    with locked(stage, worker):
        worker.signal(signal.SIGTERM)
        assert worker.wait(20.0) == 0  # not the 30 s that a producer waits, and not twice of them

    (stage.directory / "gate").touch()
    stage.worker("-p", "1")
    until(lambda: [event.key for event in stage.events("end")] == ["held"])


CLOCK = """
import os, time
def shifted(clock, unit):
    def read():
        try:
            with open(os.environ["DIBS_TEST_CLOCK"]) as file: return clock() + int(file.read()) * unit
        except OSError: return clock()
    return read
time.time, time.time_ns = shifted(time.time, 1), shifted(time.time_ns, 1_000_000_000)
"""


def test_a_clock_that_is_set_back_delays_what_is_delayed_and_nothing_else(
    stage: SqliteStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage.directory / "sitecustomize.py").write_text(CLOCK)
    clock = stage.directory / "clock"
    monkeypatch.setenv("PYTHONPATH", str(stage.directory))
    monkeypatch.setenv("DIBS_TEST_CLOCK", str(clock))
    doomed = stage.worker("-p", "1")
    stage.app.get_task("tests.crash.tasks.work").using(delay=30).enqueue("delayed")
    gate = stage.hold(doomed)
    stage.worker("-p", "1")

    clock.write_text("-3600")
    stage.enqueue("work", "ready")
    until(lambda: any(event.key == "ready" for event in stage.events("end")))
    doomed.kill()
    gate.touch()
    until(lambda: any(event.key == "held" for event in stage.events("end")))
    assert not [event for event in stage.events() if event.key == "delayed"]

    clock.write_text("60")
    until(lambda: any(event.key == "delayed" for event in stage.events("end")))
