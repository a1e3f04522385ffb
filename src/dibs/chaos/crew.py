"""The processes: workers of every form and producers, each started anew when it is gone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from dibs.chaos.account import Account
from dibs.chaos.plan import PRODUCERS
from dibs.chaos.producer import Brief
from dibs.trial.evidence import environment
from dibs.trial.process import Process

#: Each worker's app, executors and slots: one job at a time, on threads, and on an event loop.
WORKERS = {
    1: ("plain_app", 2, 1),
    2: ("plain_app", 1, 4),
    3: ("app", 2, 4),
    4: ("app", 1, 4),
}
#: Seconds that a worker's running jobs get when it is told to stop: less than the longest job takes.
_GRACE = 2.0
#: Seconds that workers get to end in order: their grace, and some for a busy machine.
_END_PATIENCE = 20.0
#: Seconds before a process that ended by itself is started again.
_PAUSE = 0.5


class Post(NamedTuple):
    """Whose place it is."""

    kind: str
    number: int


class Surprise(msgspec.Struct, frozen=True):
    """The end of a process that nobody had asked for, or not in this way."""

    who: str
    at: float
    code: int
    #: Its last words.
    said: str


class Crew:
    """Keeps every post filled. Whoever makes one calls `kill_all` at the end."""

    def __init__(self, directory: Path, evidence: Path, url: str) -> None:
        self._directory = directory
        self._evidence = evidence
        self._url = url
        self._brief: Brief | None = None
        self._started = 0
        self._living: dict[Post, Process] = {}
        #: When a post that is empty is to be filled.
        self._due: dict[Post, float] = {}
        #: Those that were told to end, by whatever signal, and the codes with which they may.
        self._allowed: dict[Post, tuple[int, ...]] = {}
        #: Frozen ones, and until when.
        self._frozen: dict[Post, float] = {}
        self.surprises: list[Surprise] = []

    def kill_all(self) -> None:
        """Kill what is left, and start nothing any more."""
        self._due.clear()
        for process in self._living.values():
            process.kill()
        self._living.clear()

    def start_workers(self) -> None:
        """Fill the workers' posts."""
        for number in WORKERS:
            self._start(Post("worker", number))

    def start_producers(self, brief: Brief) -> None:
        """Fill the producers' posts."""
        self._brief = brief
        for number in range(1, PRODUCERS + 1):
            self._start(Post("producer", number))

    @property
    def workers(self) -> list[Post]:
        """Workers that live."""
        return sorted(post for post in self._living if post.kind == "worker")

    @property
    def producers(self) -> list[Post]:
        """Producers that live."""
        return sorted(post for post in self._living if post.kind == "producer")

    @property
    def is_producing(self) -> bool:
        """Whether a producer has not come to the end of its plan."""
        return any(post.kind == "producer" for post in (*self._living, *self._due))

    def is_busy(self, account: Account) -> bool:
        """Tell whether an executor is in the middle of a job."""
        return bool(account.busy([pid for worker in self.workers for pid in self.executors(worker)]))

    def is_frozen(self, post: Post) -> bool:
        """Tell whether a process stands still."""
        return post in self._frozen

    def executors(self, worker: Post) -> list[int]:
        """Return the process ids of a worker's executors."""
        pid = self._living[worker].pid
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            return []

    # What is done to them

    def kill(self, post: Post, *, pause: float) -> None:
        """Kill a process (SIGKILL); its post is filled again after so many seconds."""
        self._living.pop(post).kill()
        self._due[post] = time.monotonic() + pause
        self._frozen.pop(post, None)
        self._allowed.pop(post, None)

    def kill_executors(self, worker: Post, pids: list[int]) -> None:
        """Kill executors (SIGKILL) that were this worker's a moment ago, and no stranger who has their number now."""
        parent = self._living[worker].pid
        for pid in pids:
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if _parent_of(pid) == parent:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            except ProcessLookupError:
                continue
            finally:
                os.close(handle)

    def stop(self, post: Post) -> None:
        """Tell a process to end in order (SIGTERM)."""
        self._allowed[post] = (0,)
        self._living[post].signal(signal.SIGTERM)

    def freeze(self, post: Post, *, until: float) -> None:
        """Stop a process in its tracks (SIGSTOP); `tend` lets it go on at that time."""
        self._living[post].signal(signal.SIGSTOP)
        self._frozen[post] = until

    def tend(self) -> None:
        """Let go on what was frozen long enough, see who has ended, and fill the posts that are due."""
        now = time.monotonic()
        for post in [post for post, until in self._frozen.items() if until <= now]:
            del self._frozen[post]
            self._living[post].signal(signal.SIGCONT)
        for post, process in list(self._living.items()):
            if (code := process.code) is not None:
                del self._living[post]
                self._on_end(post, process, code, now)
        for post in [post for post, due in self._due.items() if due <= now]:
            del self._due[post]
            self._start(post)

    def _on_end(self, post: Post, process: Process, code: int, now: float) -> None:
        allowed = self._allowed.pop(post, ())
        self._frozen.pop(post, None)
        if post.kind == "producer" and code == 0:
            return  # it has handed over its part
        self._due[post] = now + (0.0 if allowed else _PAUSE)
        if code not in allowed:
            self.surprises.append(Surprise(f"{post.kind} {post.number}", now, code, process.said()[-500:].strip()))

    def end(self) -> None:
        """Let go on what is frozen, tell the workers to end, kill the producers, and wait for all."""
        for post in list(self._frozen):
            self._frozen[post] = 0.0
        self.tend()
        self._due.clear()
        for post in self.producers:
            self._living.pop(post).kill()
        for post in self.workers:
            self.stop(post)
        deadline = time.monotonic() + _END_PATIENCE
        for post in self.workers:
            process = self._living.pop(post)
            code = process.wait(deadline - time.monotonic())
            if code is None:
                process.kill()
            if code != 0:
                self.surprises.append(
                    Surprise(f"worker {post.number}", time.monotonic(), code or -9, process.said()[-500:].strip())
                )

    def _start(self, post: Post) -> None:
        env = environment(self._evidence, post.number) | {"DIBS_URL": self._url}
        if post.kind == "producer" and self._brief is not None:
            command = ["dibs.chaos.producer"]
            env |= self._brief.environment()
        else:
            app, processes, slots = WORKERS[post.number]
            command = ["dibs.cli.main", "worker", f"dibs.chaos.tasks:{app}"]
            command += ["-p", str(processes), "-c", str(slots), "--grace", str(_GRACE)]
        self._started += 1
        output = self._directory / f"{post.kind}-{post.number}-{self._started:04}.log"
        self._living[post] = Process(*command, env=env, output=output)


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0
