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

from dibs.broker import Broker, Consumer
from dibs.brokers import connect
from dibs.errors import AppNotFound, BrokerError, ReceiptLost, UnknownQueue
from dibs.message import Delivery
from dibs.outcome import Dead, Outcome, Released, RetryIn
from dibs.worker.child import Child, Death
from dibs.worker.frames import Finished, Frame, Ready, Refused, Setup
from dibs.worker.options import WorkerOptions
from dibs.worker.signals import Signals
from dibs.worker.slots import Slots

log = logging.getLogger("dibs.worker")

#: Seconds that executors get for their stop hooks.
_STOP_PATIENCE = 5.0
#: Seconds between tries when the broker refuses an outcome, or an executor can't be replaced: first and most.
_WAITS = (0.5, 30.0)
#: Seconds of silence after which a burst worker asks whether anything is still on its way.
_BURST_SILENCE = 0.2


class Supervisor:
    """One life of a worker: from its first executor's start to its last one's end."""

    def __init__(self, options: WorkerOptions, *, has_changed: Callable[[], bool] | None = None) -> None:
        self._options = options
        #: Asked twice a second: whether the worker is to end so that it can start anew (`--reload`).
        self._has_changed = has_changed
        self.is_to_restart = False
        self._selector = selectors.DefaultSelector()
        self._slots = Slots(options.slots)
        self._broker: Broker | None = None
        self._consumer: Consumer | None = None
        self._outcomes: list[tuple[Delivery, Outcome]] = []
        self._wait = Backlog()
        self._deadline: float | None = None
        self._is_stopping = False
        self._failure: Exception | None = None
        self._quiet_since = time.monotonic()

    def run(self) -> None:
        """Work until told to stop, or in a burst until nothing is ready.

        Raises:
            AppNotFound: the app can't be imported. What to show is its text.
            UnknownQueue: `-q` names a queue that the app does not.
            BrokerError: the broker can't be used.
        """
        with Signals() as signals:
            self._signals = signals
            self._selector.register(signals, selectors.EVENT_READ, None)
            try:
                for _ in range(self._options.executors):
                    self._spawn()
                while not self._is_over():
                    self._turn()
            finally:
                self._shut_down()
        if self._failure is not None:
            raise self._failure

    # A turn

    def _turn(self) -> None:
        for key, events in self._selector.select(self._patience()):
            if key.data is None:
                self._signals.clear()
            elif isinstance(key.data, Child):
                self._on_child(key.data, events)
        self._reap()
        self._record()
        self._hand_out()
        for child in self._slots.children:
            self._flush(child)
        self._look_at_the_clock()

    def _patience(self) -> float | None:
        """Return how long this turn may wait for news."""
        now = time.monotonic()
        waits = [self._wait.left(now)]
        if self._deadline is not None:
            waits.append(self._deadline - now)
        if self._consumer is not None:
            waits.append(self._consumer.timeout())
            if self._options.is_burst:
                waits.append(_BURST_SILENCE)
        if self._has_changed is not None:
            waits.append(0.5)
        known = [wait for wait in waits if wait is not None]
        return max(0.0, min(known)) if known else None

    def _on_child(self, child: Child, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(child)
        if events & selectors.EVENT_READ:
            for frame in child.read():
                self._on_frame(child, frame)

    def _on_frame(self, child: Child, frame: Frame) -> None:
        match frame:
            case Finished(number=number, outcome=outcome):
                delivery = self._slots.finish(child, number)
                self._outcomes.append((delivery, outcome))
                self._report(delivery, outcome)
            case Ready():
                self._on_ready(child, frame)
            case Refused(error=error):
                self._on_refused(error)
            case _:
                raise TypeError(f"An executor sent a {type(frame).__name__}.")

    def _on_ready(self, child: Child, ready: Ready) -> None:
        if self._consumer is None and self._failure is None:
            try:
                self._connect(ready)
            except (BrokerError, UnknownQueue) as error:
                self._fail(error)
                return
        child.is_ready = True
        self._wait.reset()
        if self._consumer is not None and (descriptors := self._consumer.keep_open()):
            child.keep_open(descriptors)
        self._slots.start_suspects()

    def _on_refused(self, error: str) -> None:
        if self._consumer is None:
            self._fail(AppNotFound(error))
        else:
            log.error("an executor could not be replaced; the others go on\n%s", error)

    def _connect(self, ready: Ready) -> None:
        options = self._options
        names = sorted(queue.name for queue in ready.queues)
        if unknown := sorted(set(options.queues) - set(names)):
            raise UnknownQueue(
                f"The app knows no queue {unknown[0]!r}; it knows: {', '.join(names) or 'none'}. "
                f"Declare it in the app with app.queue({unknown[0]!r})."
            )
        if not names:
            raise UnknownQueue(f"{options.app} has no task, no consumer and no queue: there is nothing to work on.")
        chosen = list(options.queues) or names
        limit = options.slots * options.executors
        self._broker = connect(ready.url, namespace=ready.namespace, may_declare=ready.may_declare)
        self._broker.declare(ready.queues)
        self._consumer = self._broker.consume(chosen, limit=limit)
        self._selector.register(self._consumer, selectors.EVENT_READ, self._consumer)
        log.info(
            "worker ready worker=%s broker=%s queues=%s slots=%d tasks=%d",
            f"{socket.gethostname()}:{os.getpid()}",
            self._broker.location,
            ",".join(chosen),
            limit,
            len(ready.tasks),
        )

    # Executors

    def _spawn(self) -> None:
        setup = Setup(self._options.app, self._options.url, self._options.slots)
        child = Child(setup, ())
        self._slots.children.append(child)
        self._selector.register(child, selectors.EVENT_READ, child)

    def _flush(self, child: Child) -> None:
        child.flush()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.has_outbox else 0)
        if self._selector.get_key(child).events != events:
            self._selector.modify(child, events, child)

    def _reap(self) -> None:
        """See which executors died, and what becomes of their jobs."""
        for child in list(self._slots.children):
            if (death := child.reap()) is not None:
                self._bury(child, death)

    def _bury(self, child: Child, death: Death) -> None:
        for frame in child.read():  # what it said before it died counts
            self._on_frame(child, frame)
        self._selector.unregister(child)
        child.close()
        held = list(child.running.values())
        outcomes = self._slots.bury(child, death)
        if self._is_stopping and self._failure is not None:
            return
        log.warning("executor died pid=%d cause=%s jobs=%s", child.pid, death, _ids(held))
        for delivery, outcome in outcomes:
            self._outcomes.append((delivery, outcome))
            self._report(delivery, outcome)
        if child.is_ready:
            self._spawn()
        else:
            self._wait.grow()

    # The broker

    def _record(self) -> None:
        """Settle what has ended; what the broker refuses now is tried again, and nothing is received before."""
        if self._consumer is None or not self._outcomes or self._wait.is_on(time.monotonic()):
            return
        outcomes, self._outcomes = self._outcomes, []
        try:
            self._consumer.settle(outcomes)
        except ReceiptLost as error:
            log.warning(
                "jobs ended that were no longer this worker's; they run again jobs=%s", _ids(error.deliveries)
            )
        except BrokerError as error:
            self._outcomes = outcomes + self._outcomes
            self._pause(error)
        else:
            self._wait.reset()

    def _hand_out(self) -> None:
        """Receive for the free slots and start what came."""
        if self._consumer is None or self._wait.is_on(time.monotonic()):
            return
        free = 0 if self._is_stopping else self._slots.free
        try:
            deliveries = self._consumer.receive(free)
        except BrokerError as error:
            self._pause(error)
            return
        if deliveries:
            self._slots.assign(deliveries)
        if deliveries or not self._slots.is_idle:
            self._quiet_since = time.monotonic()

    def _pause(self, error: Exception) -> None:
        self._wait.grow()
        log.error("the broker refuses; trying again in %.1f s: %s", self._wait.seconds, error)

    # The end

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if self._wait.is_over(now) and len(self._slots.children) < self._options.executors and not self._is_stopping:
            self._wait.clear()
            self._spawn()
        if self._signals.stops and not self._is_stopping:
            log.info("stopping; running jobs have %.0f s to finish jobs=%d", self._options.grace, self._held)
            self._stop(grace=self._options.grace)
        if self._has_changed is not None and not self._is_stopping and self._has_changed():
            log.info("a file changed; starting anew when running jobs have finished jobs=%d", self._held)
            self.is_to_restart = True
            self._stop(grace=None)
        if self._options.is_burst and not self._is_stopping and self._is_drained(now):
            self._stop(grace=None)

    @property
    def _held(self) -> int:
        return len(self._slots.running)

    def _stop(self, *, grace: float | None) -> None:
        self._is_stopping = True
        self._deadline = None if grace is None else time.monotonic() + grace

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._stop(grace=0.0)

    def _is_drained(self, now: float) -> bool:
        """Whether a burst is over: silence, and the broker counts nothing ready in the queues consumed here."""
        if self._broker is None or self._outcomes or now - self._quiet_since < _BURST_SILENCE:
            return False
        self._quiet_since = now
        wanted = set(self._options.queues)
        infos = self._broker.queues()
        return not any(info.ready for info in infos if not wanted or info.name in wanted)

    def _is_over(self) -> bool:
        if not self._is_stopping:
            return False
        if self._slots.is_idle and not self._outcomes:
            return True
        is_late = self._deadline is not None and time.monotonic() >= self._deadline
        return is_late or self._signals.stops > (0 if self.is_to_restart or self._options.is_burst else 1)

    def _shut_down(self) -> None:
        """Kill what still runs, hand its jobs back at no cost, and let the idle executors end in order."""
        busy = [child for child in self._slots.children if child.running]
        for child in busy:
            child.kill()
            child.reap(is_waiting=True)
        held = self._slots.clear()
        if held:
            log.warning("handed back unfinished jobs=%s", _ids(held))
        self._outcomes += [(delivery, Released()) for delivery in held]
        try:
            if self._consumer is not None:
                self._wait.reset()
                self._record()
                self._consumer.close()
        finally:
            self._end_children([child for child in self._slots.children if child not in busy])
            if self._broker is not None:
                self._broker.close()
            self._selector.close()

    def _end_children(self, children: list[Child]) -> None:
        for child in children:
            child.stop()
        deadline = time.monotonic() + _STOP_PATIENCE
        while children:
            children = [child for child in children if child.reap() is None]
            if children and time.monotonic() > deadline:
                log.warning(
                    "executors did not end in time and were killed pids=%s", [child.pid for child in children]
                )
                for child in children:
                    child.kill()
                    child.reap(is_waiting=True)
                return
            if children:
                time.sleep(0.005)

    # Reports

    def _report(self, delivery: Delivery, outcome: Outcome) -> None:
        message = delivery.message
        fields = (message.id, message.task, message.queue, message.attempt)
        match outcome:
            case RetryIn(delay=delay, message=next_message):
                text = "job will be tried again in %.1f s job=%s task=%s queue=%s attempt=%d error=%s"
                log.warning(text, delay, *fields, _last_line(next_message.error or ""))
            case Dead(reason=reason, error=error):
                text = "job set aside reason=%s job=%s task=%s queue=%s attempt=%d error=%s"
                log.error(text, reason, *fields, _last_line(error))
            case _:
                return


class Backlog:
    """A pause that doubles with each failure in a row."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._until: float | None = None

    def grow(self) -> None:
        """Begin a pause, twice as long as the last one."""
        first, longest = _WAITS
        self.seconds = min(longest, max(first, self.seconds * 2))
        self._until = time.monotonic() + self.seconds

    def left(self, now: float) -> float | None:
        """Return how many seconds of the pause are left; None: there is none."""
        return None if self._until is None else self._until - now

    def is_on(self, now: float) -> bool:
        """Whether the pause lasts."""
        return self._until is not None and now < self._until

    def is_over(self, now: float) -> bool:
        """Whether there was a pause that has ended."""
        return self._until is not None and now >= self._until

    def clear(self) -> None:
        """End the pause; the next one is longer still."""
        self._until = None

    def reset(self) -> None:
        """End the pause; all is well again."""
        self._until, self.seconds = None, 0.0


def _ids(deliveries: object) -> str:
    return ",".join(delivery.message.id for delivery in deliveries)  # type: ignore[attr-defined]


def _last_line(error: str) -> str:
    lines = error.strip().splitlines()
    return lines[-1][:200] if lines else ""
