"""A job's place in memory, through all of its life. Knows no lock and no queue."""

from __future__ import annotations

import os

import msgspec

from dibs.ledger.life import PRIVATE_NOTE, Ending, JobInfo, Note, Progress, RunInfo, Status
from dibs.ledger.statistics import PastRun
from dibs.message import Delivery, Message, now_ms
from dibs.outcome import Cancelled, Dead, DeadLetter, Done, Outcome, Released, RetryIn


class Entry:
    """One job. It stays one object through all states, so that a receipt is an identity."""

    def __init__(self, message: Message, seq: int) -> None:
        self.message = message
        #: The place in the line.
        self.seq = seq
        #: The place in the order of being handed over, which never changes.
        self.number = seq
        self.came = now_ms()
        self.status: Status = "delayed" if message.due is not None and message.due > now_ms() else "ready"
        #: What its present owner got.
        self.delivery: Delivery | None = None
        #: When somebody asked for it to be cancelled while it ran.
        self.cancel_asked: int | None = None
        self.returns = 0
        self.dead: DeadLetter | None = None
        self.started: int | None = None
        self.ended: int | None = None
        self.worker: str | None = None
        self._runs: list[RunInfo] = []
        self._result: bytes | None = None
        self._note: str | None = None
        self._error: str | None = None
        self._progress: Progress | None = None
        self._log: list[str] = []

    @property
    def is_over(self) -> bool:
        """Whether it is done, dead or cancelled."""
        return self.status in {"done", "dead", "cancelled"}

    @property
    def is_forgettable(self) -> bool:
        """Whether it is over and waits for nothing but the end of its `keep`."""
        return self.status in {"done", "cancelled"}

    @property
    def body(self) -> bytes | None:
        """Its arguments, should they be for others' eyes."""
        return None if self.message.is_private else self.message.body

    def begin(self, receipt: int) -> Delivery:
        """Put it into somebody's hands."""
        self.delivery = delivery = Delivery(message=self.message, receipt=receipt, returns=self.returns)
        self.status = "running"
        self.started, self.ended, self.worker = now_ms(), None, f"{os.uname().nodename}:{os.getpid()}"
        return delivery

    def let_go(self) -> None:
        """Take it out of the hands that it is in, as if nothing had been."""
        self.delivery, self.status, self.started, self.worker = None, "ready", None, None
        if self.cancel_asked is not None:
            self.cancel()

    def note(self, note: Note) -> None:
        """Take down what it says of itself."""
        self._progress = note.progress or self._progress
        self._log = self._log if note.log is None else note.log

    def record(self, outcome: Outcome, seq: int) -> None:
        """Take down what came of a run; `seq` is the end of the line."""
        self.delivery = None
        self._add_run(outcome)
        match outcome:
            case Released():
                self.let_go()
            case RetryIn(delay=delay, message=message):
                due = now_ms() + int(delay * 1000)
                self.message = msgspec.structs.replace(message, due=due if delay > 0 else None)
                self.status, self.seq, self.returns = "delayed" if delay > 0 else "ready", seq, 0
            case Done(result=result, note=note):
                self._end("done")
                self._result, self._note = (None, PRIVATE_NOTE) if self.message.is_private else (result, note)
            case Cancelled():
                self._end("cancelled")
            case Dead(reason=reason, error=error, crashes=crashes):
                if crashes is not None:
                    self.message = msgspec.structs.replace(self.message, crashes=crashes)
                self._end("dead")
                self.seq, self._error = seq, error
                self.dead = DeadLetter(
                    message=self.message, reason=reason, error=error, died=self.ended, worker=self.worker
                )
        if self.cancel_asked is not None and not self.is_over:
            self.cancel()

    def cancel(self) -> None:
        """End a job that waits."""
        self._end("cancelled")

    def replay(self, seq: int) -> None:
        """Begin anew, at the end of the line, as if it had just been handed over."""
        self.message = msgspec.structs.replace(
            self.message,
            attempt=1,
            crashes=0,
            is_suspect=False,
            error=None,
            unknown_since=None,
            due=None,
            expires=None,
        )
        self.status, self.dead, self.seq, self.returns = "ready", None, seq, 0
        self.started = self.ended = self.worker = self._error = self._progress = None
        self._runs, self._log = [], []

    def is_newer(self, since: int) -> bool:
        """Tell whether it was handed over, begun or ended at that time or later."""
        return max(self.message.enqueued or self.came, self.started or 0, self.ended or 0) >= since

    def info(self, *, is_whole: bool) -> JobInfo:
        """Return what the ledger says of it."""
        message = self.message
        shown = JobInfo(
            id=message.id,
            task=message.task,
            queue=message.queue,
            status=self.status,
            priority=message.priority,
            attempt=message.attempt,
            crashes=message.crashes,
            enqueued=message.enqueued,
            due=message.due,
            expires=message.expires,
            started=self.started,
            ended=self.ended,
            worker=self.worker,
            reason=None if self.dead is None else self.dead.reason,
            error=None if message.is_private else self._error or message.error,
            progress=self._progress,
            is_private=message.is_private,
        )
        if not is_whole:
            return shown
        return msgspec.structs.replace(
            shown,
            body=self.body,
            result=self._result,
            note=self._note,
            cancel_asked=self.cancel_asked,
            runs=list(self._runs),
            log=self._log,
        )

    def past_runs(self) -> list[PastRun]:
        """Return its runs that are over."""
        return [
            PastRun(
                id=self.message.id,
                task=self.message.task,
                queue=self.message.queue,
                attempt=run.attempt,
                started=run.started,
                ended=run.ended,
                worker=run.worker,
                outcome=run.outcome,
            )
            for run in self._runs
            if run.started is not None and run.ended is not None
        ]

    def ending(self) -> Ending | None:
        """Return how it ended; None: it has not."""
        match self.status:
            case "done":
                return Ending(status="done", result=self._result, note=self._note)
            case "cancelled":
                return Ending(status="cancelled")
            case "dead" if self.dead is not None:
                error = None if self.message.is_private else self.dead.error
                return Ending(status="dead", reason=self.dead.reason, error=error)
            case _:
                return None

    def _end(self, status: Status) -> None:
        self.cancel_asked = None
        self.status, self.ended = status, self.ended or now_ms()

    def _add_run(self, outcome: Outcome) -> None:
        match outcome:
            case Done():
                kind, error = "done", None
            case RetryIn(message=message):
                kind, error = "retry", message.error
            case Dead(error=said):
                kind, error = "dead", said
            case Cancelled():
                kind, error = "cancelled", None
            case Released():
                return
        if outcome.run is None:
            return
        is_private = self.message.is_private
        run = outcome.run
        self.started, self.ended = run.started, run.ended if kind != "retry" else None
        self._log = run.log or self._log
        self._runs.append(
            RunInfo(
                attempt=self.message.attempt,
                started=run.started,
                ended=run.ended,
                worker=self.worker,
                outcome=kind,
                error=None if is_private else error,
            )
        )
