"""The app: a registry of tasks and consumers, and the way to their broker.

Importing a module that holds one connects to nothing; the first hand-over does.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import msgspec

from dibs import codec
from dibs.backoff import Backoff
from dibs.broker import Broker, Queue
from dibs.connection import Connection
from dibs.errors import BadOption, BadTask, UnknownTask
from dibs.job import Job, Prepared
from dibs.lifespan import Lifespan, check_hook
from dibs.listener import Listener
from dibs.message import DEFAULT_KEEP, DEFAULT_PRIORITY, Message
from dibs.names import check_id, check_queue_name, check_task_name
from dibs.queues import Queues, QueueType
from dibs.task import AnyTask, ErrorKinds, Options, Policy, Task, TaskDecorator, check_function, task_name

if TYPE_CHECKING:
    import sqlite3

    from dibs.otel import Tracing
    from dibs.outcome import Outcome

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Dibs:
    """A registry of tasks and consumers that share a broker. Share it between threads; a fork is fine.

    Args:
        url: the broker; else `$DIBS_URL`, else `sqlite:///dibs.db` in the working directory, which only a
            worker or a command at a terminal creates. See `docs/reference/url.md`.
        namespace: put before every name in the broker, so that several apps can share it.
        handover_timeout: seconds that handing over waits for the broker at the most.
        declare: False: make no queues (for users of RabbitMQ without the right to).
        unknown_task_limit: seconds for which a job of an unknown task is tried again: rolling deployments need some.

    Raises:
        BadURL: the URL can't be read.
        BadName: the namespace can't be part of a queue's name.
        BadOption: a number of seconds is out of bounds.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "",
        handover_timeout: float = 30.0,
        declare: bool = True,
        unknown_task_limit: float = 3600.0,
    ) -> None:
        if namespace:
            check_queue_name(namespace)
        if not 0 <= unknown_task_limit < math.inf:
            raise BadOption(f"unknown_task_limit={unknown_task_limit}: must be 0 seconds or more.")
        self.namespace = namespace
        self.unknown_task_limit = unknown_task_limit
        self.may_declare = declare
        self._lock = threading.RLock()
        self._connection = Connection(
            url, namespace=namespace, handover_timeout=handover_timeout, may_declare=declare
        )
        self._tasks: dict[str, AnyTask] = {}
        self._listeners: dict[str, Listener] = {}
        self._queues = Queues()
        #: Set by `dibs.otel.instrument`.
        self.tracing: Tracing | None = None
        self._starts: list[Callable[[], Any]] = []
        self._stops: list[Callable[[], Any]] = []

    # Registering

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        retries: int = 8,
        backoff: Backoff = Backoff(),
        retry_on: ErrorKinds | None = None,
        bury_on: ErrorKinds = (),
        timeout: float | None = None,
        priority: int = DEFAULT_PRIORITY,
        expires: float | dt.timedelta | None = None,
        keep: float | dt.timedelta = DEFAULT_KEEP,
        private: bool = False,
    ) -> TaskDecorator: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        queue: str = "default",
        retries: int = 8,
        backoff: Backoff = Backoff(),
        retry_on: ErrorKinds | None = None,
        bury_on: ErrorKinds = (),
        timeout: float | None = None,
        priority: int = DEFAULT_PRIORITY,
        expires: float | dt.timedelta | None = None,
        keep: float | dt.timedelta = DEFAULT_KEEP,
        private: bool = False,
    ) -> Any:
        """Register a function, plain or `async`, as a task. With or without parentheses.

        A job may run more than once: after a failure (`retries`), and now and then after a crash. So a task's
        side effects must be idempotent.

        Args:
            name: how workers know it; else `module.function`.
            queue: where its jobs wait.
            retries: further attempts after a failure; 8 spread over about an hour with the default backoff.
            backoff: how long to wait before each.
            retry_on: only these exceptions are tried again, others set the job aside; None: all.
            bury_on: these exceptions set the job aside at once.
            timeout: seconds that a run may take before it fails with `JobTimeout`; None: no limit. `drain` sets none.
            priority: 0 (last) to 9 (first).
            expires: seconds or timedelta after which a job may not start any more.
            keep: seconds or timedelta for which the ledger keeps a job and its result when it is over; 0: not at all.
            private: keep its arguments, results and errors out of the ledger. The dead have them all the same.

        Raises:
            BadTask: a method, a generator, a nested function without `name`, or a name that is taken.
            BadName, BadOption: a value is out of bounds.
        """
        options = Options(queue=queue, priority=priority, expires=expires, keep=keep, is_private=private)
        policy = Policy(retries=retries, backoff=backoff, retry_on=retry_on, bury_on=bury_on, timeout=timeout)

        def register(function: Callable[..., Any]) -> AnyTask:
            return self._register(function, name, options, policy)

        return register if function is None else register(function)

    def consumer(
        self,
        queue: str,
        *,
        retries: int = 8,
        backoff: Backoff = Backoff(),
        keep: float | dt.timedelta = DEFAULT_KEEP,
        private: bool = False,
    ) -> Callable[[Callable[[Message], R]], Callable[[Message], R]]:
        """Register a function, plain or `async`, for the plain messages of `queue`, whoever sent them.

        On RabbitMQ the queue is declared as strangers would declare it (durable, no other arguments), unless
        `app.queue` says otherwise.

        Args:
            queue: whose messages.
            retries, backoff: as for a task.
            keep, private: as for a task; they hold for what this app sends, not for other programs' messages.

        Raises:
            BadTask: a method or a generator, or the queue has a consumer already.
            BadName, BadOption: a value is out of bounds.
        """
        options = Options(queue=queue, keep=keep, is_private=private)
        policy = Policy(retries=retries, backoff=backoff)

        def register(function: Callable[[Message], R]) -> Callable[[Message], R]:
            check_function(function)
            if queue in self._listeners:
                raise BadTask(f"Queue {queue!r} has a consumer already: {self._listeners[queue].function!r}.")
            self._listeners[queue] = Listener(function, policy, options)
            self._queues.add_plain(queue)
            return function

        return register

    def queue(self, name: str, *, type: QueueType | None = None) -> None:  # noqa: A002
        """Declare a queue that no task or consumer here names, or say how one is to be made.

        Args:
            name: at most 180 bytes, without `*` and `#`.
            type: on RabbitMQ, should the queue not exist: "quorum" (replicated; a task's queue is that) or
                "classic" (durable, no other arguments, as strangers declare theirs; any other queue is that).
                Other brokers have one type.

        Raises:
            BadName, BadOption: a value is out of bounds.
        """
        self._queues.choose(name, type)

    def on_start(self, hook: F) -> F:
        """Run `hook` in each executor before its first job: plain, `async`, or a (async) context manager."""
        check_hook(hook)
        self._starts.append(hook)
        return hook

    def on_stop(self, hook: F) -> F:
        """Run `hook`, plain or `async`, in each executor after its last job."""
        check_hook(hook)
        self._stops.append(hook)
        return hook

    # Handing over

    def send(
        self,
        queue: str,
        body: Any,
        *,
        headers: Mapping[str, Any] | None = None,
        priority: int = DEFAULT_PRIORITY,
        delay: float | dt.timedelta | None = None,
        at: dt.datetime | None = None,
        expires: float | dt.timedelta | dt.datetime | None = None,
        id: str | None = None,  # noqa: A002
    ) -> str:
        """Hand over a plain message and return its id. When this returns, it is stored for good (P1).

        Args:
            queue: a consumer's queue, or one declared with `app.queue`.
            body: bytes as they are, a str in UTF-8, anything else as JSON.
            headers: carried along; JSON values. Names that begin with `dibs-` are dibs' own.
            priority, delay, at, expires, id: as for a task's `using`.

        Raises:
            UnknownQueue: the queue is neither a consumer's, a task's nor declared.
            BadArguments: the body or a header has no JSON form.
            BrokerError: it was not stored, or (`HandoverUncertain`) nobody knows.
        """
        options = Options(queue=queue, priority=priority, delay=delay, at=at, expires=expires, id=id)
        if listener := self._listeners.get(queue):
            kept = listener.options
            options = msgspec.structs.replace(options, keep=kept.keep, is_private=kept.is_private)
        data, content_type = codec.encode_plain(body)
        codec.check_headers(headers or {})
        message = options.make_message(data, content_type=content_type, headers=headers)
        self._send((message,))
        return message.id

    def enqueue_many(self, prepared: Iterable[Prepared[R]]) -> list[Job[R]]:
        """Hand over many calls at once: one round trip, one commit; all or none on SQLite.

        Args:
            prepared: what `task.prepare(...)` returned; may be of different tasks.

        Raises:
            BrokerError: none was stored, or (`HandoverUncertain`) some may be.
        """
        return self._hand_over([call.message for call in prepared])

    def enqueue_in(self, connection: sqlite3.Connection, prepared: Iterable[Prepared[R]]) -> list[Job[R]]:
        """Store jobs inside the caller's own SQLite transaction: they exist if, and when, it commits.

        A waiting worker notices them within a second, as nobody is told of the commit.

        Args:
            connection: to the same file as this app's broker (`sqlite:///file.db?share=1`).
            prepared: what `task.prepare(...)` returned.

        Raises:
            BadOption: this app's broker is not SQLite, or the connection is to another file.
        """
        broker = self._connection.broker  # which declares nothing: that would wait for the caller's own write lock
        send_in = getattr(broker, "send_in", None)
        if send_in is None:
            raise BadOption(f"enqueue_in needs an SQLite broker; this app's is {broker.location}.")
        messages = [call.message for call in prepared]
        self._pass_on(messages, lambda checked: send_in(connection, checked))
        # Not ours: until the caller commits, nobody knows them.
        return Job.of(messages, self, is_ours=False)

    # Asking

    def job(self, id: str) -> Job[Any]:  # noqa: A002
        """Return any job, by its id: of this program or another one. Asks nobody until it is asked something.

        Its result is decoded to its task's annotation where this app has the task, and is plain JSON else.

        Raises:
            BadName: the id is empty, over 200 bytes or has control characters.
        """
        return Job(check_id(id), self)

    # What a worker asks

    @property
    def broker(self) -> Broker:
        """The broker, made at first use, with the queues of this app declared."""
        broker = self._connection.broker
        if not self._queues.is_declared:
            with self._lock:
                self._queues.declare(broker)
        return broker

    @property
    def url(self) -> str:
        """The broker's URL, with its password: for connecting, not for showing (`broker.location` is)."""
        return self._connection.url

    @property
    def tasks(self) -> Mapping[str, AnyTask]:
        """The tasks by name."""
        return self._tasks

    @property
    def listeners(self) -> Mapping[str, Listener]:
        """The functions registered with `consumer`, by queue."""
        return self._listeners

    @property
    def hooks(self) -> tuple[tuple[Callable[[], Any], ...], tuple[Callable[[], Any], ...]]:
        """What `on_start` and `on_stop` registered, in order."""
        return tuple(self._starts), tuple(self._stops)

    @property
    def queue_names(self) -> frozenset[str]:
        """Every queue that this app names."""
        return self._queues.names

    def declared(self) -> list[Queue]:
        """Return every queue that this app names, with how it is to be made."""
        return self._queues.all()

    def get_task(self, name: str) -> AnyTask:
        """Return the task of that name.

        Raises:
            UnknownTask: there is none; the text lists those that there are.
        """
        try:
            return self._tasks[name]
        except KeyError:
            known = ", ".join(sorted(self._tasks)) or "none"
            raise UnknownTask(f"This app has no task {name!r}; it has: {known}.") from None

    def read_result(self, task: str | None, result: bytes) -> Any:
        """Return what a task returned, from its JSON. See `dibs.job.Source`."""
        known = self._tasks.get(task or "")
        return codec.decode(result) if known is None else known.signature.decode_result(result)

    def use(self, url: str | None = None, *, may_create: bool = False, patience: float = math.inf) -> None:
        """Point this app at another broker, or allow it to create the default file. For workers and commands."""
        with self._lock:
            self._connection.use(url, may_create=may_create, patience=patience)
            self._queues.forget()

    def drain(self) -> list[Outcome]:
        """Run here and now what is ready in this app's queues, and return the outcomes in order: for tests.

        Delayed jobs and retries that wait for their backoff are left alone. `on_start` and `on_stop` hooks run
        around it. Inside a running event loop it works in a thread of its own, so async tasks can run.
        """
        from dibs.drain import drain  # noqa: PLC0415 -- a producer needs nothing of what these import
        from dibs.run import make_runner  # noqa: PLC0415

        if not self.queue_names:
            return []
        runner = make_runner(self.tasks, self.listeners, self.tracing, unknown_task_limit=self.unknown_task_limit)
        return drain(self.broker, sorted(self.queue_names), runner, Lifespan(*self.hooks))

    def close(self) -> None:
        """Let go of the broker's connections; the next use opens them again. Safe to call twice."""
        self._connection.close()

    def _hand_over(self, messages: Sequence[Message]) -> list[Job[Any]]:
        self._send(messages)
        return Job.of(messages, self, is_ours=True)

    def _send(self, messages: Sequence[Message]) -> None:
        if messages:
            self._pass_on(messages, lambda checked: self.broker.send(checked))  # noqa: PLW0108 -- made when checked

    def _pass_on(self, messages: Sequence[Message], send: Callable[[Sequence[Message]], None]) -> None:
        self._queues.check(messages)
        if self.tracing is None:
            send(messages)
        else:
            self.tracing.send(messages, send)

    def _register(self, function: Callable[..., Any], name: str | None, options: Options, policy: Policy) -> AnyTask:
        check_function(function)
        chosen = check_task_name(task_name(function) if name is None else name)
        if chosen in self._tasks:
            raise BadTask(f"There is a task named {chosen!r} already: {self._tasks[chosen].function!r}. Give name=.")
        task: AnyTask = Task(function, name=chosen, options=options, policy=policy, hand_over=self._hand_over)
        self._tasks[chosen] = task
        self._queues.add_tasks(options.queue)
        return task
