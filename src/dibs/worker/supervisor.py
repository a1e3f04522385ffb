"""The supervisor: one thread that owns the broker connection, the slots and the signals.

It never imports or runs user code, so no task can starve its heartbeat, block its outcomes, leak its memory or
crash it. Each turn it waits for news, records outcomes, receives for the free slots and hands out.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import msgspec

from dibs.errors import AppNotFound, DibsError
from dibs.worker.cancelling import Cancelling, final
from dibs.worker.child import Child, Death
from dibs.worker.ending import STOP_PATIENCE, Ending, end_executors
from dibs.worker.frames import Began, Finished, Frame, Overdue, Ready, Refused, Said, Setup, Worn
from dibs.worker.noting import Noting
from dibs.worker.options import WorkerOptions
from dibs.worker.orphans import reap_orphans
from dibs.worker.pause import Pause
from dibs.worker.report import ids
from dibs.worker.showing import Showing
from dibs.worker.signals import Signals
from dibs.worker.slots import Slots
from dibs.worker.supply import Supply
from dibs.worker.upkeep import Upkeep

if TYPE_CHECKING:
    from dibs.worker.health import Health

log = logging.getLogger("dibs.worker")

#: Seconds between an executor's last word and its death, before it is helped.
_SILENT_PATIENCE = 2.0
#: Seconds of silence after which a burst worker asks whether anything is still on its way.
_BURST_SILENCE = 0.2


class Supervisor:
    """One life of a worker: from its first executor's start to its last one's end."""

    def __init__(self, options: WorkerOptions, *, has_changed: Callable[[], bool] | None = None) -> None:
        self._options = options
        #: Asked twice a second: whether the worker is to end so that it can start anew (`--reload`).
        self._has_changed = has_changed
        self._selector = selectors.DefaultSelector()
        self._slots = Slots(options.slots, options.executors)
        self._supply = Supply(self._selector)
        self._upkeep = Upkeep(options)
        self._cancelling = Cancelling(self._slots, self._supply)
        self._noting = Noting(self._supply)
        self._showing = Showing(options, self._slots, self._supply, self._noting)
        #: Executors that are about to end by themselves, with the time at which they are killed should they not.
        self._leaving: dict[Child, float] = {}
        #: Receipts of what the executors were told to be lost.
        self._lost: frozenset[object] = frozenset()
        #: While executors die with nothing to do: the others go on.
        self._spawn_pause = Pause()
        self._signals = Signals()
        self._ending = Ending(self._signals, options.grace)
        self._failure: Exception | None = None
        self._quiet_since = time.monotonic()
        #: Who asks it is told through this; None: nobody may.
        self._health: Health | None = None
        self._serving: AbstractContextManager[None] = nullcontext()
        if options.metrics:
            from dibs.worker import health, probes  # noqa: PLC0415 -- an HTTP server is 4 MB where nobody asks

            self._health = health.Health(self._supply, self._showing, self._ending)
            self._serving = probes.serving(options.metrics, self._health)

    def run(self) -> None:
        """Work until told to stop, or in a burst until nothing is ready.

        Raises:
            AppNotFound: the app can't be imported. What to show is its text.
            UnknownQueue: `-q` names a queue that the app does not.
            BadURL: the app's broker can't be shared with other processes.
            BrokerError: the broker can't be used.
            BadOption: nothing can listen where metrics are to be served.
        """
        with self._signals as signals, self._serving:
            self._selector.register(signals, selectors.EVENT_READ, None)
            try:
                self._replace()
                while not self._ending.is_there(is_idle=self._slots.is_idle and not self._supply.has_outcomes):
                    self._turn()
            finally:
                self._shut_down()
        if self._failure is not None:
            raise self._failure

    @property
    def is_to_restart(self) -> bool:
        """Whether it ended so that it starts anew."""
        return self._ending.is_to_restart

    # A turn

    def _turn(self) -> None:
        has_signal = False
        for key, events in self._selector.select(self._patience()):
            if key.data is None:
                has_signal = True
            elif isinstance(key.data, Child):
                self._on_child(key.data, events)
        if has_signal:  # last: it closes the sockets of the dead, whom this turn's news may name
            self._signals.clear()
            self._showing.is_stale = True
            self._resize()
            self._reap()
        self._upkeep.look(self._slots.children, time.monotonic())
        self._replace()
        self._noting.tell()
        self._supply.record()
        self._hand_out()
        for child in self._slots.children:
            self._flush(child)
        self._look_at_the_clock()
        self._supply.record()  # what was just taken back: nothing may wake the next turn for long
        if self._supply.failure is not None:
            self._fail(self._supply.failure)

    def _patience(self) -> float | None:
        """Return how long this turn may wait for news."""
        now = time.monotonic()
        children = self._slots.children
        waits = [self._supply.timeout(), self._spawn_pause.left, self._ending.left]
        waits += [self._upkeep.patience(children, now), self._cancelling.patience(now)]
        waits += [self._noting.patience(now), self._showing.patience(now)]
        if self._health is not None:
            self._health.turn()
            waits.append(self._health.patience)
        if self._leaving:
            waits.append(min(self._leaving.values()) - now)
        if self._options.is_burst and self._supply.is_connected:
            waits.append(_BURST_SILENCE)
        if self._has_changed is not None:
            waits.append(0.5)
        waits += [child.window.patience(len(child.running), now) for child in children]
        known = [wait for wait in waits if wait is not None]
        return max(0.0, min(known)) if known else None

    def _on_child(self, child: Child, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(child)
        if events & selectors.EVENT_READ:
            self._showing.is_stale = True
            self._read(child)
            if child.is_silent:
                # It ends, and SIGCHLD follows; or its task closed descriptors that were not its own.
                self._selector.unregister(child)
                self._leaving[child] = time.monotonic() + _SILENT_PATIENCE

    def _read(self, child: Child) -> None:
        try:
            for frame in child.read():
                self._on_frame(child, frame)
        except msgspec.DecodeError as error:
            log.error("executor killed: what it said can't be read pid=%d error=%s", child.pid, error)
            child.kill()

    def _on_frame(self, child: Child, frame: Frame) -> None:
        match frame:
            case Finished(number=number, outcome=outcome):
                if number in child.cancelled:
                    outcome = final(outcome)
                self._supply.end(self._slots.finish(child, number), outcome)
                self._noting.end(number)
                self._upkeep.note_end(child)
                self._spawn_pause.reset()
            case Began():
                self._upkeep.begin(child, frame)
            case Said(number=number, note=note):
                self._noting.hear(child, number, note)
            case Overdue(number=number):
                self._on_overdue(child, number)
            case Worn():
                self._upkeep.note_wear(child, "a thread was interrupted")
            case Ready():
                self._on_ready(child, frame)
            case Refused(error=error):
                self._on_refused(child, error)
            case _:
                raise TypeError(f"An executor sent a {type(frame).__name__}.")

    def _on_ready(self, child: Child, ready: Ready) -> None:
        if not self._supply.is_connected and self._failure is None:
            try:
                self._connect(ready)
            except DibsError as error:
                self._fail(error)
                return
        child.is_ready = True
        if descriptors := self._supply.descriptors:
            child.keep_open(descriptors)
        self._slots.start_suspects()

    def _on_refused(self, child: Child, error: str) -> None:
        child.is_refused = True
        if not self._supply.is_connected:
            self._fail(AppNotFound(error))
        else:
            log.error("an executor could not be replaced; the others go on\n%s", error)

    def _on_overdue(self, child: Child, number: int) -> None:
        """Give an executor in which a run ignores its time limit nothing more; others end there in peace."""
        if number in child.limited:
            child.overdue.add(number)
            child.is_retired = True
            self._recall(child)

    def _connect(self, ready: Ready) -> None:
        options = self._options
        self._supply.connect(ready, options)
        self._slots.returns_limit = self._supply.returns_limit
        if self._health is not None:
            self._health.know(ready)
        log.info(
            "worker ready worker=%s broker=%s queues=%s slots=%d tasks=%d",
            f"{socket.gethostname()}:{os.getpid()}",
            self._supply.location,
            ",".join(self._supply.queues),
            self._slots.total,
            len(ready.tasks),
        )

    def _hand_out(self) -> None:
        """Receive for the free slots and start what came."""
        deliveries = self._cancelling.sift(self._supply.receive(0 if self._ending.is_begun else self._slots.free))
        if ended := self._slots.assign(deliveries):
            for delivery, outcome in ended:
                self._supply.end(delivery, outcome)
            self._supply.record()  # before anything that was assigned is started: it may end this worker
        if deliveries:
            self._showing.is_stale = True
        if deliveries or not self._slots.is_idle:
            self._quiet_since = time.monotonic()
        if (lost := self._supply.lost()) != self._lost:
            self._lost = lost
            for child in self._slots.children:
                child.tell_lost(lost)

    def _recall(self, child: Child) -> None:
        """Take back what an executor has not started, for others to do."""
        self._supply.release(child.recall())

    # Executors

    def _replace(self) -> None:
        """Start executors for those that are gone or worn, and for suspects; end those that are too many."""
        self._slots.start_suspects()
        if self._ending.is_begun:
            return
        while not self._spawn_pause.is_on and self._slots.lacks_executors:
            self._spawn()
        for child in self._slots.retire():
            self._recall(child)
        for child in self._slots.children:
            if child.is_retired and not child.running and not child.is_stopped:
                child.stop()
                self._leaving.setdefault(child, time.monotonic() + STOP_PATIENCE)

    def _resize(self) -> None:
        """Have as many executors as signals asked for."""
        for change in self._signals.take_changes():
            if self._slots.resize(change):
                log.info("slots changed slots=%d", self._slots.total)
            else:
                log.warning("the last executor stays; to stop the worker send SIGTERM slots=%d", self._slots.total)

    def _spawn(self) -> None:
        try:
            child = Child(Setup(self._options.app, self._options.url, self._options.slots))
        except OSError as error:
            if not self._supply.is_connected:
                raise
            self._spawn_pause.begin()
            log.error(
                "an executor could not be started; trying again in %.1f s: %s", self._spawn_pause.seconds, error
            )
            return
        child.is_quarantine = self._slots.lacks_quarantine
        self._slots.children.append(child)
        self._selector.register(child, selectors.EVENT_READ, child)

    def _flush(self, child: Child) -> None:
        child.flush()
        if child.has_outbox == child.is_clogged or child not in self._selector.get_map():
            return
        child.is_clogged = child.has_outbox
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.is_clogged else 0)
        self._selector.modify(child, events, child)

    def _reap(self) -> None:
        """See which executors died, and what becomes of their jobs."""
        for child in list(self._slots.children):
            if (death := child.reap()) is not None:
                self._bury(child, death)
        reap_orphans([child.pid for child in self._slots.children])

    def _bury(self, child: Child, death: Death) -> None:
        self._read(child)  # what it said before it died counts
        if child in self._selector.get_map():
            self._selector.unregister(child)
        self._leaving.pop(child, None)
        self._recall(child)  # what it never started is nobody's fault
        child.close()
        held = list(child.running.values())
        for number in child.running:
            self._noting.end(number)
        for delivery, outcome in self._slots.bury(child, death):
            self._supply.end(delivery, outcome)
        if self._ending.is_begun:
            self._supply.release(self._slots.release_suspects())
        if child.is_retired and not held:
            return
        if not child.is_refused:
            log.warning("executor died pid=%d cause=%s jobs=%s", child.pid, death, ids(held))
        if not child.is_ready and not self._supply.is_connected:
            self._fail(AppNotFound(f"The executor died while it imported {self._options.app}: {death}."))
        if not held and not self._spawn_pause.is_on:  # several that die together are one failure
            self._spawn_pause.begin()

    # The clock and the end

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for child in self._slots.children:
            if child.window.is_stale(len(child.running), now):
                self._recall(child)
            self._upkeep.condemn(child, now)
        self._cancelling.wake(now)
        for child, deadline in self._leaving.items():
            if now >= deadline:
                child.kill()
                self._leaving[child] = now + STOP_PATIENCE
        was_ending = self._ending.is_begun
        self._look_for_the_end(now)
        if self._ending.is_begun and not was_ending:
            self._showing.hurry()
        self._showing.look(now, is_ending=self._ending.is_begun)

    def _look_for_the_end(self, now: float) -> None:
        if self._ending.heed_signals():
            log.info("stopping; running jobs have %.0f s to finish jobs=%d", self._options.grace, self._held)
            self._hand_back_unstarted()
        if self._ending.is_begun:
            return
        if self._has_changed is not None and self._has_changed():
            log.info("a file changed; starting anew when running jobs have finished jobs=%d", self._held)
            self._ending.begin(grace=None, is_to_restart=True)
            self._hand_back_unstarted()
        elif self._options.is_burst and now - self._quiet_since >= _BURST_SILENCE:
            self._quiet_since = now
            if self._supply.is_drained():
                self._ending.begin(grace=None)

    @property
    def _held(self) -> int:
        return len(self._slots.running)

    def _hand_back_unstarted(self) -> None:
        """Give to others what no executor has started (P5)."""
        for child in self._slots.children:
            self._recall(child)
        self._supply.release(self._slots.release_suspects())

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._ending.begin(grace=0.0)

    def _shut_down(self) -> None:
        """Kill what still runs, hand its jobs back at no cost, and let the idle executors end in order."""
        busy = [child for child in self._slots.children if child.running]
        for child in busy:
            child.kill()
            child.reap(is_waiting=True)
            self._read(child)  # what it said before that counts
        held = self._slots.clear()
        if held:
            log.warning("handed back unfinished jobs=%s", ids(held))
        self._supply.release(held)
        try:
            self._supply.close(max(0.0, self._ending.left or 0.0))
        finally:
            end_executors([child for child in self._slots.children if child not in busy])
            self._supply.disconnect()
            self._selector.close()
            for child in self._slots.children:
                child.close()
